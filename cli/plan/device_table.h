#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "shard/plan.h"

namespace mgpu {

// The table of devices, as `plan` and the report print it.

/// Its head, without a newline. `peaks`: what the column of the first phase is called.
std::string device_table_head(std::string_view peaks);

/// The columns of memory in GiB.
std::string memory_columns(std::uint64_t limit, const PhaseBytes& peak);

/// A device's rows, the memory behind the first. So many blocks of a row as stand before a star are streamed.
std::string device_rows(std::string_view id, const std::vector<Assignment>& assignments, const std::string& memory);

}  // namespace mgpu
