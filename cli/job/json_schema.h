#pragma once

#include <string>

namespace mgpu {

/// JSON Schema (draft 7) of a job file, and its reference page in Markdown: made from the statements that read it.
std::string job_schema();
std::string job_reference();

}  // namespace mgpu
