#pragma once

#include <cstdint>
#include <string>

namespace mgpu {

/// What to do about a picture.
enum class Existing : std::uint8_t { Render, Keep };

/// Pictures that exist are kept; `overwrite` renders all, `resume` those whose mgpu_job chunk is not `record`, or whose
/// file is damaged.
Existing existing_picture(const std::string& path, const std::string& record, bool overwrite, bool resume);

}  // namespace mgpu
