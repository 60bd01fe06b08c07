#include "cli/job/find_files.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <sstream>

#include "cli/files/expand_path.h"
#include "cli/job/yaml_reader.h"
#include "core/file_format.h"
#include "core/read_file.h"
#include "core/text/text_encoder.h"

// Where a job's files are looked for.

namespace mgpu {
namespace {

namespace fs = std::filesystem;

/// A folder to search; `kind` is ComfyUI's name for what lies in it ("vae"), or empty for anything.
struct Folder {
  fs::path path;
  std::string kind;
};

constexpr std::string_view checkpoint_kinds[] = {"checkpoints", "unet", "diffusion_models"};
constexpr std::string_view encoder_kinds[] = {"clip", "text_encoders"};
constexpr std::string_view vae_kinds[] = {"vae"};
constexpr std::string_view lora_kinds[] = {"loras"};
constexpr std::string_view embeddings_kind = "embeddings";
constexpr std::uint64_t kMostPathsBytes = 16 << 20;  // of an extra_model_paths.yaml

bool is_file(const fs::path& path) {
  std::error_code fault;
  return fs::is_regular_file(path, fault) || (fs::exists(path, fault) && !fs::is_directory(path, fault));
}

bool is_folder(const fs::path& path) {
  std::error_code fault;
  return fs::is_directory(path, fault);
}

/// Whether a picture's job is to be rendered again: it names no folders, so we also try the working directory.
bool is_picture(const Job& job) {
  return !job.expected_files.empty();
}

fs::path relative_to(const Job& job, const FileReference& reference, const fs::path& written) {
  return (written.is_absolute() || reference.from_option ? written : fs::path(job.directory) / written)
      .lexically_normal();
}

/// A path of the job, `~/` at its beginning being the home directory unless there is a file of that name. A picture's
/// paths are a stranger's and stay as they are.
fs::path path_of(const Job& job, const FileReference& reference) {
  const fs::path literal = relative_to(job, reference, reference.text);
  std::error_code fault;
  const std::string expanded = expand_home(reference.text);
  if (expanded == reference.text || (is_picture(job) && !reference.from_option) || fs::exists(literal, fault))
    return literal;
  return relative_to(job, reference, expanded);
}

/// The folders that a ComfyUI extra_model_paths.yaml names: one map a tool, base_path and, for each kind, lines of
/// paths.
void add_comfyui_paths(const fs::path& file, std::vector<Folder>& folders) {
  const Source source(file.string(), read_file(file.string(), kMostPathsBytes));
  const YamlNode root = parse_yaml(source);
  const std::size_t before = folders.size();
  for (const YamlNode::Entry& tool : root.entries) {
    const YamlNode::Entry* base = tool.value.find("base_path");
    const fs::path base_path = file.parent_path() / (base ? expand_path(base->value.text) : "");
    for (const YamlNode::Entry& entry : tool.value.entries) {
      if (entry.key == "base_path" || entry.key == "is_default") continue;
      std::istringstream lines(entry.value.text);
      for (std::string line; std::getline(lines, line);) {
        line.erase(line.find_last_not_of(" \t\r") + 1);
        if (!line.empty()) folders.push_back({(base_path / line).lexically_normal(), entry.key});
      }
    }
  }
  if (folders.size() == before)
    fail_file(file.string(), "names no folders",
              "under model_paths, a file is one of ComfyUI's extra_model_paths.yaml");
}

std::vector<Folder> search_folders(Job& job) {
  std::vector<Folder> folders;
  for (FileReference& reference : job.files.model_paths) {
    fs::path path = relative_to(job, reference, reference.text);
    if (!is_folder(path) && !is_file(path)) path = relative_to(job, reference, expand_path(reference.text));
    reference.path = path.string();
    if (is_folder(path)) {
      folders.push_back({path, ""});
    } else if (is_file(path)) {
      add_comfyui_paths(path, folders);
    } else {
      throw job.error(reference.mark, fmt::format("no folder or file \"{}\"", path.string()));
    }
  }
  return folders;
}

/// Finds one file, or throws an error that lists where it looked.
void find_file(const Job& job, FileReference& reference, const std::vector<Folder>& folders,
               std::span<const std::string_view> kinds) {
  if (!reference) return;
  const fs::path written(reference.text);
  std::vector<fs::path> candidates{path_of(job, reference)};
  if (is_picture(job)) candidates.push_back(written);
  if (written.is_relative()) {
    for (const Folder& folder : folders) {
      const bool fits = folder.kind.empty() || std::find(kinds.begin(), kinds.end(), folder.kind) != kinds.end();
      if (fits) candidates.push_back(folder.path / written);
      if (folder.kind.empty())
        for (const std::string_view kind : kinds) candidates.push_back(folder.path / kind / written);
    }
  }
  for (const fs::path& candidate : candidates) {
    if (!is_file(candidate)) continue;
    // A FIFO may keep a reader waiting for ever.
    if (const std::string kind = special_kind(candidate.string()); !kind.empty())
      throw job.error(reference.mark, fmt::format("\"{}\" is {}, not a regular file", candidate.string(), kind));
    reference.path = candidate.string();
    return;
  }
  if (is_folder(candidates.front())) {
    const ForeignFormat folder = foreign_folder(candidates.front().string());
    throw job.error(reference.mark, fmt::format("\"{}\" {}", candidates.front().string(), folder.what), folder.hint);
  }
  std::vector<std::string> looked;
  for (const fs::path& candidate : candidates) {
    fs::path folder = fs::absolute(candidate).parent_path().lexically_normal();
    if (std::find(looked.begin(), looked.end(), folder.string()) == looked.end()) looked.push_back(folder.string());
  }
  throw job.error(reference.mark, fmt::format("no file \"{}\"", reference.text),
                  fmt::format("looked in {}{}", fmt::join(looked, ", "),
                              is_picture(job) ? "; name the folder with --set model_paths=[FOLDER]" : ""));
}

/// The folders of textual inversions that are there, each once.
std::vector<std::string> embedding_folders(const Job& job, const std::vector<Folder>& folders) {
  std::vector<fs::path> candidates{fs::path(job.directory) / embeddings_kind};
  if (is_picture(job)) candidates.emplace_back(embeddings_kind);
  for (const Folder& folder : folders) {
    if (folder.kind.empty()) candidates.push_back(folder.path / embeddings_kind);
    if (folder.kind == embeddings_kind) candidates.push_back(folder.path);
  }
  std::vector<std::string> found;
  for (const fs::path& candidate : candidates) {
    const std::string path = candidate.lexically_normal().string();
    if (is_folder(candidate) && std::find(found.begin(), found.end(), path) == found.end()) found.push_back(path);
  }
  return found;
}

/// Tokenizer data that scripts/setup.sh installed: beside the program, or in the source tree that it was built in.
/// Empty where there is none.
std::string installed_tokenizer(std::string_view name) {
  const fs::path program = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& folder : {program / "tokenizers", program / "../.deps/tokenizers"})
    if (is_file(folder / name)) return (folder / name).lexically_normal().string();
  return {};
}

}  // namespace

void resolve_files(Job& job) {
  const std::vector<Folder> folders = search_folders(job);
  ModelFiles& files = job.files;
  find_file(job, files.checkpoint, folders, checkpoint_kinds);
  for (auto& [key, encoder] : files.encoders) find_file(job, encoder, folders, encoder_kinds);
  find_file(job, files.vae, folders, vae_kinds);
  for (const TokenizerData* data : tokenizer_data()) {
    FileReference& file = files.tokenizers[std::string(data->key)];
    find_file(job, file, folders, {});
    if (!file) file.path = installed_tokenizer(data->file);
  }
  for (LoraOptions& lora : job.loras) find_file(job, lora.file, folders, lora_kinds);
  job.embedding_folders = embedding_folders(job, folders);
  for (ImageJob& image : job.images) {
    for (FileReference* picture : {&image.init_image, &image.mask}) find_file(job, *picture, folders, {});
    for (ConditionOptions& condition : image.conditions.value) find_file(job, condition.mask, folders, {});
  }
  job.output.directory.path = path_of(job, job.output.directory).string();
}

}  // namespace mgpu
