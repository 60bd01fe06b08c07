#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace mgpu {

/// Exit codes of the program: part of its interface. The greater takes precedence where several things went wrong.
enum class Exit : int {
  Ok = 0,
  ImageFailed = 1,  ///< an image failed after the start (out of memory, non-finite latent, disk full)
  Usage = 2,        ///< usage, YAML, a missing file or device, an unsupported family, an unwritable output
  DoesNotFit = 3,   ///< the plan refuses
  Device = 4,       ///< a device was lost, the driver is too old, communication failed
  HungUp = 129,
  Interrupted = 130,
  Terminated = 143,
  CpuTimeUsedUp = 152,  ///< SIGXCPU
};

/// Where a user's value stands. `line` and `column` count from 1; line 0 means the whole file.
struct Mark {
  std::string file;
  int line = 0;
  int column = 0;

  /// "job.yaml:7:3", "model.safetensors" or "" when there is no place to name.
  std::string to_string() const;
};

/// What the user has to know and can mend: what, where, what to do next. The one exception type for such mistakes;
/// only main prints it. Our own mistakes are MGPU_CHECKs.
class Error : public std::runtime_error {
 public:
  /// `excerpt` is the quoted source line with its caret, where there is one; `hint` says what to do next.
  Error(Exit code, Mark where, std::string message, std::string hint = {}, std::string excerpt = {});

  Exit code() const { return code_; }
  const Mark& where() const { return where_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }

 private:
  Exit code_;
  Mark where_;
  std::string message_;
  std::string hint_;
};

/// Throws a usage error (exit code 2) that concerns a whole file.
[[noreturn]] void fail_file(std::string_view file, std::string message, std::string hint = {});

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);
}

/// An invariant of ours: throws std::logic_error with the place, the condition and a formatted message.
#define MGPU_CHECK(condition, ...)                                                                            \
  do {                                                                                                        \
    if (!(condition)) ::mgpu::detail::check_failed(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
  } while (false)

/// MGPU_CHECK(a == b) that prints both operands.
#define MGPU_CHECK_EQ(a, b) MGPU_CHECK((a) == (b), "{} != {}", (a), (b))

}  // namespace mgpu
