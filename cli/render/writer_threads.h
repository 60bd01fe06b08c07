#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "cli/files/pixels.h"
#include "cli/job/job.h"
#include "cli/render/picture_tracker.h"
#include "core/progress.h"
#include "shard/worker.h"

namespace mgpu {

/// Compresses and writes a job's pictures in threads of its own, so that devices need not wait for that. Few pictures
/// are on their way at a time.
class WriterThreads {
 public:
  /// A picture waits no longer to be written once `dropped` says so.
  WriterThreads(const Job& job, PictureTracker& pictures, Progress& progress, std::size_t threads,
                std::function<bool()> dropped);

  /// Room for one picture; gives it back when it goes.
  class Room {
   public:
    explicit Room(WriterThreads& writer);
    ~Room();
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

   private:
    WriterThreads& writer_;
  };
  /// Waits until there is some: before a picture is decoded.
  std::shared_ptr<Room> reserve() { return std::make_shared<Room>(*this); }

  /// Writes a picture when its turn comes, and says what came of it.
  void write(std::shared_ptr<Room> room, Entry& entry, Rgb8 pixels);

 private:
  void write_now(Entry& entry, const Rgb8& pixels);

  const Job& job_;
  PictureTracker& pictures_;
  Progress& progress_;
  std::function<bool()> dropped_;
  std::mutex mutex_;
  std::condition_variable gives_room_;
  std::size_t room_;                              // for so many pictures more
  std::size_t next_ = 0;                          // thread
  std::vector<std::unique_ptr<Worker>> threads_;  // wait for their pictures when they go
};

}  // namespace mgpu
