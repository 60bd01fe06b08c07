#include "core/queue_mark.h"

#include <c10/cuda/CUDAStream.h>

#include "core/clock.h"
#include "core/fault_point.h"
#include "core/gpu_event.h"

namespace mgpu {

struct QueueMark::Event {
  explicit Event(unsigned flags) : event(flags) {}
  GpuEvent event;
};

QueueMark::QueueMark(at::Device device, For purpose) {
  device_call();
  if (!device.is_cuda()) return;
  const unsigned timing = purpose == For::Timing ? cudaEventDefault : cudaEventDisableTiming;
  event_ = std::make_shared<Event>(timing | cudaEventBlockingSync);
  event_->event.record(c10::cuda::getCurrentCUDAStream(device.index()));
}

bool QueueMark::is_reached() const {
  device_call();
  return !event_ || event_->event.query();
}

void QueueMark::wait() const {
  device_call();
  if (event_) event_->event.synchronize();
}

void QueueMark::precede_current_stream(at::Device device) const {
  if (event_) event_->event.block(c10::cuda::getCurrentCUDAStream(device.index()));
}

double QueueMark::seconds_between(const QueueMark& begin, const QueueMark& end) {
  return begin.event_->event.seconds_until(end.event_->event);
}

Stopwatch::Stopwatch(at::Device device)
    : device_(device), begin_(device, QueueMark::For::Timing), begun_(Clock::now()) {}

double Stopwatch::seconds() const {
  if (!begin_.is_set()) return seconds_since(begun_);
  const QueueMark end(device_, QueueMark::For::Timing);
  end.wait();
  return QueueMark::seconds_between(begin_, end);
}

}  // namespace mgpu
