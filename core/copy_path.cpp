#include "core/copy_path.h"

#include <ATen/ATen.h>
#include <ATen/cuda/PeerToPeerAccess.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "core/device_notes.h"
#include "core/error.h"
#include "core/host_memory.h"

namespace mgpu {
namespace {

constexpr std::int64_t kCheckBytes = std::int64_t{4} << 20;

/// What is known of the ways so far.
struct Paths {
  std::mutex mutex;
  std::map<std::pair<int, int>, CopyPath> known;

  static Paths& all() {
    static Paths paths;
    return paths;
  }
};

CopyPath check_paths(at::Device from, at::Device to) {
  const HostDeviceScope nobody;
  SendBytes by_peer;
  if (at::cuda::get_p2p_access(from.index(), to.index()))
    by_peer = [&](const at::Tensor& bytes) {
      at::Tensor arrived = bytes.to(from).to(to).cpu();
      if (peer_copy_hook) peer_copy_hook(arrived);
      return arrived;
    };
  const auto through_main_memory = [&](const at::Tensor& bytes) { return bytes.to(from).cpu().to(to).cpu(); };
  return checked_path(DeviceId::cuda(from.index()), DeviceId::cuda(to.index()), by_peer, through_main_memory);
}

}  // namespace

CopyPath copy_path(at::Device from, at::Device to) {
  Paths& paths = Paths::all();
  const std::lock_guard lock(paths.mutex);
  const std::pair<int, int> ends{from.index(), to.index()};
  const auto known = paths.known.find(ends);
  if (known != paths.known.end()) return known->second;
  return paths.known.emplace(ends, check_paths(from, to)).first->second;
}

at::Tensor check_bytes() {
  at::Tensor out = at::empty({kCheckBytes}, at::kByte);
  auto* words = static_cast<std::uint64_t*>(out.mutable_data_ptr());
  std::uint64_t state = 0;
  for (std::int64_t i = 0; i < kCheckBytes / 8; ++i) {  // Steele, Lea, Flood: SplitMix64
    state += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    words[i] = z ^ (z >> 31);
  }
  return out;
}

std::optional<std::int64_t> first_changed_byte(const SendBytes& send) {
  const at::Tensor sent = check_bytes(), arrived = send(sent);
  MGPU_CHECK(arrived.is_cpu() && arrived.sizes() == sent.sizes(), "other bytes arrived than were sent");
  const auto* own = sent.const_data_ptr<std::uint8_t>();
  const auto* its = arrived.const_data_ptr<std::uint8_t>();
  if (std::memcmp(own, its, kCheckBytes) == 0) return std::nullopt;
  return std::mismatch(own, own + kCheckBytes, its).first - own;
}

CopyPath checked_path(const DeviceId& from, const DeviceId& to, const SendBytes& by_peer,
                      const SendBytes& through_main_memory) {
  if (by_peer) {
    const auto changed = first_changed_byte(by_peer);
    if (!changed) return CopyPath::Peer;
    add_device_note(to, fmt::format("peer access from {} changes bytes (the first at {} of {}): copies from there pass "
                                    "through main memory",
                                    from.to_string(), *changed, kCheckBytes));
  }
  if (first_changed_byte(through_main_memory))
    throw Error(Exit::Device, Mark{},
                fmt::format("copies from {} to {} through main memory change bytes", from.to_string(), to.to_string()),
                "leave one of them out of gpu_ids, and have the machine checked");
  return CopyPath::MainMemory;
}

void forget_copy_paths() {
  Paths& paths = Paths::all();
  const std::lock_guard lock(paths.mutex);
  paths.known.clear();
}

}  // namespace mgpu
