#include "cli/job/find_inversions.h"

#include <algorithm>

#include "cli/files/file_identity.h"
#include "core/text/prompt_text.h"
#include "core/text/text_encoder.h"
#include "core/text/textual_inversion.h"

namespace mgpu {
namespace {

/// The file of that name; what is said of a missing one points at the entry.
std::string find_at(const TextualInversions& inversions, const std::string& name, const Job& job,
                    const ImageJob& image) {
  try {
    return inversions.find(name);
  } catch (const Error& error) {
    throw job.error(image.mark, error.message(), error.hint());
  }
}

/// The names that an entry's prompts hold; what is wrong with a prompt is said at the entry.
std::vector<std::string> names_at(const Job& job, const ImageJob& image) {
  try {
    return inversions_of(image);
  } catch (const Error& error) {
    throw job.error(image.mark, error.message(), error.hint());
  }
}

void check_vectors(const TextualInversions& inversions, const std::string& name, const ModelSet& set) {
  for (const EncoderUse& use : set.text().encoders) {
    const TextEncoderModel& encoder = *use.encoder;
    inversions.vectors(name, encoder.names().embedding, encoder.width(set.encoder(encoder.key())));
  }
}

}  // namespace

std::vector<std::string> inversions_of(const ImageJob& image) {
  std::vector<std::string> names;
  for (const std::string_view prompt : prompts_of(image))
    for (std::string& name : embedding_names(prompt))
      if (std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
  return names;
}

std::map<std::string, FileIdentity> find_inversions(const Job& job, const ModelSet& set) {
  const TextualInversions inversions(job.embedding_folders);
  std::map<std::string, FileIdentity> found;
  for (const ImageJob& image : job.images) {
    for (const std::string& name : names_at(job, image)) {
      if (found.contains(name)) continue;
      const std::string path = find_at(inversions, name, job, image);
      check_vectors(inversions, name, set);
      found.emplace(name, identity_of(path));
    }
  }
  return found;
}

}  // namespace mgpu
