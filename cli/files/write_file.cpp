#include "cli/files/write_file.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>

#include "core/descriptor.h"

namespace mgpu {
namespace {

namespace fs = std::filesystem;

constexpr int kMostTries = 16;  // of a name that others have taken, or of a folder that others remove
constexpr std::size_t kLongestName = 255, kSuffixRoom = 32;

std::string hint_of(int fault) {
  if (fault == ENOSPC || fault == EDQUOT) return "free some space and run again with --resume";
  if (fault == EFBIG) return "raise the limit on the size of files (ulimit -f) and run again with --resume";
  return {};
}

bool concerns_all_files(int fault) {
  constexpr int kinds[] = {ENOSPC, EDQUOT,   EROFS,  EIO,       EACCES, EPERM,
                           ESTALE, ENOTCONN, ENODEV, ETIMEDOUT, ENOENT, ENOTDIR};
  return std::ranges::find(kinds, fault) != std::end(kinds);
}

/// A name beside `path` that no other process or thread takes: PATH.PID-NUMBER.tmp. A long file name is cut, at the
/// beginning of a UTF-8 character, so that the suffix has room.
std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> count{0};
  std::string name = fs::path(path).filename().string();
  if (name.size() > kLongestName - kSuffixRoom) {
    std::size_t end = kLongestName - kSuffixRoom;
    while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0) == 0x80) --end;
    name.resize(end);
  }
  return (fs::path(path).parent_path() / fmt::format("{}.{}-{}.tmp", name, ::getpid(), count++)).string();
}

/// A new temporary file, locked for as long as it is open, so that nobody takes it for a leftover. errno where it
/// fails.
struct Temporary {
  explicit Temporary(const std::string& path)
      : name(temporary_name(path)), file(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW) {
    if (file.is_open()) ::flock(file.get(), LOCK_EX | LOCK_NB);  // a file system without locks does without
  }

  std::string name;
  Descriptor file;
};

/// 0 or errno.
int write_once(const std::string& path, std::string_view bytes) {
  Temporary temporary(path);
  if (!temporary.file.is_open()) return errno;
  int fault = temporary.file.write(bytes);
  if (fault == 0) fault = temporary.file.sync();
  if (const int closing = temporary.file.close(); fault == 0) fault = closing;
  if (fault == 0 && ::rename(temporary.name.c_str(), path.c_str()) != 0) fault = errno;
  if (fault != 0) ::unlink(temporary.name.c_str());
  return fault;
}

void sync_folder(const fs::path& folder) {
  const Descriptor directory(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
  if (directory.is_open())
    directory.sync();  // so that the new name survives a power cut; the file itself is safe already
}

/// The part of a temporary file's name before ".PID-NUMBER.tmp" or, of earlier versions, ".tmp"; "" of other names.
std::string_view written_name(std::string_view name) {
  constexpr std::string_view kEnd = ".tmp";
  if (!name.ends_with(kEnd)) return {};
  name.remove_suffix(kEnd.size());
  const std::size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view numbers = name.substr(dot + 1);
  const std::size_t dash = numbers.find('-');
  const bool is_new = dash != std::string_view::npos && dash > 0 && dash + 1 < numbers.size() &&
                      numbers.find_first_not_of("0123456789-") == std::string_view::npos;
  return is_new ? name.substr(0, dot) : name;
}

bool is_one_of(std::string_view name, const std::set<std::string>& names) {
  if (name.empty()) return false;
  const auto found = names.lower_bound(std::string(name));  // a cut name is the beginning of its own
  return found != names.end() &&
         (*found == name || (name.size() > kLongestName - kSuffixRoom - 4 && found->starts_with(name)));
}

/// Removes a file unless a process has it locked.
void remove_unlocked(const std::string& path) {
  const Descriptor file(path, O_RDWR | O_NONBLOCK | O_NOFOLLOW);
  struct stat info {};
  if (!file.is_open() || ::fstat(file.get(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) ::unlink(path.c_str());
}

}  // namespace

WriteError::WriteError(const std::string& path, int fault)
    : Error(Exit::ImageFailed, Mark{path}, fmt::format("cannot be written: {}", std::strerror(fault)), hint_of(fault)),
      concerns_all_(concerns_all_files(fault)) {}

int try_to_write(const std::string& folder) {
  int fault = EEXIST;
  for (int tries = 0; fault == EEXIST && tries < kMostTries; ++tries) {
    Temporary probe((fs::path(folder) / ".mgpu-render").string());
    if (!probe.file.is_open()) {
      fault = errno;
      continue;
    }
    ::unlink(probe.name.c_str());
    fault = probe.file.write("x");
    if (fault == 0) fault = probe.file.sync();
  }
  return fault;
}

void write_file(const std::string& path, std::string_view bytes) {
  const fs::path folder = fs::path(path).parent_path();
  int fault = 0;
  for (int tries = 0; tries < kMostTries; ++tries) {
    std::error_code made;
    if (!folder.empty()) fs::create_directories(folder, made);
    fault = made ? made.value() : write_once(path, bytes);
    if (fault == 0) {
      sync_folder(folder);
      return;
    }
    if (fault != ENOENT && fault != EEXIST) break;  // the folder has gone meanwhile, or the name was taken
  }
  throw WriteError(path, fault);
}

void remove_leftovers(const std::set<std::string>& paths) {
  std::map<fs::path, std::set<std::string>> folders;
  for (const std::string& path : paths)
    folders[fs::path(path).parent_path()].insert(fs::path(path).filename().string());
  for (const auto& [folder, names] : folders) {
    std::error_code fault;
    fs::directory_iterator entries(folder.empty() ? "." : folder, fault);
    for (; !fault && entries != fs::directory_iterator(); entries.increment(fault)) {
      const std::string name = entries->path().filename().string();
      if (is_one_of(written_name(name), names)) remove_unlocked(entries->path().string());
    }
  }
}

}  // namespace mgpu
