#include "shard/worker.h"

#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>

#include "core/host_memory.h"
#include "core/memory.h"

namespace mgpu {

Worker::Worker(const DeviceId& device, Runs runs) : device_(device) {
  if (runs == Runs::InThread) thread_ = std::thread([this, threads = at::get_num_threads()] { serve(threads); });
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

void Worker::serve(int threads) {
  at::set_num_threads(threads);
  const c10::DeviceGuard guard(torch_device(device_));
  const HostDeviceScope scope(device_);
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
