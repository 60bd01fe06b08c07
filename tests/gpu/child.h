#pragma once

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

extern "C" char** environ;

namespace mgpu::test {

/// This program once more, in a process of its own, for one test case that is skipped otherwise: without the CUDA
/// contexts and the libraries' handles of the tests before, or beside the test that started it.
class Child {
 public:
  explicit Child(const std::string& test_case) {
    std::array<int, 2> in{}, out{};
    if (pipe(in.data()) != 0 || pipe(out.data()) != 0) return;
    std::array<char, 4096> path{};
    if (readlink("/proc/self/exe", path.data(), path.size() - 1) < 0) return;
    std::string program = path.data(), only = "--test-case=" + test_case, no_skip = "--no-skip",
                no_intro = "--no-intro";
    std::array<char*, 5> arguments = {program.data(), only.data(), no_skip.data(), no_intro.data(), nullptr};
    posix_spawn_file_actions_t actions{};
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    for (const int end : {in[0], in[1], out[0], out[1]}) posix_spawn_file_actions_addclose(&actions, end);
    if (posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments.data(), environ) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    to_ = in[1];
    from_ = out[0];
  }

  ~Child() {
    if (!ended_) finish();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// What the child prints up to a line that holds `word`, or to its end.
  std::string read_to(const std::string& word) {
    std::string said;
    char next = 0;
    while (read(from_, &next, 1) == 1) {
      said += next;
      if (next == '\n' && said.find(word) != std::string::npos) break;
    }
    return said;
  }

  /// Lets it go on from wait_for_parent(), and waits for its end. Returns its exit code; its output goes to `text`.
  int finish() {
    ended_ = true;
    close(to_);
    text = read_to("no line holds this");
    close(from_);
    int state = -1;
    if (pid_ < 0 || waitpid(pid_, &state, 0) != pid_) return -1;
    return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
  }

  std::string text;

 private:
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  bool ended_ = false;
};

/// In the child: says so, and waits for the parent to go on.
inline void wait_for_parent(const char* word) {
  dprintf(STDOUT_FILENO, "%s\n", word);
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
  }
}

}  // namespace mgpu::test
