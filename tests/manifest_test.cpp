#include "cli/files/manifest.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "cli/files/write_file.h"
#include "tests/rendering.h"
#include "tests/tensor_writer.h"

using namespace mgpu;
namespace fs = std::filesystem;
using test::read_all;

namespace {

std::string line(const std::string& file, int number = 0) {
  return fmt::format("{{\"file\":\"{}\",\"number\":{}}}\n", file, number);
}

Manifest::Present present(const std::string& file) {
  return {file, [file] { return line(file, 9); }};
}

}  // namespace

TEST_SUITE_BEGIN("manifest");

TEST_CASE("a half line at the end goes, a whole one without its newline stays") {
  const test::Folder folder;
  const auto after = [&](const std::string& before) {
    const Manifest manifest(folder.write("m.jsonl", before));
    manifest.append(line("new"));
    return read_all(manifest.path());
  };
  CHECK(after("") == line("new"));
  CHECK(after(line("a")) == line("a") + line("new"));
  CHECK(after("{\"file\":\"a\"}") == "{\"file\":\"a\"}\n" + line("new"));
  CHECK(after(line("a") + "{\"fi") == line("a") + line("new"));
  CHECK(after("{\"fi") == line("new"));
  CHECK(after(std::string(10, '\0')) == line("new"));
}

TEST_CASE("each picture that is there has one line, the last") {
  const test::Folder folder;
  const Manifest manifest(folder.write(
      "m.jsonl", line("a", 1) + line("b", 1) + "torn {\n" + line("other") + line("other") + line("a", 2) + "{}\n"));
  const std::set<std::string> absent = {"b"};
  manifest.mend({present("a"), present("c")}, absent);
  CHECK(read_all(manifest.path()) == line("other") + line("other") + line("a", 2) + "{}\n" + line("c", 9));
  const auto inode = [&] {
    struct stat info {};
    ::stat(manifest.path().c_str(), &info);
    return info.st_ino;
  };
  const auto before = inode();
  manifest.mend({present("a"), present("c")}, absent);  // nothing to do
  CHECK(inode() == before);
  CHECK(read_all(manifest.path()) == line("other") + line("other") + line("a", 2) + "{}\n" + line("c", 9));
}

TEST_CASE("a manifest without pictures is not made, and its folder is where a line needs it") {
  const test::Folder folder;
  const Manifest manifest(folder.path("deep/m.jsonl"));
  manifest.mend({}, {});
  CHECK_FALSE(fs::exists(folder.path("deep")));
  manifest.append(line("a"));
  CHECK(read_all(manifest.path()) == line("a"));
}

TEST_CASE("what is no regular file is refused at once") {
  const test::Folder folder;
  const Manifest manifest(folder.path("fifo"));
  REQUIRE(::mkfifo(manifest.path().c_str(), 0644) == 0);
  CHECK_THROWS_WITH_AS(manifest.append(line("a")),
                       (manifest.path() + ": is a FIFO, not a regular file\n  move it away").c_str(), Error);
  CHECK_THROWS_WITH_AS(Manifest("/dev/full").append("x"), "/dev/full: is a device, not a regular file\n  move it away",
                       Error);
}

TEST_CASE("processes that append and mend at once lose no line") {
  constexpr int kProcesses = 4, kLines = 200;
  const test::Folder folder;
  const Manifest manifest(folder.path("m.jsonl"));
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; ++process) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        for (int i = 0; i < kLines; ++i) {
          const std::string file = fmt::format("{}-{}", process, i);
          manifest.append(line(file));
          if (i % 10 == 0) manifest.append(line(file));
          if (i % 10 == 0) manifest.mend({present(file)}, {});
        }
      } catch (...) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
  }
  std::istringstream lines(read_all(manifest.path()));
  std::multiset<std::string> found;
  for (std::string text; std::getline(lines, text);) found.insert(text + "\n");
  CHECK(found.size() == kProcesses * kLines);
  CHECK(std::set<std::string>(found.begin(), found.end()).size() == found.size());
}

TEST_CASE("what processes that were killed left goes, what is being written stays") {
  const test::Folder folder;
  const std::string a = folder.path("a.png"), lone = folder.path(std::string(255, 'n'));
  const std::string cut = std::string(223, 'n') + ".77-1.tmp";
  for (const std::string name :
       {"a.png.77-1.tmp", "a.png.tmp", "b.png.77-1.tmp", "a.png.x-1.tmp", "a.png.77.tmp", "tmp"})
    folder.write(name, "half");
  folder.write(cut, "half");
  const int held = ::open(folder.write("a.png.88-1.tmp", "half").c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(::flock(held, LOCK_EX) == 0);
  remove_leftovers({a, lone});
  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder.path(""))) left.insert(entry.path().filename().string());
  CHECK(left == std::set<std::string>{"b.png.77-1.tmp", "a.png.x-1.tmp", "a.png.77.tmp", "a.png.88-1.tmp", "tmp"});
  ::close(held);
  remove_leftovers({a});
  CHECK_FALSE(fs::exists(folder.path("a.png.88-1.tmp")));
  remove_leftovers({folder.path("missing/a.png")});
}

TEST_SUITE_END();
