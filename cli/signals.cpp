#include "cli/signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>

#include "core/cancel.h"

namespace mgpu {
namespace {

constexpr std::int64_t kSameRequest = 100'000'000;  // nanoseconds

std::atomic<std::int64_t> noted_at{0};
std::atomic<bool> notes{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<std::int64_t>::is_always_lock_free,
              "a handler may only touch lock-free atomics");

std::int64_t now() {
  struct timespec time {};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

extern "C" void note_signal(int signal) {
  if (!notes.load()) ::_exit(128 + signal);
  int none = 0;
  if (stop_signal.compare_exchange_strong(none, signal)) {
    noted_at = now();
    return;
  }
  const int fault = errno;
  // The first one's time may not be set yet where the second interrupts it: that is the same request too.
  const std::int64_t first = noted_at.load();
  const bool comes_again = signal == SIGHUP || signal == SIGXCPU;  // without anyone asking for it
  if (!comes_again && first != 0 && now() - first > kSameRequest) ::_exit(128 + signal);
  errno = fault;
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  sigemptyset(&action.sa_mask);
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &action, nullptr);
  ::sigaction(SIGXFSZ, &action, nullptr);
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGXCPU, &action, nullptr);
  struct sigaction hangup {};
  if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) ::sigaction(SIGHUP, &action, nullptr);
  // The program blocks them where it starts itself anew (core/passive_threads.cpp).
  sigset_t blocked;
  sigemptyset(&blocked);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&blocked, signal);
  ::sigprocmask(SIG_UNBLOCK, &blocked, nullptr);
}

void note_signals() {
  notes = true;
}

int caught_signal() {
  return stop_signal.load();
}

void open_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) != -1 || errno != EBADF) continue;
    // Open the wrong way round, so that reading or writing fails as it would on a closed stream.
    const int opened = ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (opened >= 0 && opened != stream) {
      ::dup2(opened, stream);
      ::close(opened);
    }
  }
}

}  // namespace mgpu
