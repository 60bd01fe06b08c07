#include "cli/render/writer_threads.h"

#include "cli/files/png.h"
#include "cli/files/write_file.h"
#include "cli/job/picture_metadata.h"
#include "core/cancel.h"
#include "core/clock.h"
#include "core/fault_point.h"
#include "core/sha256.h"

namespace mgpu {
namespace {

constexpr std::size_t kPicturesAThread = 3;  // being decoded, waiting, being written

}  // namespace

WriterThreads::WriterThreads(const Job& job, PictureTracker& pictures, Progress& progress, std::size_t threads,
                             std::function<bool()> dropped)
    : job_(job),
      pictures_(pictures),
      progress_(progress),
      dropped_(std::move(dropped)),
      room_(threads * kPicturesAThread) {
  for (std::size_t i = 0; i < threads; ++i)
    threads_.push_back(std::make_unique<Worker>(DeviceId::cpu(), Worker::Runs::InThread));
}

WriterThreads::Room::Room(WriterThreads& writer) : writer_(writer) {
  std::unique_lock lock(writer_.mutex_);
  writer_.gives_room_.wait(lock, [this] { return writer_.room_ > 0; });
  --writer_.room_;
}

WriterThreads::Room::~Room() {
  {
    const std::lock_guard lock(writer_.mutex_);
    ++writer_.room_;
  }
  writer_.gives_room_.notify_one();
}

void WriterThreads::write(std::shared_ptr<Room> room, Entry& entry, Rgb8 pixels) {
  fault_point("to the writer");
  const std::lock_guard lock(mutex_);
  Worker& thread = *threads_[next_++ % threads_.size()];
  thread.post([this, &entry, room = std::move(room), pixels = std::move(pixels)] {
    if (dropped_()) return;
    try {
      write_now(entry, pixels);
    } catch (const Interrupted&) {  // it stays skipped
    } catch (...) {
      pictures_.fail({&entry}, failure_of(std::current_exception(), DeviceId::cpu()));
    }
  });
}

void WriterThreads::write_now(Entry& entry, const Rgb8& pixels) {
  const Picture& picture = entry.picture;
  progress_.phase(picture.path, "write");
  fault_point("compress");
  const Clock::time_point start = Clock::now();
  const std::string png =
      encode_png(pixels, {{"parameters", a1111_parameters(job_, picture)}, {"mgpu_job", entry.record}});
  fault_point("write");
  write_file(picture.path, png);
  entry.report.seconds.write = seconds_since(start);
  entry.report.sha256 = sha256_hex(png);
  pictures_.written(entry);
}

}  // namespace mgpu
