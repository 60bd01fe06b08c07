#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/job/checks/picture_checks.h"
#include "cli/job/job.h"
#include "core/model_set.h"

namespace mgpu {

/// A job's models, recognised from headers, and what each of its files is: all that `validate` looks at. open_job()
/// (cli/job/checks/checks.h) makes it.
struct JobModels {
  ModelSet set;
  std::vector<FileIdentity> files;                 ///< weights and tokenizer data
  std::map<std::string, FileIdentity> inversions;  ///< textual inversions, by their names in prompts
  std::map<std::string, FileIdentity> pictures;    ///< init images and masks, by path
  std::map<std::string, PngShades> shades;         ///< of init images and masks, by path

  /// The files that an entry's pictures depend on.
  std::vector<FileIdentity> files_of(const ImageJob& image) const;
};

/// Opens the weight files that the job names and recognises their parts.
ModelSet open_model_files(const ModelFiles& files);

/// What the weight files and the tokenizers' data are, each file once.
std::vector<FileIdentity> model_identities(const ModelSet& set);

/// What the init images and masks are, by path.
std::map<std::string, FileIdentity> picture_identities(const Job& job);

}  // namespace mgpu
