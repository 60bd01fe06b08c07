#include "cli/signals.h"

#include <unistd.h>

#include <csignal>

#include "core/cancel.h"

namespace mgpu {
namespace {

extern "C" void note_signal(int signal) {
  int none = 0;
  if (!stop_signal.compare_exchange_strong(none, signal)) ::_exit(128 + signal);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

int caught_signal() {
  return stop_signal.load();
}

}  // namespace mgpu
