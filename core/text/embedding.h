#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace mgpu {

/// Rows of `table` [vocabulary, C] for ids [B, N] int64, on the table's device -> [B, N, C] fp32. An id -1 - i takes
/// row i of `vectors` [n, C] instead. Throws Error (exit 2) that names `path`, the encoder's file, for an id past the
/// table: the tokenizer is another model's.
at::Tensor embed_tokens(const at::Tensor& table, const at::Tensor& ids, const std::string& path,
                        const at::Tensor& vectors = {});

}  // namespace mgpu
