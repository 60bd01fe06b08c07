#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace mgpu {

/// Holds a picture's mgpu_job record, which anybody may have written, to what picture_record() writes: no other key, no
/// other type, one image, and file names without folders, so that nothing of it can name a place to write to or to read
/// from. Values of the right type are the job reader's to check. Throws Error (exit 2) that names `file` and the key.
void check_record(const nlohmann::ordered_json& record, const std::string& file);

}  // namespace mgpu
