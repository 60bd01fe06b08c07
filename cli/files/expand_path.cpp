#include "cli/files/expand_path.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <vector>

namespace mgpu {
namespace {

/// The home directory of a user, or of this one for "", without a slash at its end; "" where there is none.
std::string home_of(const std::string& user) {
  std::string home;
  if (const char* own = std::getenv("HOME"); user.empty() && own) {
    home = own;
  } else {
    struct passwd entry {};
    struct passwd* found = nullptr;
    std::vector<char> strings(1 << 16);
    if (user.empty()) {
      ::getpwuid_r(::getuid(), &entry, strings.data(), strings.size(), &found);
    } else {
      ::getpwnam_r(user.c_str(), &entry, strings.data(), strings.size(), &found);
    }
    if (found) home = found->pw_dir;
  }
  while (!home.empty() && home.back() == '/') home.pop_back();
  return home;
}

std::string expand_user(std::string_view path) {
  if (!path.starts_with('~')) return std::string(path);
  const std::size_t slash = std::min(path.find('/'), path.size());
  const std::string home = home_of(std::string(path.substr(1, slash - 1)));
  if (home.empty()) return std::string(path);
  return home + std::string(path.substr(slash));
}

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

}  // namespace

std::string expand_path(std::string_view path) {
  const std::string text = expand_user(path);
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t begin = i + 1, end = begin, next = begin;  // of the name, and behind it
    if (text[i] == '$' && begin < text.size() && text[begin] == '{') {
      end = text.find('}', ++begin);
      next = end == std::string::npos ? begin : end + 1;
    } else if (text[i] == '$') {
      while (end < text.size() && is_word(text[end])) ++end;
      next = end;
    }
    const bool named = text[i] == '$' && end != std::string::npos && end > begin;
    const char* value = named ? std::getenv(text.substr(begin, end - begin).c_str()) : nullptr;
    if (value) {
      out += value;
      i = next;
    } else {
      out += text[i++];
    }
  }
  return out;
}

std::string expand_home(std::string_view path) {
  return path == "~" || path.starts_with("~/") ? expand_user(path) : std::string(path);
}

}  // namespace mgpu
