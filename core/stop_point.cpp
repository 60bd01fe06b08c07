#include "core/stop_point.h"

#include <algorithm>
#include <deque>
#include <map>

#include "core/cancel.h"
#include "core/queue_mark.h"

namespace mgpu {
namespace {

constexpr double kAhead = 0.3;            // seconds that a thread may be ahead of a GPU
constexpr std::size_t kPiecesAhead = 3;   // or so many pieces, if they are long: the GPU must not wait for the thread
constexpr std::size_t kMostPieces = 256;  // however short they are

/// The pieces that a thread has given a GPU, as far as they are not done.
class Pieces {
 public:
  void one_more(at::Device device) {
    ends_.emplace_back(device, QueueMark::For::Timing);
    // The first mark is behind what is done, or at the very beginning.
    while (ends_.size() > 1 && ends_[0].is_reached() && ends_[1].is_reached()) drop_first();
    while (ends_.size() > 1 && is_far_ahead(ends_.size() - 1)) {
      ends_[1].wait();
      if (ends_[0].is_reached()) {
        drop_first();
      } else {  // on another stream
        ends_.pop_front();
      }
    }
  }

 private:
  void drop_first() {
    const double seconds = QueueMark::seconds_between(ends_[0], ends_[1]);
    piece_ = std::min(seconds, last_);  // one that was long alone waited for its thread
    last_ = seconds;
    ends_.pop_front();
  }

  bool is_far_ahead(std::size_t pieces) const {
    return pieces > kMostPieces || (pieces > kPiecesAhead && static_cast<double>(pieces) * piece_ > kAhead);
  }

  std::deque<QueueMark> ends_;
  double last_ = 0.0, piece_ = 0.0;  // seconds of one
};

}  // namespace

void stop_point(at::Device device) {
  stop_if_requested();
  if (!device.is_cuda()) return;
  thread_local std::map<c10::DeviceIndex, Pieces> pieces;
  pieces[device.index()].one_more(device);
}

}  // namespace mgpu
