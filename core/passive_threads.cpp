#include "core/passive_threads.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/error.h"

// OpenMP's threads wait for work by spinning, 3 ms and more: beside other programs they take the cores that the work
// needs. libgomp reads how threads wait (OMP_WAIT_POLICY) when it is loaded, before any constructor of ours, and has no
// function for it. So where the environment does not say, the program starts itself anew with OMP_WAIT_POLICY=passive:
// in .preinit_array, which runs once the libraries are mapped and before their constructors, which are what takes long.
// MKL's constructor ends the process if the working directory has been removed: it runs in / instead.
// The C library and sanitizers are not initialised there: system calls alone, no getenv, no allocation, no string
// functions.

namespace {

#define BEFORE_SANITIZERS __attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined")))

/// Whether a setting "NAME=value" of the environment is of the variable.
BEFORE_SANITIZERS bool names(const char* setting, const char* variable) {
  while (*variable != '\0')
    if (*variable++ != *setting++) return false;
  return *setting == '=';
}

/// As the kernel's sets of signals have it.
constexpr std::uint64_t bit_of(int signal) {
  return std::uint64_t{1} << (signal - 1);
}

BEFORE_SANITIZERS void restart_with_passive_waiting(int /*argc*/, char** argv, char** environment) {
  std::size_t count = 0;
  for (; environment[count]; ++count)
    if (names(environment[count], "OMP_WAIT_POLICY") || names(environment[count], "GOMP_SPINCOUNT")) return;
  static char passive[] = "OMP_WAIT_POLICY=passive", link[] = "/proc/self/exe", program[PATH_MAX];
  const long length = ::syscall(SYS_readlink, link, program, sizeof program - 1);
  if (length <= 0) return;  // no /proc: threads spin
  program[length] = '\0';
  auto** extended = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
  extended[0] = passive;
  for (std::size_t i = 0; i <= count; ++i) extended[i + 1] = environment[i];
  // Signals wait until the program handles them anew: install_signal_handlers().
  const std::uint64_t stops = bit_of(SIGINT) | bit_of(SIGTERM) | bit_of(SIGHUP);
  ::syscall(SYS_rt_sigprocmask, SIG_BLOCK, &stops, nullptr, sizeof stops);
  ::syscall(SYS_execve, program, argv, extended);  // by its path, which keeps the process's name
  ::syscall(SYS_execve, link, argv, extended);     // the file has been removed since
  ::syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &stops, nullptr, sizeof stops);
}

int folder_that_is_gone = -1;

BEFORE_SANITIZERS void leave_folder_that_is_gone() {
  static char path[PATH_MAX], here[] = ".", root[] = "/";
  if (::syscall(SYS_getcwd, path, sizeof path) >= 0) return;
  const long folder = ::syscall(SYS_open, here, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0 && ::syscall(SYS_chdir, root) == 0) folder_that_is_gone = static_cast<int>(folder);
}

BEFORE_SANITIZERS void before_constructors(int count, char** argv, char** environment) {
  restart_with_passive_waiting(count, argv, environment);
  leave_folder_that_is_gone();
}

}  // namespace

void mgpu::return_to_working_directory() {
  if (folder_that_is_gone < 0) return;
  const int gone = std::exchange(folder_that_is_gone, -1);
  const bool back = ::fchdir(gone) == 0;
  ::close(gone);
  if (!back) throw Error(Exit::Usage, Mark{}, "the working directory is gone", "change to one that is there");
}

/// CMakeLists.txt names it to the linker, so that every program over mgpu_core has it.
extern "C" {
__attribute__((section(".preinit_array"), used)) void (*mgpu_passive_threads)(int, char**,
                                                                              char**) = before_constructors;
}
