#include "shard/worker.h"

#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>

#include <future>
#include <memory>
#include <optional>

#include "core/fault_point.h"
#include "core/host_memory.h"
#include "core/memory.h"

namespace mgpu {

Worker::Worker(const DeviceId& device, Runs runs) : device_(device) {
  if (runs == Runs::InCaller) return;
  const auto begun = std::make_shared<std::promise<void>>();
  thread_ = std::thread([this, begun, threads = at::get_num_threads()] { serve(threads, *begun); });
  try {
    begun->get_future().get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

Worker::~Worker() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wakes_.notify_one();
  thread_.join();
}

void Worker::post(std::function<void()> task) {
  fault_point("post");
  if (!thread_.joinable()) {
    const HostDeviceScope scope(device_);
    task();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  wakes_.notify_one();
}

void Worker::serve(int threads, std::promise<void>& begun) {
  std::optional<c10::DeviceGuard> guard;
  try {
    at::set_num_threads(threads);
    guard.emplace(torch_device(device_));
  } catch (...) {
    begun.set_exception(std::current_exception());
    return;
  }
  const HostDeviceScope scope(device_);
  begun.set_value();
  std::unique_lock lock(mutex_);
  while (true) {
    wakes_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it held goes without the lock: tensors, and passes that end with it
    lock.lock();
  }
}

}  // namespace mgpu
