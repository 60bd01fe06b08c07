#include "core/mapped_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/tensor_writer.h"

using namespace mgpu;
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kBytes = 1 << 20;

struct Mapped {
  explicit Mapped(const test::Folder& folder, const std::string& name = "a")
      : path(folder.write(name, std::string(kBytes, 'x'))),
        file(std::make_unique<MappedFile>(path, ::open(path.c_str(), O_RDONLY | O_CLOEXEC), kBytes)) {}

  /// The sum of all its bytes, in units of 'x'.
  std::size_t whole() const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(file->data());
    return std::accumulate(bytes, bytes + kBytes, std::size_t{0}) / 'x';
  }

  std::string path;
  std::unique_ptr<MappedFile> file;
};

std::string said(const MappedFile& file) {
  try {
    file.check();
  } catch (const FileChanged& e) {
    CHECK(e.code() == Exit::ImageFailed);
    return e.what();
  }
  return "";
}

const std::string kHint =
    " while the job used it\n  run the job again with --resume once the file is whole; put a new file in its place by "
    "rename (mv)";

}  // namespace

TEST_SUITE_BEGIN("mapped_file");

TEST_CASE("a file that is cut while it is mapped reads as zeros there, and says so") {
  const test::Folder folder;
  const Mapped mapped(folder);
  CHECK(mapped.whole() == kBytes);
  CHECK(said(*mapped.file).empty());
  fs::resize_file(mapped.path, kBytes / 4);
  CHECK(mapped.whole() == kBytes / 4);
  CHECK(mapped.whole() == kBytes / 4);
  CHECK(said(*mapped.file) == mapped.path + ": was cut from 1048576 to 262144 bytes" + kHint);
  // As large as before, and with the old time: what was read was not the file.
  const auto time = fs::last_write_time(mapped.path);
  fs::resize_file(mapped.path, kBytes);
  fs::last_write_time(mapped.path, time);
  CHECK_FALSE(said(*mapped.file).empty());
}

TEST_CASE(
    "a file that is emptied, grows, is written to or is touched says so; one that is replaced or removed is fine") {
  const test::Folder folder;
  const Mapped emptied(folder, "emptied"), grown(folder, "grown"), written(folder, "written"), gone(folder, "gone"),
      replaced(folder, "replaced");
  fs::resize_file(emptied.path, 0);
  CHECK(emptied.whole() == 0);
  CHECK(said(*emptied.file) == emptied.path + ": was cut from 1048576 to 0 bytes" + kHint);
  std::ofstream(grown.path, std::ios::app) << "y";
  CHECK(said(*grown.file) == grown.path + ": grew from 1048576 to 1048577 bytes" + kHint);
  fs::last_write_time(written.path, fs::last_write_time(written.path) + std::chrono::seconds(1));
  CHECK(said(*written.file) == written.path + ": was written to" + kHint);
  fs::remove(gone.path);
  fs::rename(folder.write("new", "other"), replaced.path);
  for (const Mapped* kept : {&gone, &replaced}) {
    CHECK(kept->whole() == kBytes);
    CHECK(said(*kept->file).empty());
  }
}

TEST_CASE("many mappings, and threads that read one that is cut") {
  const test::Folder folder;
  std::vector<std::unique_ptr<Mapped>> many;
  for (int i = 0; i < 300; ++i) many.push_back(std::make_unique<Mapped>(folder, std::to_string(i)));
  for (int i = 0; i < 300; i += 2) many[static_cast<std::size_t>(i)].reset();
  const Mapped& cut = *many[299];
  fs::resize_file(cut.path, kBytes / 2);
  std::vector<std::size_t> read(4);
  std::vector<std::thread> threads;
  for (std::size_t& bytes : read) threads.emplace_back([&bytes, &cut] { bytes = cut.whole(); });
  for (std::thread& thread : threads) thread.join();
  CHECK(read == std::vector<std::size_t>(4, kBytes / 2));
  CHECK_FALSE(said(*cut.file).empty());
  CHECK(said(*many[1]->file).empty());
}

TEST_CASE("a bus error elsewhere ends the program as before") {
  const test::Folder folder;
  const Mapped ours(folder);
  for (const bool is_sent : {false, true}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(STDERR_FILENO);  // a sanitizer would report it
      if (is_sent) ::raise(SIGBUS);
      const std::string path = folder.write("other", std::string(kBytes, 'x'));
      const int descriptor = ::open(path.c_str(), O_RDONLY);
      const auto* map = static_cast<volatile char*>(::mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, descriptor, 0));
      ::truncate(path.c_str(), 0);
      ::_exit(map[kBytes - 1]);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK((WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS : WEXITSTATUS(status) != 0));
  }
}

TEST_SUITE_END();
