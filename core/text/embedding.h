#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace mgpu {

/// Rows of `table` [vocabulary, C] for ids [B, N] int64, on the table's device -> [B, N, C] fp32. Throws Error (exit 2)
/// that names `path`, the encoder's file, for an id past the table: the tokenizer is another model's.
at::Tensor embed_tokens(const at::Tensor& table, const at::Tensor& ids, const std::string& path);

}  // namespace mgpu
