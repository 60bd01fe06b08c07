#pragma once

#include <atomic>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "cli/failure.h"
#include "cli/files/manifest.h"
#include "cli/job/picture_list.h"
#include "cli/render/preview_file.h"
#include "cli/render/report.h"
#include "core/progress.h"

namespace mgpu {

/// A picture on its way: what was asked for, and what has come of it.
struct Entry {
  Picture picture;
  std::string record;                         ///< its mgpu_job chunk
  ImageReport report;                         ///< "skipped" while nothing has come of it
  std::size_t place = 0;                      ///< among the job's pictures
  std::unique_ptr<PreviewFile> preview = {};  ///< until it is finished

  bool is_open() const { return report.status == "skipped"; }
};

/// The pictures of one run: one draw of one seed.
using Group = std::vector<Entry*>;

/// A job's pictures, in order, and what comes of them. Several threads may say so at once. The manifest is in the job's
/// order too: a line waits for the pictures before it, as long as these are on their way. Once the failure of a picture
/// says that the others will fail too, the job has ended: nothing more is rendered.
class PictureTracker {
 public:
  /// `job` is what the manifest calls it.
  PictureTracker(std::string job, std::string manifest, Progress& progress);

  void add(Picture picture, std::string record, bool keep);
  /// Of those that are kept.
  void tell_kept() const;

  /// Open pictures; neighbours that come from the same draw are sampled together.
  std::vector<Group> runs();
  /// Every picture.
  Group all();
  bool is_any_open() const;

  /// Its file is there. Throws nothing: a manifest that cannot be written is noted, and fails the job alone.
  void written(Entry& entry);
  /// Fails those that are open.
  void fail(const Group& group, const Failure& failure);
  /// They will be tried again, after the others.
  void set_aside(const Group& group);
  /// Once this is set, nothing more is to be rendered. Any thread may ask, often.
  bool has_ended() const { return has_ended_; }
  /// What of the manifest still waits is written: nothing comes of the others any more, but where the job has ended the
  /// open ones fail by what ended it. A picture that was written and is no longer there has failed.
  void close();
  /// Leaves the manifest with one line of each picture that is there, and none of those that are to be rendered. What
  /// fails is told, and fails the job alone.
  void mend_manifest();

  /// The worst that happened.
  Exit code() const;
  std::vector<ImageReport> reports() const;

 private:
  void fail_locked(const Group& group, const Failure& failure);
  void fail_missing();
  void settle(const Entry& entry, std::string line);
  void append(const std::string& line);
  void fail_manifest(const std::exception_ptr& thrown);

  std::string job_;
  Manifest manifest_;
  Progress& progress_;
  mutable std::mutex mutex_;
  std::deque<Entry> entries_;  // which stay where they are
  Exit code_ = Exit::Ok;
  std::map<std::size_t, std::string> waiting_;  // lines of settled pictures by their places, "" for none
  std::size_t next_ = 0;                        // the first picture that is not settled
  int in_a_row_ = 0;                            // pictures that could not be written
  std::optional<Failure> end_;                  // of the job
  std::atomic<bool> has_ended_ = false;
};

}  // namespace mgpu
