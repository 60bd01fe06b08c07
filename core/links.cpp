#include "core/links.h"

#include <ATen/ATen.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>

#include "core/copy_path.h"
#include "core/pinned.h"

namespace mgpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kCopyBytes = std::size_t{64} << 20;
constexpr int kRepeats = 3;  // after one to warm up
constexpr auto kSurveyTime = std::chrono::seconds(2);
constexpr auto kCopyTime = std::chrono::seconds(1);  // a hundred times what a slow bus takes

/// Thrown where a link cannot be measured.
struct Fault {
  std::string why;
};

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // it is said here, and later calls are not to find it
  throw Fault{cudaGetErrorString(error)};
}

/// Copies between GPUs and main memory, timed. A copy that never ends (some boards' peer access does that) must not
/// keep the program: nothing is measured after it, and nothing given back, since that would wait for it.
class LinkMeter {
 public:
  explicit LinkMeter(std::span<const DeviceId> gpus) {
    cudaGetDevice(&device_before_);
    for (const DeviceId& id : gpus) ports_.push_back(open(id));
    ports_.push_back(open_main_memory(gpus.front()));
    end_ = Clock::now() + kSurveyTime;
  }

  ~LinkMeter() {
    if (stuck_) {
      new std::vector<Port>(std::move(ports_));  // never freed
    } else {
      std::ranges::for_each(ports_, close);
    }
    cudaSetDevice(device_before_);
    cudaGetLastError();
  }

  LinkMeter(const LinkMeter&) = delete;
  LinkMeter& operator=(const LinkMeter&) = delete;

  Link measure(const DeviceId& from, const DeviceId& to) {
    Link link{from, to, false, 0.0, {}};
    try {
      link.peer_access = has_peer_access(from, to);
      const Port &source = port(from), &target = port(to);
      for (const Port* end : {&source, &target})
        if (!end->fault.empty()) throw Fault{end->fault};
      if (link.peer_access) enable_peer_access(from, to);
      link.bytes_per_second = static_cast<double>(kCopyBytes) / best_seconds(source, target);
      if (from.is_cuda() && to.is_cuda()) link.changes_bytes = changes_bytes(source, target);
    } catch (const Fault& fault) {
      link.fault = fault.why;
    }
    return link;
  }

 private:
  /// What copies need of a device. The stream and the events are a GPU's.
  struct Port {
    DeviceId id;
    void* memory = nullptr;
    cudaStream_t stream = nullptr;
    cudaEvent_t start = nullptr, stop = nullptr;
    std::string fault = {};
    at::Tensor host = {};  ///< owns the CPU's memory
  };

  /// Page-locked where the system allows it; else a note of the GPU says so.
  static Port open_main_memory(const DeviceId& gpu) {
    Port port{DeviceId::cpu()};
    try {
      port.host = staging_bytes(kCopyBytes, PinnedFrom::Driver, gpu);
      port.memory = port.host.mutable_data_ptr();
    } catch (const c10::Error& error) {
      const std::string text = error.what_without_backtrace();
      port.fault = text.substr(0, text.find('\n'));
    }
    return port;
  }

  static Port open(const DeviceId& id) {
    Port port{id};
    try {
      check(cudaSetDevice(id.index));
      check(cudaMalloc(&port.memory, kCopyBytes));
      check(cudaStreamCreateWithFlags(&port.stream, cudaStreamNonBlocking));
      for (cudaEvent_t* event : {&port.start, &port.stop}) check(cudaEventCreate(event));
    } catch (const Fault& fault) {
      port.fault = fault.why;
    }
    return port;
  }

  static void close(const Port& port) {
    if (!port.id.is_cuda()) return;
    cudaSetDevice(port.id.index);
    for (cudaEvent_t event : {port.start, port.stop})
      if (event) cudaEventDestroy(event);
    if (port.stream) cudaStreamDestroy(port.stream);
    if (port.memory) cudaFree(port.memory);
  }

  const Port& port(const DeviceId& id) const { return *std::ranges::find(ports_, id, &Port::id); }

  static bool has_peer_access(const DeviceId& from, const DeviceId& to) {
    int possible = 0;
    if (from.is_cuda() && to.is_cuda()) check(cudaDeviceCanAccessPeer(&possible, from.index, to.index));
    return possible != 0;
  }

  /// As LibTorch does for its own copies, which may have been before us.
  static void enable_peer_access(const DeviceId& from, const DeviceId& to) {
    check(cudaSetDevice(from.index));
    const cudaError_t answer = cudaDeviceEnablePeerAccess(to.index, 0);
    if (answer != cudaErrorPeerAccessAlreadyEnabled) return check(answer);
    cudaGetLastError();
  }

  static void copy(const Port& from, const Port& to, cudaStream_t stream, std::size_t bytes = kCopyBytes) {
    if (from.id.is_cuda() && to.id.is_cuda()) {
      check(cudaMemcpyPeerAsync(to.memory, to.id.index, from.memory, from.id.index, bytes, stream));
    } else {
      check(cudaMemcpyAsync(to.memory, from.memory, bytes, cudaMemcpyDefault, stream));
    }
  }

  /// Queues work on a GPU's stream, and waits for it.
  template <class Work>
  void run_on(const Port& gpu, Work work) {
    check(cudaSetDevice(gpu.id.index));
    work(gpu.stream);
    check(cudaEventRecord(gpu.stop, gpu.stream));
    wait_for(gpu.stop);
  }

  /// Whether a copy of some bytes between two GPUs arrives other than it was sent.
  bool changes_bytes(const Port& from, const Port& to) {
    const auto send = [&](const at::Tensor& bytes) {
      at::Tensor arrived = at::empty_like(bytes);
      const std::size_t size = bytes.nbytes();
      run_on(to, [&](cudaStream_t stream) { check(cudaMemsetAsync(to.memory, 0, size, stream)); });
      run_on(from, [&](cudaStream_t stream) {
        check(cudaMemcpyAsync(from.memory, bytes.const_data_ptr(), size, cudaMemcpyHostToDevice, stream));
        copy(from, to, stream, size);
      });
      run_on(to, [&](cudaStream_t stream) {
        check(cudaMemcpyAsync(arrived.mutable_data_ptr(), to.memory, size, cudaMemcpyDeviceToHost, stream));
      });
      return arrived;
    };
    return first_changed_byte(send).has_value();
  }

  double best_seconds(const Port& from, const Port& to) {
    const Port& runs = from.id.is_cuda() ? from : to;
    check(cudaSetDevice(runs.id.index));
    float best = std::numeric_limits<float>::infinity();
    for (int i = 0; i <= kRepeats; ++i) {
      if (stuck_) throw Fault{"a copy before it did not end"};
      if (Clock::now() > end_) throw Fault{"the links before it took too long"};
      check(cudaEventRecord(runs.start, runs.stream));
      copy(from, to, runs.stream);
      check(cudaEventRecord(runs.stop, runs.stream));
      wait_for(runs.stop);
      float milliseconds = 0.0F;
      check(cudaEventElapsedTime(&milliseconds, runs.start, runs.stop));
      if (i > 0) best = std::min(best, milliseconds);
    }
    return static_cast<double>(best) / 1000.0;
  }

  void wait_for(cudaEvent_t event) {
    const auto end = Clock::now() + kCopyTime;
    cudaError_t state = cudaErrorNotReady;
    while ((state = cudaEventQuery(event)) == cudaErrorNotReady) {
      stuck_ = Clock::now() > end;
      if (stuck_) throw Fault{"the copy does not end"};
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    check(state);
  }

  std::vector<Port> ports_;
  Clock::time_point end_;
  int device_before_ = 0;
  bool stuck_ = false;
};

/// Whether its copies were seen to pass through main memory.
bool staged(const Link& link) {
  return link.from.is_cuda() && link.to.is_cuda() && !link.peer_access && link.fault.empty();
}

/// "300.0", "12.5*" where staged, "300.0!" where bytes change, "?" where not measured, "-" where there is no link.
std::string cell(std::span<const Link> links, const DeviceId& from, const DeviceId& to) {
  const auto link = std::ranges::find_if(links, [&](const Link& l) { return l.from == from && l.to == to; });
  if (link == links.end()) return "-";
  if (!link->fault.empty()) return "?";
  const char* mark = link->changes_bytes ? "!" : staged(*link) ? "*" : "";
  return fmt::format("{:.1f}{}", link->bytes_per_second / 1e9, mark);
}

}  // namespace

std::vector<Link> survey_links(std::span<const DeviceId> gpus) {
  if (gpus.empty()) return {};
  LinkMeter meter(gpus);
  std::vector<Link> out;
  for (const DeviceId& id : gpus) {
    out.push_back(meter.measure(DeviceId::cpu(), id));
    out.push_back(meter.measure(id, DeviceId::cpu()));
  }
  for (const DeviceId& from : gpus)
    for (const DeviceId& to : gpus)
      if (from != to) out.push_back(meter.measure(from, to));
  return out;
}

std::string describe_links(std::span<const Link> links) {
  if (links.empty()) return {};
  std::vector<DeviceId> ids;
  for (const Link& link : links)
    if (std::ranges::find(ids, link.from) == ids.end()) ids.push_back(link.from);
  std::ranges::sort(ids);  // GPUs, then the CPU
  std::string text = fmt::format("{:<12}", "copies, GB/s");
  for (const DeviceId& to : ids) text += fmt::format(" {:>10}", "to " + to.to_string());
  text += "\n";
  for (const DeviceId& from : ids) {
    text += fmt::format("{:<12}", "from " + from.to_string());
    for (const DeviceId& to : ids) text += fmt::format(" {:>10}", cell(links, from, to));
    text += "\n";
  }
  if (std::ranges::any_of(links, staged)) text += "*: no peer access, so that copies pass through main memory\n";
  if (std::ranges::any_of(links, &Link::changes_bytes))
    text += "!: copies arrive with other bytes than were sent: jobs do not use these ways\n";
  for (const Link& link : links)
    if (!link.fault.empty())
      text += fmt::format("{} to {} was not measured: {}\n", link.from.to_string(), link.to.to_string(), link.fault);
  return text;
}

}  // namespace mgpu
