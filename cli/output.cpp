#include "cli/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "cli/png.h"

namespace mgpu {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_write(const std::string& path, int fault) {
  std::string hint;
  if (fault == ENOSPC || fault == EDQUOT || fault == EFBIG) hint = "free some space and run again with --resume";
  throw Error(Exit::ImageFailed, Mark{path}, fmt::format("cannot be written: {}", std::strerror(fault)), hint);
}

/// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) : number_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  bool is_open() const { return number_ >= 0; }
  /// All of these return 0 or errno.
  int write(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t written = ::write(number_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return errno;
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
    return 0;
  }
  int sync() const { return ::fsync(number_) == 0 || errno == EINVAL ? 0 : errno; }
  int close() {
    const int number = std::exchange(number_, -1);
    return number < 0 || ::close(number) == 0 ? 0 : errno;
  }

 private:
  int number_;
};

/// Writes and syncs a new file; 0 or errno.
int write_new(const std::string& path, std::string_view bytes) {
  Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file.is_open()) return errno;
  int fault = file.write(bytes);
  if (fault == 0) fault = file.sync();
  const int closing = file.close();
  return fault != 0 ? fault : closing;
}

void sync_folder(const fs::path& folder) {
  const Descriptor directory(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
  if (directory.is_open())
    directory.sync();  // so that the new name survives a power cut; the file itself is safe already
}

}  // namespace

void check_output_directory(const Job& job) {
  const FileReference& directory = job.output.directory;
  const auto refuse = [&](const std::string& why) {
    return job.error(directory.mark,
                     fmt::format("cannot write to the output directory \"{}\": {}", directory.path, why),
                     "name another with output.directory");
  };
  std::error_code fault;
  fs::create_directories(directory.path, fault);
  if (fault) throw refuse(fault.message());
  if (!fs::is_directory(directory.path, fault)) throw refuse("it is not a directory");
  const std::string probe = (fs::path(directory.path) / fmt::format(".mgpu-render-{}.tmp", ::getpid())).string();
  const int writing = write_new(probe, "x");
  ::unlink(probe.c_str());
  if (writing != 0) throw refuse(std::strerror(writing));
}

void write_file(const std::string& path, std::string_view bytes) {
  const fs::path folder = fs::path(path).parent_path();
  std::error_code made;
  if (!folder.empty()) fs::create_directories(folder, made);
  if (made) fail_write(path, made.value());
  const std::string temporary = path + ".tmp";
  int fault = write_new(temporary, bytes);
  if (fault == 0 && ::rename(temporary.c_str(), path.c_str()) != 0) fault = errno;
  if (fault != 0) {
    ::unlink(temporary.c_str());
    fail_write(path, fault);
  }
  sync_folder(folder);
}

void append_file(const std::string& path, std::string_view bytes) {
  Descriptor file(path, O_WRONLY | O_CREAT | O_APPEND);
  const int fault = file.is_open() ? file.write(bytes) : errno;
  if (fault != 0) fail_write(path, fault);
}

Existing existing_picture(const std::string& path, const std::string& record, bool overwrite, bool resume) {
  std::error_code fault;
  if (overwrite || !fs::exists(path, fault)) return Existing::Render;
  if (!resume) return Existing::Keep;
  std::ifstream stream(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(stream), {});
  try {
    const PngFile picture = decode_png(bytes, path);
    const auto found = picture.text.find("mgpu_job");
    return found != picture.text.end() && found->second == record ? Existing::Keep : Existing::Render;
  } catch (const Error&) {  // damaged: what --resume is there to mend
    return Existing::Render;
  }
}

std::vector<std::string> report_paths(std::span<const Job> jobs, const std::optional<PartOfRun>& part) {
  std::vector<std::string> paths;
  std::set<std::string> used;
  for (const Job& job : jobs) {
    const fs::path directory(job.output.directory.path);
    if (job.output.report->empty()) {
      paths.emplace_back();
      continue;
    }
    const fs::path name(*job.output.report);
    std::string path = (directory / report_name(name.string(), part)).lexically_normal().string();
    for (int copy = 1; !used.insert(path).second; ++copy) {
      const std::string own = fmt::format("{}-{}{}{}", name.stem().string(), job.name,
                                          copy == 1 ? "" : fmt::format("-{}", copy), name.extension().string());
      path = (directory / name.parent_path() / report_name(own, part)).lexically_normal().string();
    }
    paths.push_back(std::move(path));
  }
  return paths;
}

}  // namespace mgpu
