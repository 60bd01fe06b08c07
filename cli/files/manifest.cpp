#include "cli/files/manifest.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "cli/files/write_file.h"
#include "core/descriptor.h"
#include "core/read_file.h"

namespace mgpu {
namespace {

namespace fs = std::filesystem;

constexpr int kMostTries = 1000;  // of a file that others replace, or whose folder they remove
constexpr auto kLockPatience = std::chrono::seconds(30);
constexpr std::size_t kLongestLine = std::size_t{1} << 20;

/// The manifest, open and locked until this goes.
class Locked {
 public:
  explicit Locked(const std::string& path) : path_(path) {
    for (int tries = 0; tries < kMostTries; ++tries) {
      std::error_code made;
      if (const fs::path folder = fs::path(path).parent_path(); !folder.empty()) fs::create_directories(folder, made);
      file_.emplace(path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK);
      if (!file_->is_open()) {
        fault_ = made ? made.value() : errno;
        if (fault_ != ENOENT) break;
        continue;
      }
      refuse_special();
      lock();
      if (is_current()) return;
    }
    throw WriteError(path, fault_);
  }

  const Descriptor& file() const { return *file_; }
  /// False where the file system has no locks, or another process sits on it: then nothing may be removed.
  bool is_locked() const { return is_locked_; }
  std::size_t size() const {
    struct stat info {};
    return ::fstat(file_->get(), &info) == 0 ? static_cast<std::size_t>(info.st_size) : 0;
  }
  /// The last `most` bytes.
  std::string tail(std::size_t most) const {
    const std::size_t bytes = size();
    std::string text(std::min(most, bytes), '\0');
    const ssize_t got = ::pread(file_->get(), text.data(), text.size(), static_cast<off_t>(bytes - text.size()));
    if (got < 0) throw WriteError(path_, errno);
    text.resize(static_cast<std::size_t>(got));
    return text;
  }
  void cut(std::size_t bytes) const {
    if (::ftruncate(file_->get(), static_cast<off_t>(bytes)) != 0) throw WriteError(path_, errno);
  }
  /// Appends in one write. What is written of a text that does not fit goes again.
  void append(const std::string& text) const {
    const std::size_t before = size();
    const int fault = file_->write(text);
    if (fault == 0) return;
    if (is_locked_ && size() > before) cut(before);
    throw WriteError(path_, fault);
  }

 private:
  void refuse_special() const {
    struct stat info {};
    if (::fstat(file_->get(), &info) != 0) throw WriteError(path_, errno);
    if (const std::string kind = special_kind(info); !kind.empty())
      throw Error(Exit::ImageFailed, Mark{path_}, fmt::format("is {}, not a regular file", kind), "move it away");
  }
  void lock() {
    const auto end = std::chrono::steady_clock::now() + kLockPatience;
    while (true) {
      is_locked_ = ::flock(file_->get(), LOCK_EX | LOCK_NB) == 0;
      if (is_locked_ || errno != EWOULDBLOCK || std::chrono::steady_clock::now() > end) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  /// Whether the file that we have is still the one of that name: mend() may have put another in its place.
  bool is_current() {
    struct stat ours {
    }, named{};
    fault_ = ENOENT;
    return ::fstat(file_->get(), &ours) == 0 && ::stat(path_.c_str(), &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
  }

  const std::string& path_;
  std::optional<Descriptor> file_;
  bool is_locked_ = false;
  int fault_ = 0;
};

bool is_object(std::string_view line) {
  return nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false).is_object();
}

/// Where the file does not end in a newline: removes the half line at its end, or returns the newline that a whole one
/// lacks.
std::string end_line(const Locked& manifest) {
  if (const std::string last = manifest.tail(1); last.empty() || last == "\n") return {};
  if (!manifest.is_locked()) return "\n";
  const std::string tail = manifest.tail(kLongestLine);
  const std::size_t newline = tail.rfind('\n');
  const std::string rest = tail.substr(newline == std::string::npos ? 0 : newline + 1);
  if (is_object(rest)) return "\n";
  manifest.cut(manifest.size() - rest.size());
  return {};
}

struct Line {
  std::string text;  ///< with its newline
  std::string file;  ///< of its picture; "" of other objects
};

/// The lines that are JSON objects.
std::vector<Line> lines_of(const std::string& text) {
  std::vector<Line> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    const auto file = json.find("file");
    lines.push_back({line + "\n", file != json.end() && file->is_string() ? file->get<std::string>() : ""});
  }
  return lines;
}

}  // namespace

void Manifest::append(std::string_view line) const {
  const Locked manifest(path_);
  manifest.append(end_line(manifest) + std::string(line));
}

void Manifest::mend(const std::vector<Present>& present, const std::set<std::string>& absent) const {
  std::error_code missing;
  if (present.empty() && !fs::exists(path_, missing)) return;
  const Locked manifest(path_);
  const std::string before = manifest.tail(manifest.size());
  const std::vector<Line> lines = lines_of(before);
  std::map<std::string_view, std::size_t> last;
  for (std::size_t i = 0; i < lines.size(); ++i) last[lines[i].file] = i;
  std::set<std::string_view> ours;
  for (const Present& picture : present) ours.insert(picture.file);
  std::string kept, added;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (absent.contains(lines[i].file) || (ours.contains(lines[i].file) && last[lines[i].file] != i)) continue;
    kept += lines[i].text;
  }
  for (const Present& picture : present)
    if (!last.contains(picture.file)) added += picture.line();
  if (kept == before || !manifest.is_locked()) {
    if (!added.empty()) manifest.append(end_line(manifest) + added);
  } else {
    write_file(path_, kept + added);  // who waits for our lock sees that the file is another one
  }
}

}  // namespace mgpu
