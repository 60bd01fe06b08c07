#include "cli/job/checks/output_checks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <set>

#include "cli/files/manifest.h"
#include "cli/files/png.h"
#include "cli/files/write_file.h"
#include "cli/job/yaml_reader.h"
#include "core/read_file.h"
#include "core/strings.h"

namespace mgpu {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kSuffixRoom = 32;  // of a temporary file's name
constexpr std::size_t kUsualNameMax = 255;

/// U+0000 to U+001F, U+007F to U+009F.
bool has_control(std::string_view name) {
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto c = static_cast<unsigned char>(name[i]);
    const auto next = i + 1 < name.size() ? static_cast<unsigned char>(name[i + 1]) : 0U;
    if (c < 0x20 || c == 0x7F || (c == 0xC2 && next >= 0x80 && next < 0xA0)) return true;
  }
  return false;
}

bool leads_out(const fs::path& name) {
  return name.is_absolute() || std::ranges::find(name, fs::path("..")) != name.end();
}

/// The longest file name that the folder, or the nearest one above that exists, takes.
std::size_t longest_name(fs::path folder) {
  std::error_code fault;
  folder = fs::absolute(folder, fault).lexically_normal();
  while (!fs::exists(folder, fault) && folder.has_relative_path()) folder = folder.parent_path();
  const long most = ::pathconf(folder.c_str(), _PC_NAME_MAX);
  if (most <= 0) return kUsualNameMax;
  const auto bytes = static_cast<std::size_t>(most);
  return bytes >= kUsualNameMax ? bytes : bytes - std::min(bytes - 1, kSuffixRoom);
}

/// Where a message about a file points, and its hint.
struct Place {
  const Job* job = nullptr;  ///< null: the command line
  Mark mark;
  std::string key;  ///< "output.name"
  std::string hint;

  Error error(const std::string& message) const {
    return job ? job->error(mark, message, hint) : Error(Exit::Usage, mark, message, hint);
  }
};

/// The files of a run, each where it really lies.
class Files {
 public:
  /// A file that is read.
  void add_input(const std::string& path, const std::string& what) {
    if (path.empty() || !inputs_.insert(path).second) return;
    std::error_code fault;
    taken_.try_emplace(place_of(path), what);
    taken_.try_emplace(fs::weakly_canonical(path, fault).string(), what);
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) known_.try_emplace({info.st_dev, info.st_ino}, what);
  }
  /// A file that is written in its place, beside which no other may be: `what` may be shared by several jobs.
  void add_in_place(const std::string& path, const std::string& what, const Place& place) {
    add_output(path, what, place);
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return;
    const auto [known, is_new] = known_.try_emplace({info.st_dev, info.st_ino}, what);
    if (!is_new && known->second != what) throw place.error(fmt::format("\"{}\" is {} too", path, known->second));
  }
  /// A file that is written by way of a temporary one.
  void add_output(const std::string& path, const std::string& what, const Place& place) {
    check_name(path, place);
    const std::string lies = place_of(path);
    const auto [known, is_new] = taken_.try_emplace(lies, what);
    if (!is_new && (known->second != what || what.starts_with("picture")))
      throw place.error(fmt::format("\"{}\" would be {} and {}", path, known->second, what));
    outputs_.try_emplace(lies, place);
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return;
    if (const std::string kind = special_kind(info); !kind.empty())
      throw place.error(fmt::format("\"{}\" is {}, not a regular file", path, kind));
  }
  /// A file may not be the folder of another.
  void check_folders() {
    std::set<std::string> seen;
    for (const auto& known : folders_) {
      for (fs::path folder = known.second; seen.insert(folder.string()).second; folder = folder.parent_path()) {
        const auto file = outputs_.find(folder.string());
        if (file != outputs_.end())
          throw file->second.error(fmt::format("\"{}\" would be a file, and a folder of other files", folder.string()));
      }
    }
  }

 private:
  void check_name(const std::string& path, const Place& place) {
    const std::string name = fs::path(path).filename().string();
    const fs::path folder = fs::path(path).parent_path();
    place_of(path);
    const std::size_t most = longest_.at(folder.string());
    if (name.size() > most)
      throw place.error(
          fmt::format("{} gives a file name of {} bytes, and the file system takes {}", place.key, name.size(), most));
    if (path.size() + kSuffixRoom >= PATH_MAX)
      throw place.error(
          fmt::format("{} gives a path of {} bytes, and the system takes {}", place.key, path.size(), PATH_MAX - 1));
    if (const std::string& file = files_on_way_.at(folder.string()); !file.empty())
      throw place.error(fmt::format("\"{}\" is a file, and \"{}\" should lie in it", file, path));
  }

  /// The path with its folder's links followed; each folder is looked at once.
  std::string place_of(const std::string& path) {
    const fs::path folder = fs::path(path).parent_path();
    const std::string name = fs::path(path).filename().string();
    const auto [known, is_new] = folders_.try_emplace(folder.string());
    if (is_new) {
      std::error_code fault;
      const fs::path whole = fs::absolute(folder.empty() ? fs::path(".") : folder, fault).lexically_normal();
      const fs::path real = fs::weakly_canonical(whole, fault);
      known->second = (fault ? whole : real).string();
      longest_[folder.string()] = longest_name(whole);
      std::string& on_way = files_on_way_[folder.string()];
      fs::path part;
      for (const fs::path& step : whole) {
        part /= step;
        struct stat info {};
        if (::stat(part.c_str(), &info) == 0 && !S_ISDIR(info.st_mode)) on_way = part.string();
      }
    }
    return (fs::path(known->second) / name).string();
  }

  std::set<std::string> inputs_;
  std::map<std::string, std::string> taken_;                   // what there is, by where it lies
  std::map<std::pair<dev_t, ino_t>, std::string> known_;       // the same of files that exist
  std::map<std::string, Place> outputs_;                       // by where they lie
  std::map<std::string, std::string> folders_, files_on_way_;  // of paths: where they lie; a file among their parts
  std::map<std::string, std::size_t> longest_;                 // names, by folder
};

void add_inputs(const Job& job, Files& files) {
  if (job.file != "-") files.add_input(job.file, "a job file");
  const ModelFiles& models = job.files;
  for (const FileReference* file : {&models.checkpoint, &models.vae}) files.add_input(file->path, "a model file");
  for (const auto* named : {&models.encoders, &models.tokenizers})
    for (const auto& [key, file] : *named) files.add_input(file.path, "a model file");
  for (const FileReference& file : models.model_paths) files.add_input(file.path, "one of model_paths");
  for (const LoraOptions& lora : job.loras) files.add_input(lora.file.path, "a LoRA");
  for (const ImageJob& image : job.images)
    for (const FileReference* file : picture_files(image)) files.add_input(file->path, "a picture that a job reads");
}

Place place_of_report(const Job& job) {
  return {&job, job.output.report.mark, "\"output.report\"",
          "give a file name for the report alone, as report.json; \"\" writes none"};
}

void check_report_name(const Job& job) {
  const std::string& name = *job.output.report;
  if (name.empty()) return;
  const Place place = place_of_report(job);
  if (has_control(name)) throw place.error("\"output.report\" has a control character: " + in_quotes(name));
  if (leads_out(name)) throw place.error("\"output.report\" leads out of the directory");
  const std::string last = fs::path(name).filename().string();
  if (last.empty() || last == ".") throw place.error("\"output.report\" names a directory");
}

void check_directory_name(const Job& job) {
  if (has_control(job.output.directory.text))
    throw job.error(job.output.directory.mark,
                    "\"output.directory\" has a control character: " + in_quotes(job.output.directory.text),
                    "name another");
}

Place place_of_pictures(const Job& job) {
  return {&job, job.output.name.given ? job.output.name.mark : job.output.directory.mark, "\"output.name\"",
          "give another output.name or output.directory"};
}

void add_picture(const Picture& picture, const Job& job, bool previews, Files& files) {
  const Place place = place_of_pictures(job);
  if (has_control(picture.file))
    throw place.error("\"output.name\" gives a name with a control character: " + in_quotes(picture.file));
  if (find_invalid_utf8(picture.file) != std::string_view::npos)
    throw place.error("\"output.name\" gives a name that is not UTF-8: " + in_quotes(picture.file));
  files.add_output(picture.path, fmt::format("picture {} of {}", picture.index, job.file), place);
  if (previews)
    files.add_output(preview_path(picture.path),
                     fmt::format("the preview of picture {} of {}", picture.index, job.file), place);
}

Error directory_error(const Job& job, const std::string& why) {
  const FileReference& directory = job.output.directory;
  return job.error(directory.mark, fmt::format("cannot write to the output directory \"{}\": {}", directory.path, why),
                   "name another with output.directory");
}

}  // namespace

void check_output_directory(const Job& job) {
  const std::string& directory = job.output.directory.path;
  std::error_code fault;
  fs::create_directories(directory, fault);
  if (fault) throw directory_error(job, fault.message());
  if (!fs::is_directory(directory, fault)) throw directory_error(job, "it is not a directory");
  if (const int writing = try_to_write(directory); writing != 0) throw directory_error(job, std::strerror(writing));
}

void check_output_directory_unchanged(const Job& job) {
  fs::path folder = fs::absolute(job.output.directory.path).lexically_normal();
  struct stat info {};
  while (::stat(folder.c_str(), &info) != 0) {
    if (errno != ENOENT) throw directory_error(job, std::strerror(errno));
    const fs::path above = folder.parent_path();
    if (above == folder) return;
    folder = above;
  }
  if (!S_ISDIR(info.st_mode)) throw directory_error(job, std::strerror(ENOTDIR));
  if (::access(folder.c_str(), W_OK | X_OK) != 0) throw directory_error(job, std::strerror(errno));
}

void check_outputs(const Outputs& outputs) {
  Files files;
  for (const Job& job : outputs.jobs) {
    check_directory_name(job);
    check_report_name(job);
    add_inputs(job, files);
  }
  for (std::size_t i = 0; i < outputs.jobs.size(); ++i) {
    const Job& job = outputs.jobs[i];
    const std::string manifest = (fs::path(job.output.directory.path) / kManifestName).string();
    files.add_in_place(manifest, "the manifest", place_of_pictures(job));
    if (const std::string& report = outputs.reports[i]; !report.empty())
      files.add_output(report, "the report of " + job.file, place_of_report(job));
  }
  for (const Picture& picture : outputs.pictures)
    add_picture(picture, outputs.jobs[static_cast<std::size_t>(picture.job)], outputs.previews, files);
  if (!outputs.log.empty())
    files.add_in_place(outputs.log, "the log",
                       {nullptr, Mark{"--log " + outputs.log}, "--log", "name another file with --log"});
  files.check_folders();
}

std::string no_png_note(const std::string& path) {
  return fmt::format("{}: is kept, though it is no PNG: --resume or --overwrite renders that picture", path);
}

std::vector<std::string> no_png_notes(std::span<const Picture> pictures) {
  std::vector<std::string> out;
  for (const Picture& picture : pictures)
    if (std::error_code fault; fs::exists(picture.path, fault) && !begins_as_png(picture.path))
      out.push_back(no_png_note(picture.path));
  return out;
}

}  // namespace mgpu
