#include "cli/job/models.h"

#include <algorithm>

#include "cli/job/find_inversions.h"

namespace mgpu {

std::vector<FileIdentity> JobModels::files_of(const ImageJob& image) const {
  std::vector<FileIdentity> out = files;
  const auto add = [&](const FileIdentity& file) {
    if (std::ranges::find(out, file) == out.end()) out.push_back(file);
  };
  for (const std::string& name : inversions_of(image)) add(inversions.at(name));
  for (const FileReference* file : picture_files(image)) add(pictures.at(file->path));
  return out;
}

ModelSet open_model_files(const ModelFiles& files) {
  ModelPaths paths{.checkpoint = files.checkpoint.path, .vae = files.vae.path};
  for (const auto& [key, file] : files.encoders) paths.encoders[key] = file.path;
  for (const auto& [key, file] : files.tokenizers) paths.tokenizers[key] = file.path;
  return open_models(paths);
}

std::vector<FileIdentity> model_identities(const ModelSet& set) {
  std::vector<const TensorFile*> seen;
  std::vector<FileIdentity> out;
  for (const Part* part : set.parts()) {
    if (std::ranges::find(seen, part->file.get()) != seen.end()) continue;
    seen.push_back(part->file.get());
    out.push_back(identity_of(*part->file));
  }
  for (const auto& [key, data] : set.tokenizers) out.push_back(identity_of(data));
  return out;
}

std::map<std::string, FileIdentity> picture_identities(const Job& job) {
  std::map<std::string, FileIdentity> out;
  for (const ImageJob& image : job.images)
    for (const FileReference* file : picture_files(image))
      if (!out.contains(file->path)) out.emplace(file->path, identity_of(file->path));
  return out;
}

}  // namespace mgpu
