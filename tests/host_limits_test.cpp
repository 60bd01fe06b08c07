#include "core/host_limits.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "tests/byte_sizes.h"
#include "tests/tensor_writer.h"

using namespace mgpu;

namespace {

using test::kMiB;

/// A folder of files in place of /. The machine has 64 GiB, 60 of them available.
class FakeRoot {
 public:
  using Files = std::map<std::string, std::string>;
  explicit FakeRoot(const Files& files) {
    write("proc/meminfo", "MemTotal:       67108864 kB\nMemFree:  1 kB\nMemAvailable:   62914560 kB\n");
    for (const auto& [name, text] : files) write(name, text);
  }

  HostMemory memory(const ResourceLimits& limits = {}) const { return host_memory(limits, folder_.path("")); }
  int quota() const { return cpu_quota(folder_.path("")); }
  int cores(const std::vector<int>& allowed) const { return physical_cores(allowed, folder_.path("")); }

 private:
  void write(const std::string& name, const std::string& text) const {
    const std::filesystem::path path = folder_.path(name);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }

  test::Folder folder_;
};

const std::string v2_mount = "28 22 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string v1_mounts =
    "31 22 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";

void check(const HostMemory& memory, std::uint64_t total, std::uint64_t free, const std::string& source) {
  CHECK(memory.total_bytes == total);
  CHECK(memory.free_bytes == free);
  CHECK(memory.source == source);
}

}  // namespace

TEST_SUITE_BEGIN("host_limits");

TEST_CASE("without cgroups, and where nothing can be read of them, memory is the machine's") {
  check(FakeRoot({}).memory(), 65536 * kMiB, 61440 * kMiB, "");
  check(FakeRoot(FakeRoot::Files{{"proc/self/cgroup", "0::/a\n"}}).memory(), 65536 * kMiB, 61440 * kMiB, "");
  check(FakeRoot({{"proc/self/cgroup", "garbage\n0:\n"}, {"proc/self/mountinfo", "1 2\n - \n" + v2_mount}}).memory(),
        65536 * kMiB, 61440 * kMiB, "");
  CHECK(FakeRoot({}).quota() == 0);
}

TEST_CASE("v2: memory.max less what is in use and cannot be reclaimed; \"max\" limits nothing") {
  const FakeRoot root({{"proc/self/cgroup", "0::/job\n"},
                       {"proc/self/mountinfo", v2_mount},
                       {"sys/fs/cgroup/job/memory.max", "8589934592\n"},
                       {"sys/fs/cgroup/job/memory.high", "max\n"},
                       {"sys/fs/cgroup/job/memory.current", std::to_string(3000 * kMiB) + "\n"},
                       {"sys/fs/cgroup/job/memory.stat",
                        "anon 1\nfile 5\nactive_file 1073741824\ninactive_file 524288000\ninactive_file_x 7\n"
                        "slab_reclaimable 104857600\n"}});
  check(root.memory(), 8192 * kMiB, (8192 - (3000 - 1024 - 500 - 100)) * kMiB, "memory.max of cgroup /job");
}

TEST_CASE("v2: memory.high counts, and the lowest limit of all ancestors") {
  const FakeRoot root({{"proc/self/cgroup", "0::/slurm/job_7/step\n"},
                       {"proc/self/mountinfo", v2_mount},
                       {"sys/fs/cgroup/slurm/job_7/step/memory.max", "max\n"},
                       {"sys/fs/cgroup/slurm/job_7/step/memory.current", "1048576\n"},
                       {"sys/fs/cgroup/slurm/job_7/memory.max", "4294967296\n"},
                       {"sys/fs/cgroup/slurm/job_7/memory.high", "2147483648\n"},
                       {"sys/fs/cgroup/slurm/job_7/memory.current", "2097152\n"},
                       {"sys/fs/cgroup/slurm/memory.max", "34359738368\n"},
                       {"sys/fs/cgroup/slurm/memory.current", std::to_string(32668 * kMiB)}});
  check(root.memory(), 2048 * kMiB, 100 * kMiB, "memory.high of cgroup /slurm/job_7");
  CHECK(root.memory().free_source == "memory.max of cgroup /slurm");  // which others have nearly filled
}

TEST_CASE("more in use than the limit: nothing is free") {
  const FakeRoot root({{"proc/self/cgroup", "0::/\n"},
                       {"proc/self/mountinfo", v2_mount},
                       {"sys/fs/cgroup/memory.max", "1048576\n"},
                       {"sys/fs/cgroup/memory.current", "2097152\n"}});
  check(root.memory(), kMiB, 0, "memory.max of cgroup /");
}

TEST_CASE("v1: limit_in_bytes, its word for no limit, and the hierarchy's limit from outside of a container") {
  const FakeRoot root({{"proc/self/cgroup", "4:memory:/docker/abc/sub\n2:cpu,cpuacct:/docker/abc\n0::/\n"},
                       {"proc/self/mountinfo",
                        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
                        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"},
                       {"sys/fs/cgroup/memory/sub/memory.limit_in_bytes", "9223372036854771712\n"},
                       {"sys/fs/cgroup/memory/sub/memory.usage_in_bytes", std::to_string(700 * kMiB)},
                       {"sys/fs/cgroup/memory/sub/memory.stat",
                        "inactive_file 5\nhierarchical_memory_limit 1363148800\ntotal_inactive_file 104857600\n"}});
  check(root.memory(), 1300 * kMiB, 700 * kMiB, "hierarchical_memory_limit of cgroup /docker/abc/sub");
}

TEST_CASE("v1: a cgroup outside of what is mounted is the mounted one") {
  const FakeRoot root(
      {{"proc/self/cgroup", "4:memory:/kubepods/pod1\n"},
       {"proc/self/mountinfo", "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"},
       {"sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576000\n"},
       {"sys/fs/cgroup/memory/memory.usage_in_bytes", "0\n"}});
  check(root.memory(), 1000 * kMiB, 1000 * kMiB, "memory.limit_in_bytes of cgroup /docker/abc");
}

TEST_CASE("the process's own limits count, each less what it has of it") {
  const FakeRoot root({});
  check(root.memory({.address_space = {6000 * kMiB, 2000 * kMiB}, .data = {}}), 6000 * kMiB, 4000 * kMiB,
        "RLIMIT_AS (ulimit -v)");
  check(root.memory({.address_space = {}, .data = {500 * kMiB, 700 * kMiB}}), 500 * kMiB, 0, "RLIMIT_DATA (ulimit -d)");
  CHECK(root.memory({.address_space = {}, .data = {500 * kMiB, 0}}).free_source == "RLIMIT_DATA (ulimit -d)");
  CHECK(root.memory({.address_space = {64000 * kMiB, 0}, .data = {}}).free_source.empty());
  check(root.memory({.address_space = {std::uint64_t{1} << 40, 1}, .data = {}}), 65536 * kMiB, 61440 * kMiB, "");
}

TEST_CASE("CPU quotas of v1 and v2, rounded up, the lowest of all ancestors") {
  const auto v2 = [](const std::string& own, const std::string& above) {
    return FakeRoot({{"proc/self/cgroup", "0::/a/b\n"},
                     {"proc/self/mountinfo", v2_mount},
                     {"sys/fs/cgroup/a/b/cpu.max", own},
                     {"sys/fs/cgroup/a/cpu.max", above}})
        .quota();
  };
  CHECK(v2("max 100000\n", "max 100000\n") == 0);
  CHECK(v2("150000 100000\n", "max 100000\n") == 2);
  CHECK(v2("800000 100000\n", "300000 100000\n") == 3);
  CHECK(v2("1000 100000\n", "") == 1);
  const auto v1 = [](const std::string& quota) {
    return FakeRoot({{"proc/self/cgroup", "2:cpu,cpuacct:/pod\n0::/\n"},
                     {"proc/self/mountinfo", v1_mounts},
                     {"sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", quota},
                     {"sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us", "100000\n"}})
        .quota();
  };
  CHECK(v1("-1\n") == 0);
  CHECK(v1("400000\n") == 4);
}

TEST_CASE("two hardware threads of one core count once") {
  const std::string cpus = "sys/devices/system/cpu/cpu";
  const FakeRoot root({{cpus + "0/topology/thread_siblings_list", "0,4\n"},
                       {cpus + "4/topology/thread_siblings_list", "0,4\n"},
                       {cpus + "1/topology/thread_siblings_list", "1,5\n"}});
  CHECK(root.cores({0, 1, 4}) == 2);
  CHECK(root.cores({4}) == 1);
  CHECK(root.cores({0, 8, 9}) == 3);  // without topology
}

TEST_CASE("this process has threads and memory") {
  CHECK(host_threads() >= 1);
  const HostMemory memory = host_memory(resource_limits());
  CHECK(memory.free_bytes > 0);
  CHECK(memory.free_bytes <= memory.total_bytes);
}

TEST_SUITE_END();
