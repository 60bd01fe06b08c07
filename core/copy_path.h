#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>

#include "core/device_id.h"

namespace mgpu {

/// How copies go from GPU to GPU: over peer access, or through page-locked main memory.
enum class CopyPath : std::uint8_t { Peer, MainMemory };

/// The way from one GPU to another: peer access where there is and it changes no byte, else main memory. The first
/// question about two GPUs sends some MiB of pseudo-random bytes there and compares what arrived (the peer access of
/// some consumer boards reports success and delivers other bytes); a way that is not used for that is a note of `to`.
/// Throws Error (exit 4) where copies through main memory change bytes. From any thread.
CopyPath copy_path(at::Device from, at::Device to);

/// The bytes that copy_path() sends: [4 Mi] uint8 in main memory, always the same ones.
at::Tensor check_bytes();

/// Sends bytes along a way, and returns them in main memory as they arrived.
using SendBytes = std::function<at::Tensor(const at::Tensor& bytes)>;

/// The first of check_bytes() that arrives changed; nothing where all arrive as they were sent.
std::optional<std::int64_t> first_changed_byte(const SendBytes& send);

CopyPath checked_path(const DeviceId& from, const DeviceId& to, const SendBytes& by_peer,
                      const SendBytes& through_main_memory);

/// Changes what arrived over peer access in copy_path()'s check. Empty but in tests, as forget_copy_paths(), after
/// which every way is checked again.
inline std::function<void(at::Tensor& arrived)> peer_copy_hook;
void forget_copy_paths();

}  // namespace mgpu
