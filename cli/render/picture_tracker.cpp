#include "cli/render/picture_tracker.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "core/fault_point.h"
#include "core/read_file.h"
#include "core/sha256.h"

namespace mgpu {
namespace {

constexpr int kMostUnwritten = 3;  // pictures in a row that a disk did not take

/// The line of a picture that is there, whoever rendered it.
std::string line_of_present(const Entry& entry, const std::string& job) {
  ImageReport report = entry.report;
  report.status = "ok";
  report.sha256 = sha256_hex(read_file(entry.picture.path));
  return manifest_line(report, job, entry.picture.index);
}

}  // namespace

PictureTracker::PictureTracker(std::string job, std::string manifest, Progress& progress)
    : job_(std::move(job)), manifest_(std::move(manifest)), progress_(progress) {}

void PictureTracker::add(Picture picture, std::string record, bool keep) {
  ImageReport report{picture.file, keep ? "kept" : "skipped", picture.seed, {}, {}, {}};
  entries_.push_back({std::move(picture), std::move(record), std::move(report), entries_.size()});
  if (keep) settle(entries_.back(), {});
}

void PictureTracker::tell_kept() const {
  for (const Entry& entry : entries_)
    if (!entry.is_open()) progress_.finished(entry.picture.path, "kept", 0.0, {});
}

std::vector<Group> PictureTracker::runs() {
  std::vector<Group> out;
  for (Entry& entry : entries_) {
    if (!entry.is_open()) continue;
    const Picture* last = out.empty() ? nullptr : &out.back().front()->picture;
    if (!last || last->item != entry.picture.item || last->seed != entry.picture.seed) out.emplace_back();
    out.back().push_back(&entry);
  }
  return out;
}

Group PictureTracker::all() {
  Group out;
  for (Entry& entry : entries_) out.push_back(&entry);
  return out;
}

bool PictureTracker::is_any_open() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(entries_, &Entry::is_open);
}

void PictureTracker::written(Entry& entry) {
  const std::lock_guard lock(mutex_);
  in_a_row_ = 0;
  entry.report.status = "ok";
  entry.preview.reset();
  const ImageReport::Seconds& s = entry.report.seconds;
  progress_.finished(entry.picture.path, "ok", s.encode + s.sample + s.decode + s.write, {});
  settle(entry, manifest_line(entry.report, job_, entry.picture.index));
}

void PictureTracker::fail(const Group& group, const Failure& failure) {
  const std::lock_guard lock(mutex_);
  fail_locked(group, failure);
  if (end_ || failure.repeats == Failure::Repeats::No) return;
  if (failure.repeats == Failure::Repeats::Perhaps && ++in_a_row_ < kMostUnwritten) return;
  end_ = failure;
  end_->why = "not rendered, since it would fail as the pictures before it: " + failure.why;
  has_ended_ = true;
}

void PictureTracker::fail_locked(const Group& group, const Failure& failure) {
  // What would have been a mistake of the user before the start (a mask that cannot be read) is now a failed image.
  code_ = std::max(code_, failure.code == Exit::Usage ? Exit::ImageFailed : failure.code);
  for (Entry* entry : group) {
    if (!entry->is_open()) continue;
    entry->report.status = "failed";
    entry->preview.reset();
    entry->report.error = failure.why;
    progress_.finished(entry->picture.path, "failed", 0.0, failure.why);
    settle(*entry, {});
  }
}

void PictureTracker::set_aside(const Group& group) {
  const std::lock_guard lock(mutex_);
  for (const Entry* entry : group)
    if (entry->is_open()) settle(*entry, {});
}

void PictureTracker::close() {
  const std::lock_guard lock(mutex_);
  if (end_) {
    Group open;
    for (Entry& entry : entries_)
      if (entry.is_open()) open.push_back(&entry);
    fail_locked(open, *end_);
  }
  for (const auto& [place, line] : waiting_) append(line);
  waiting_.clear();
  fail_missing();
}

void PictureTracker::fail_missing() {
  for (Entry& entry : entries_) {
    std::error_code fault;
    if (entry.report.status != "ok" || std::filesystem::exists(entry.picture.path, fault)) continue;
    code_ = std::max(code_, Exit::ImageFailed);
    entry.report.status = "failed";
    entry.report.error = fmt::format("{}: was written, and is no longer there", entry.picture.path);
    progress_.failure(entry.report.error);
  }
}

void PictureTracker::mend_manifest() {
  const std::lock_guard lock(mutex_);
  std::vector<Manifest::Present> present;
  std::set<std::string> absent;
  for (const Entry& entry : entries_) {
    if (entry.report.status == "ok" || entry.report.status == "kept")
      present.push_back({entry.picture.file, [this, &entry] { return line_of_present(entry, job_); }});
    if (entry.is_open()) absent.insert(entry.picture.file);
  }
  try {
    manifest_.mend(present, absent);
  } catch (...) {
    fail_manifest(std::current_exception());
  }
}

Exit PictureTracker::code() const {
  const std::lock_guard lock(mutex_);
  return code_;
}

std::vector<ImageReport> PictureTracker::reports() const {
  const std::lock_guard lock(mutex_);
  std::vector<ImageReport> out;
  for (const Entry& entry : entries_) out.push_back(entry.report);
  return out;
}

void PictureTracker::settle(const Entry& entry, std::string line) {
  if (entry.place < next_) {  // it had been set aside
    append(line);
    return;
  }
  waiting_[entry.place] = std::move(line);
  while (!waiting_.empty() && waiting_.begin()->first == next_) {
    append(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    ++next_;
  }
}

void PictureTracker::append(const std::string& line) {
  if (line.empty()) return;
  try {
    fault_point("manifest");
    manifest_.append(line);
  } catch (...) {
    fail_manifest(std::current_exception());
  }
}

void PictureTracker::fail_manifest(const std::exception_ptr& thrown) {
  const Failure failure = failure_of(thrown, DeviceId::cpu());
  code_ = std::max(code_, failure.code);
  progress_.failure(failure.why);
}

}  // namespace mgpu
