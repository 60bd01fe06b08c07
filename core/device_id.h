#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace mgpu {

/// The name of a device. `cuda:N` is a logical id after CUDA_VISIBLE_DEVICES; `cpu` is main memory and fp32 compute;
/// `cpu:N` is a virtual CPU device.
struct DeviceId {
  enum class Kind : std::uint8_t { Cuda, Cpu };
  Kind kind = Kind::Cpu;
  int index = -1;  ///< -1: plain "cpu"

  static DeviceId cuda(int index) { return {Kind::Cuda, index}; }
  static DeviceId cpu(int index = -1) { return {Kind::Cpu, index}; }
  bool is_cuda() const { return kind == Kind::Cuda; }
  std::string to_string() const;
  auto operator<=>(const DeviceId&) const = default;
};

/// The device that "cuda:1", "cpu", "cpu:0" or a bare number ("1" is cuda:1) names, or nothing.
std::optional<DeviceId> parse_device(std::string_view text);

}  // namespace mgpu
