#include "cli/job_pictures.h"

#include <algorithm>

#include "cli/output.h"
#include "core/fault_point.h"

namespace mgpu {

JobPictures::JobPictures(std::string job, std::string manifest, Progress& progress)
    : job_(std::move(job)), manifest_(std::move(manifest)), progress_(progress) {}

void JobPictures::add(Picture picture, std::string record, bool keep) {
  ImageReport report{picture.file, keep ? "kept" : "skipped", picture.seed, {}, {}, {}};
  entries_.push_back({std::move(picture), std::move(record), std::move(report), entries_.size()});
  if (keep) settle(entries_.back(), {});
}

void JobPictures::tell_kept() const {
  for (const Entry& entry : entries_)
    if (!entry.is_open()) progress_.finished(entry.picture.path, "kept", 0.0, {});
}

std::vector<Group> JobPictures::runs() {
  std::vector<Group> out;
  for (Entry& entry : entries_) {
    if (!entry.is_open()) continue;
    const Picture* last = out.empty() ? nullptr : &out.back().front()->picture;
    if (!last || last->item != entry.picture.item || last->seed != entry.picture.seed) out.emplace_back();
    out.back().push_back(&entry);
  }
  return out;
}

Group JobPictures::all() {
  Group out;
  for (Entry& entry : entries_) out.push_back(&entry);
  return out;
}

bool JobPictures::is_any_open() const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(entries_, &Entry::is_open);
}

void JobPictures::written(Entry& entry) {
  const std::lock_guard lock(mutex_);
  entry.report.status = "ok";
  entry.preview.reset();
  const ImageReport::Seconds& s = entry.report.seconds;
  progress_.finished(entry.picture.path, "ok", s.encode + s.sample + s.decode + s.write, {});
  settle(entry, manifest_line(entry.report, job_, entry.picture.index));
}

void JobPictures::fail(const Group& group, const Failure& failure) {
  const std::lock_guard lock(mutex_);
  code_ = std::max(code_, failure.code);
  for (Entry* entry : group) {
    if (!entry->is_open()) continue;
    entry->report.status = "failed";
    entry->preview.reset();
    entry->report.error = failure.why;
    progress_.finished(entry->picture.path, "failed", 0.0, failure.why);
    settle(*entry, {});
  }
}

void JobPictures::set_aside(const Group& group) {
  const std::lock_guard lock(mutex_);
  for (const Entry* entry : group)
    if (entry->is_open()) settle(*entry, {});
}

void JobPictures::close() {
  const std::lock_guard lock(mutex_);
  for (const auto& [place, line] : waiting_) append(line);
  waiting_.clear();
}

Exit JobPictures::code() const {
  const std::lock_guard lock(mutex_);
  return code_;
}

std::vector<ImageReport> JobPictures::reports() const {
  const std::lock_guard lock(mutex_);
  std::vector<ImageReport> out;
  for (const Entry& entry : entries_) out.push_back(entry.report);
  return out;
}

void JobPictures::settle(const Entry& entry, std::string line) {
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

void JobPictures::append(const std::string& line) {
  if (line.empty()) return;
  try {
    fault_point("manifest");
    append_file(manifest_, line);
  } catch (...) {
    const Failure failure = failure_of(std::current_exception(), DeviceId::cpu());
    code_ = std::max(code_, failure.code);
    progress_.note(failure.why);
  }
}

}  // namespace mgpu
