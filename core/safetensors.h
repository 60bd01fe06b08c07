#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/tensor_reader.h"

namespace mgpu {

// The safetensors format: https://github.com/huggingface/safetensors#format The header's length in 8 bytes,
// little-endian, then the header, a JSON text, then the data.

/// Whether a file that begins so is a safetensors file.
bool is_safetensors(std::string_view head);

/// Reads and checks the file's header.
TensorFileHeader parse_safetensors(const HeaderSource& source);

/// A header's JSON text as parsed.
struct TensorHeader {
  TensorMap tensors;
  TensorMetadata metadata;
};

/// Parses and checks a header's JSON text against a data section of `data_bytes` bytes. Errors as TensorFile::open;
/// `path` only names the file in them. Takes any bytes: this is what the fuzzer calls.
TensorHeader parse_tensor_header(std::string_view json, std::uint64_t data_bytes, const std::string& path);

}  // namespace mgpu
