#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/devices.h"

namespace mgpu {

/// One way between the memories of two devices, at least one of them a GPU; `cpu` is pinned main memory.
struct Link {
  DeviceId from;
  DeviceId to;
  bool peer_access = false;       ///< `from` reaches the other GPU's memory without main memory between
  double bytes_per_second = 0.0;  ///< of a large copy; 0: not measured
  std::string fault;              ///< why not
  bool changes_bytes = false;     ///< copies arrive other than they were sent, and jobs do not use the way
};

/// Every link of the GPUs, measured: GPU by GPU from and to the CPU, then each ordered pair. Never throws and takes
/// about two seconds at most, starting the GPUs apart: what failed or came too late says so.
std::vector<Link> survey_links(std::span<const DeviceId> gpus);

/// As a matrix for people, in 10^9 bytes a second, with what keeps links from being fast or measured below; "" without
/// links.
std::string describe_links(std::span<const Link> links);

}  // namespace mgpu
