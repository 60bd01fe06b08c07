#include "core/device_id.h"

#include <fmt/format.h>

#include <charconv>

namespace mgpu {

std::string DeviceId::to_string() const {
  if (is_cuda()) return fmt::format("cuda:{}", index);
  return index < 0 ? "cpu" : fmt::format("cpu:{}", index);
}

std::optional<DeviceId> parse_device(std::string_view text) {
  if (text == "cpu") return DeviceId::cpu();
  DeviceId id = DeviceId::cuda(0);
  if (text.starts_with("cuda:")) {
    text.remove_prefix(5);
  } else if (text.starts_with("cpu:")) {
    id.kind = DeviceId::Kind::Cpu;
    text.remove_prefix(4);
  }
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), id.index);
  const bool whole = fault == std::errc{} && end == text.data() + text.size();
  if (!whole || id.index < 0 || id.index > 1023) return std::nullopt;
  return id;
}

}  // namespace mgpu
