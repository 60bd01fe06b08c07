#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mgpu {

/// Main memory that this process may use. The sources name limits, such as "memory.max of cgroup /slurm/job_7" or
/// "RLIMIT_AS (ulimit -v)".
struct HostMemory {
  std::uint64_t total_bytes = 0;  ///< the machine's memory, or the lowest limit
  std::uint64_t free_bytes = 0;   ///< what the process can still take; page cache counts as free
  std::string source;             ///< of total_bytes; empty: the machine's memory
  std::string free_source;        ///< of free_bytes; empty: what is available on the machine
};

/// A resource limit and what of it is in use, in bytes. `limit` 0: unlimited.
struct ResourceLimit {
  std::uint64_t limit = 0, used = 0;
};

/// The process's limits beside its cgroup's.
struct ResourceLimits {
  ResourceLimit address_space;  ///< RLIMIT_AS and VmSize
  ResourceLimit data;           ///< RLIMIT_DATA and VmData
};

/// This process's own, and what its threads will take of them when they start.
ResourceLimits resource_limits();

/// The least of MemAvailable, of every memory limit of the process's cgroup and its ancestors (v1:
/// memory.limit_in_bytes and the hierarchical limit of memory.stat; v2: memory.max and memory.high), each less what is
/// in use there and cannot be reclaimed, and of `limits`. Files are read below `root`, which tests set:
/// root/proc/meminfo, root/proc/self/cgroup, root/proc/self/mountinfo, root/sys/fs/cgroup. What cannot be read limits
/// nothing.
HostMemory host_memory(const ResourceLimits& limits, const std::string& root = "");

/// CPUs that the cgroup's quota allows (v2: cpu.max, v1: cpu.cfs_quota_us), rounded up; the lowest of the cgroup and
/// its ancestors. 0: no quota.
int cpu_quota(const std::string& root = "");

/// Physical cores among the CPUs `allowed` (numbers as in sched_getaffinity), by topology/thread_siblings_list below
/// root/sys/devices/system/cpu; a CPU without topology counts as a core.
int physical_cores(const std::vector<int>& allowed, const std::string& root = "");

/// Threads that this process should compute with: physical cores of its affinity mask, at most the cgroup's CPU quota;
/// at least 1.
int host_threads();

}  // namespace mgpu
