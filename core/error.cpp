#include "core/error.h"

namespace mgpu {
namespace {

std::string compose(const Mark& where, const std::string& message, const std::string& hint,
                    const std::string& excerpt) {
  std::string text = where.to_string();
  if (!text.empty()) text += ": ";
  text += message;
  if (!excerpt.empty()) text += "\n" + excerpt;
  if (!hint.empty()) text += "\n  " + hint;
  return text;
}

}  // namespace

std::string Mark::to_string() const {
  if (line == 0) return file;
  return fmt::format("{}:{}:{}", file, line, column);
}

Error::Error(Exit code, Mark where, std::string message, std::string hint, std::string excerpt)
    : std::runtime_error(compose(where, message, hint, excerpt)),
      code_(code),
      where_(std::move(where)),
      message_(std::move(message)),
      hint_(std::move(hint)) {}

void fail_file(std::string_view file, std::string message, std::string hint) {
  throw Error(Exit::Usage, Mark{std::string(file)}, std::move(message), std::move(hint));
}

void detail::check_failed(const char* file, int line, const char* condition, const std::string& message) {
  throw std::logic_error(fmt::format("internal error at {}:{}: {}: {}", file, line, condition, message));
}

}  // namespace mgpu
