#include "core/text/textual_inversion.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "core/error.h"
#include "core/strings.h"
#include "core/tensor_file.h"
#include "core/weights.h"

namespace fs = std::filesystem;

namespace mgpu {
namespace {

constexpr std::array<std::string_view, 4> kExtensions = {"", ".safetensors", ".pt", ".bin"};

/// A folder and the folders in it, however deep: names need not say in which they lie.
std::vector<fs::path> with_inner(const fs::path& folder) {
  std::vector<fs::path> all;
  std::error_code error;
  fs::recursive_directory_iterator entry(
      folder, fs::directory_options::follow_directory_symlink | fs::directory_options::skip_permission_denied, error);
  for (const fs::recursive_directory_iterator end; !error && entry != end; entry.increment(error)) {
    if (entry->is_directory(error)) all.push_back(entry->path());
  }
  std::ranges::sort(all);
  all.insert(all.begin(), folder);
  return all;
}

/// Names that a prompt could say: files' names without their extension.
std::vector<std::string> names_in(const std::vector<std::string>& folders) {
  std::vector<std::string> names;
  for (const std::string& folder : folders) {
    for (const fs::path& inner : with_inner(folder)) {
      std::error_code error;
      fs::directory_iterator entry(inner, error);
      for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
        if (entry->path().extension() == ".safetensors") names.push_back(entry->path().stem().string());
      }
    }
  }
  std::ranges::sort(names);
  return names;
}

/// The tensor of a file that is meant for the encoder.
const TensorInfo& tensor_for(const TensorFile& file, std::string_view encoder) {
  for (const std::string_view name : {encoder, std::string_view("emb_params")}) {
    if (const TensorInfo* found = file.find(name)) return *found;
  }
  const auto old = file.tensors().lower_bound("string_to_param.");
  if (old != file.tensors().end() && old->first.starts_with("string_to_param.")) return old->second;
  if (file.tensors().size() == 1) return file.tensors().begin()->second;
  std::string names;
  for (const auto& [name, info] : file.tensors()) names += (names.empty() ? "" : ", ") + in_quotes(name);
  fail_file(file.path(), fmt::format("no vectors for {} among the tensors {}", encoder, names),
            fmt::format("a textual inversion holds {}, emb_params or one tensor", encoder));
}

}  // namespace

std::string TextualInversions::find(std::string_view name) const {
  const fs::path relative(name);
  const bool leaves = relative.is_absolute() || std::ranges::find(relative, fs::path("..")) != relative.end();
  for (const std::string& folder : folders_) {
    if (leaves) break;
    for (const fs::path& inner : with_inner(folder)) {
      for (const std::string_view extension : kExtensions) {
        std::error_code error;
        const fs::path path = (inner / relative).concat(extension);
        if (fs::is_regular_file(path, error)) return path.string();
      }
    }
  }
  std::string hint = "put it into a folder \"embeddings\" beside the job file or in one of model_paths";
  if (!folders_.empty()) {
    const std::vector<std::string> names = names_in(folders_);
    const std::vector<std::string_view> views(names.begin(), names.end());
    const std::string near = nearest(name, views);
    hint = fmt::format("looked in {} and the folders in them", fmt::join(folders_, ", "));
    if (!near.empty()) hint += fmt::format("; the nearest name is {}", in_quotes(near));
  }
  throw Error(Exit::Usage, {}, fmt::format("there is no textual inversion {}", in_quotes(name)), hint);
}

at::Tensor TextualInversions::vectors(std::string_view name, std::string_view encoder, std::int64_t width) const {
  const std::shared_ptr<const TensorFile> file = TensorFile::open(find(name));
  const TensorInfo& info = tensor_for(*file, encoder);
  const std::vector<std::int64_t>& shape = info.shape;
  if (shape.empty() || shape.size() > 2 || shape.back() != width || info.count() == 0) {
    fail_file(file->path(),
              fmt::format("the textual inversion has shape {}, and {} takes vectors of {}", shape_text(shape), encoder,
                          width),
              "it was trained for another family of models");
  }
  at::Tensor out = mapped_tensor(file, info).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).view({-1, width});
  file->check();
  return out;
}

}  // namespace mgpu
