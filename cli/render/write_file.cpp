#include "cli/render/write_file.h"

#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>

#include "cli/png/png.h"
#include "core/descriptor.h"
#include "core/read_file.h"

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

/// Creates a file in the folder, writes to it and removes it; 0 or errno. It has no name any more when it is written
/// to, so that nothing stays where we are killed.
int try_to_write(const fs::path& folder) {
  int fault = EEXIST;
  for (int tries = 0; fault == EEXIST && tries < kMostTries; ++tries) {
    Temporary probe((folder / ".mgpu-render").string());
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

void sync_folder(const fs::path& folder) {
  const Descriptor directory(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
  if (directory.is_open())
    directory.sync();  // so that the new name survives a power cut; the file itself is safe already
}

Error directory_error(const Job& job, const std::string& why) {
  const FileReference& directory = job.output.directory;
  return job.error(directory.mark, fmt::format("cannot write to the output directory \"{}\": {}", directory.path, why),
                   "name another with output.directory");
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

void check_output_directory(const Job& job) {
  const std::string& directory = job.output.directory.path;
  std::error_code fault;
  fs::create_directories(directory, fault);
  if (fault) throw directory_error(job, fault.message());
  if (!fs::is_directory(directory, fault)) throw directory_error(job, "it is not a directory");
  if (const int writing = try_to_write(directory); writing != 0) throw directory_error(job, std::strerror(writing));
}

void check_output_directory_unchanged(const Job& job) {
  fs::path folder = fs::absolute(job.output.directory.path).lexically_normal();
  struct stat info {};
  while (::stat(folder.c_str(), &info) != 0) {
    if (errno != ENOENT) throw directory_error(job, std::strerror(errno));
    const fs::path above = folder.parent_path();
    if (above == folder) return;
    folder = above;
  }
  if (!S_ISDIR(info.st_mode)) throw directory_error(job, std::strerror(ENOTDIR));
  if (::access(folder.c_str(), W_OK | X_OK) != 0) throw directory_error(job, std::strerror(errno));
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

Existing existing_picture(const std::string& path, const std::string& record, bool overwrite, bool resume) {
  std::error_code fault;
  if (overwrite || !fs::exists(path, fault)) return Existing::Render;
  if (!resume) return Existing::Keep;
  try {
    const std::map<std::string, std::string> text = read_png_text(read_file(path), path);
    const auto found = text.find("mgpu_job");
    return found != text.end() && found->second == record ? Existing::Keep : Existing::Render;
  } catch (const Error&) {  // damaged: what --resume is there to mend
    return Existing::Render;
  }
}

bool begins_as_png(const std::string& path) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  char begin[8] = {};
  return file.is_open() && ::pread(file.get(), begin, sizeof begin, 0) == sizeof begin && is_png({begin, sizeof begin});
}

std::vector<std::string> report_paths(std::span<const Job> jobs, const std::optional<PartOfRun>& part) {
  std::vector<std::string> paths;
  std::set<std::string> used;
  // Two names of a directory are one place: the files are compared where they really lie.
  const auto place_of = [&](const std::string& path) {
    std::error_code fault;
    const fs::path place = fs::weakly_canonical(path, fault);
    return fault ? path : place.string();
  };
  for (const Job& job : jobs) {
    const fs::path directory(job.output.directory.path);
    if (job.output.report->empty()) {
      paths.emplace_back();
      continue;
    }
    const fs::path name(*job.output.report);
    std::string path = (directory / report_name(name.string(), part)).lexically_normal().string();
    for (int copy = 1; !used.insert(place_of(path)).second; ++copy) {
      const std::string own = fmt::format("{}-{}{}{}", name.stem().string(), job.name,
                                          copy == 1 ? "" : fmt::format("-{}", copy), name.extension().string());
      path = (directory / name.parent_path() / report_name(own, part)).lexically_normal().string();
    }
    paths.push_back(std::move(path));
  }
  return paths;
}

}  // namespace mgpu
