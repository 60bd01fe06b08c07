#include "core/host_limits.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <string_view>

#include "core/proc.h"

namespace mgpu {
namespace {

/// A file's text without surrounding white space; empty if it cannot be read.
std::string text_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(stream), {});
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::vector<std::string> split(std::string_view text, char at) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(at), text.size());
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (fault != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// A number alone in a file; none for "max", for -1 and for what v1 writes where there is no limit (2^63 less a page).
std::optional<std::uint64_t> limit_in(const std::string& path) {
  constexpr std::uint64_t kUnlimited = std::uint64_t{1} << 60;
  const auto value = number(text_of(path));
  return value && *value < kUnlimited ? value : std::nullopt;
}

/// The value after `key` in a file of lines "key value".
std::uint64_t stat_value(const std::string& text, std::string_view key) {
  for (const std::string& line : split(text, '\n'))
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ')
      return number(std::string_view(line).substr(key.size() + 1)).value_or(0);
  return 0;
}

// ---- The process's cgroup ----

/// The folders of the process's cgroup and of its ancestors, the process's own first.
struct Cgroup {
  bool v2 = false;
  std::vector<std::string> folders;
  std::vector<std::string> names;  ///< of the same cgroups, as /proc/self/cgroup has them
};

/// Where a hierarchy is mounted, and which of its cgroups is visible there.
struct Mount {
  std::string folder, cgroup;
};

/// The mount of a v1 controller, or of v2 if `controller` is empty. mountinfo(5): the fields after " - " are the file
/// system's type, its source and its options.
std::optional<Mount> mount_of(std::string_view controller, const std::string& root) {
  for (const std::string& line : split(text_of(root + "/proc/self/mountinfo"), '\n')) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const std::vector<std::string> mount = split(line.substr(0, dash), ' ');
    const std::vector<std::string> system = split(line.substr(dash + 3), ' ');
    if (mount.size() < 5 || system.size() < 3) continue;
    const std::vector<std::string> options = split(system[2], ',');
    const bool fits = controller.empty()
                          ? system[0] == "cgroup2"
                          : system[0] == "cgroup" && std::ranges::find(options, controller) != options.end();
    if (fits) return Mount{mount[4], mount[3]};
  }
  return std::nullopt;
}

/// The process's path in a hierarchy, by /proc/self/cgroup: lines "id:controllers:path", v2's has id 0 and no
/// controller.
std::optional<std::string> path_in(std::string_view controller, const std::string& root) {
  for (const std::string& line : split(text_of(root + "/proc/self/cgroup"), '\n')) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string list = line.substr(first + 1, second - first - 1);
    const std::vector<std::string> controllers = split(list, ',');
    if (list == controller || std::ranges::find(controllers, controller) != controllers.end())
      return line.substr(second + 1);
  }
  return std::nullopt;
}

/// From the cgroup up to the one that is mounted. A path outside of what is mounted (a container that shares the host's
/// cgroup namespace) means the mounted cgroup itself.
std::optional<Cgroup> cgroup_of(std::string_view controller, const std::string& root) {
  const auto mount = mount_of(controller, root);
  const auto path = path_in(controller, root);
  if (!mount || !path) return std::nullopt;
  const std::string_view above = mount->cgroup == "/" ? std::string_view{} : std::string_view(mount->cgroup);
  std::string below;
  if (path->starts_with(above) && path->find("/..") == std::string::npos) below = path->substr(above.size());
  if (!below.empty() && below.front() != '/') below.clear();
  while (!below.empty() && below.back() == '/') below.pop_back();
  Cgroup out{.v2 = controller.empty(), .folders = {}, .names = {}};
  while (true) {
    out.folders.push_back(root + mount->folder + below);
    const std::string name = std::string(above) + below;
    out.names.push_back(name.empty() ? "/" : name);
    if (below.empty()) return out;
    below.resize(below.rfind('/'));
  }
}

// ---- Memory ----

/// Lowers `memory` to a limit of which `used` bytes are taken.
void apply(HostMemory& memory, std::uint64_t limit, std::uint64_t used, const std::string& source) {
  const std::uint64_t left = limit > used ? limit - used : 0;
  if (limit < memory.total_bytes) {
    memory.total_bytes = limit;
    memory.source = source;
  }
  if (left < memory.free_bytes) {
    memory.free_bytes = left;
    memory.free_source = source;
  }
}

/// What is in use in a cgroup, without page cache and slabs that the kernel gives up under pressure.
std::uint64_t used_in(const std::string& folder, const std::string& stat, bool v2) {
  const std::uint64_t used = number(text_of(folder + (v2 ? "/memory.current" : "/memory.usage_in_bytes"))).value_or(0);
  std::uint64_t reclaimable = 0;
  for (const char* key : {"active_file", "inactive_file"}) {
    const std::string with_children = v2 ? key : std::string("total_") + key;  // v2's count children anyway
    reclaimable += stat_value(stat, with_children);
  }
  if (v2) reclaimable += stat_value(stat, "slab_reclaimable");
  return used > reclaimable ? used - reclaimable : 0;
}

void apply_cgroup(HostMemory& memory, const Cgroup& cgroup) {
  for (std::size_t i = 0; i < cgroup.folders.size(); ++i) {
    const std::string& folder = cgroup.folders[i];
    const std::string stat = text_of(folder + "/memory.stat");
    const std::uint64_t used = used_in(folder, stat, cgroup.v2);
    const auto within = [&](std::optional<std::uint64_t> limit, std::string_view file) {
      if (limit) apply(memory, *limit, used, fmt::format("{} of cgroup {}", file, cgroup.names[i]));
    };
    if (cgroup.v2) {
      within(limit_in(folder + "/memory.max"), "memory.max");
      within(limit_in(folder + "/memory.high"), "memory.high");
    } else {
      within(limit_in(folder + "/memory.limit_in_bytes"), "memory.limit_in_bytes");
      // Ancestors may lie outside of the container.
      const std::uint64_t all = stat_value(stat, "hierarchical_memory_limit");
      if (all > 0) within(all, "hierarchical_memory_limit");
    }
  }
}

ResourceLimit resource_limit(int resource, std::string_view used) {
  rlimit limit{};
  if (::getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  return {limit.rlim_cur, proc_bytes("/proc/self/status", used)};
}

// ---- Threads ----

/// Quota over period of one cgroup, rounded up; 0: none.
int quota_in(const std::string& folder, bool v2) {
  std::optional<std::uint64_t> quota, period;
  if (v2) {
    const std::vector<std::string> words = split(text_of(folder + "/cpu.max"), ' ');
    if (words.size() == 2) quota = number(words[0]), period = number(words[1]);
  } else {
    quota = number(text_of(folder + "/cpu.cfs_quota_us"));  // -1: none
    period = number(text_of(folder + "/cpu.cfs_period_us"));
  }
  if (!quota || !period || *quota == 0 || *period == 0) return 0;
  return static_cast<int>(std::min<std::uint64_t>((*quota + *period - 1) / *period, 1 << 20));
}

}  // namespace

ResourceLimits resource_limits() {
  // Threads take address space as they start: a stack, and what malloc sets aside for each.
  constexpr std::uint64_t kStack = std::uint64_t{8} << 20, kArena = std::uint64_t{64} << 20;
  const auto threads = static_cast<std::uint64_t>(host_threads()) + 2;
  ResourceLimits out{resource_limit(RLIMIT_AS, "VmSize:"), resource_limit(RLIMIT_DATA, "VmData:")};
  out.address_space.used += threads * (kStack + kArena);
  out.data.used += threads * kStack;
  return out;
}

HostMemory host_memory(const ResourceLimits& limits, const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  HostMemory memory{proc_bytes(meminfo.c_str(), "MemTotal:"), proc_bytes(meminfo.c_str(), "MemAvailable:"), {}, {}};
  for (const std::string_view controller : {std::string_view("memory"), std::string_view()})
    if (const auto cgroup = cgroup_of(controller, root)) apply_cgroup(memory, *cgroup);
  if (limits.address_space.limit > 0)
    apply(memory, limits.address_space.limit, limits.address_space.used, "RLIMIT_AS (ulimit -v)");
  if (limits.data.limit > 0) apply(memory, limits.data.limit, limits.data.used, "RLIMIT_DATA (ulimit -d)");
  return memory;
}

int cpu_quota(const std::string& root) {
  int least = 0;
  for (const std::string_view controller : {std::string_view("cpu"), std::string_view()}) {
    const auto cgroup = cgroup_of(controller, root);
    if (!cgroup) continue;
    for (const std::string& folder : cgroup->folders)
      if (const int quota = quota_in(folder, cgroup->v2); quota > 0)
        least = least == 0 ? quota : std::min(least, quota);
  }
  return least;
}

int physical_cores(const std::vector<int>& allowed, const std::string& root) {
  std::set<std::string> cores;
  for (const int cpu : allowed) {
    const std::string siblings =
        text_of(fmt::format("{}/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", root, cpu));
    cores.insert(siblings.empty() ? fmt::format("cpu {}", cpu) : siblings);
  }
  return static_cast<int>(cores.size());
}

int host_threads() {
  std::vector<int> allowed;
  for (std::size_t most = CPU_SETSIZE; allowed.empty() && most <= 1 << 16; most *= 2) {
    cpu_set_t* set = CPU_ALLOC(most);
    if (::sched_getaffinity(0, CPU_ALLOC_SIZE(most), set) == 0)
      for (std::size_t cpu = 0; cpu < most; ++cpu)
        if (CPU_ISSET_S(cpu, CPU_ALLOC_SIZE(most), set)) allowed.push_back(static_cast<int>(cpu));
    CPU_FREE(set);
  }
  const int cores = std::max(1, physical_cores(allowed)), quota = cpu_quota();
  return quota > 0 ? std::min(cores, quota) : cores;
}

}  // namespace mgpu
