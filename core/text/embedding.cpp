#include "core/text/embedding.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace mgpu {

at::Tensor embed_tokens(const at::Tensor& table, const at::Tensor& ids, const std::string& path,
                        const at::Tensor& vectors) {
  // Checked here, since on a GPU an id past the table would take the device down.
  const auto largest = ids.max().item<std::int64_t>();
  if (largest >= table.size(0)) {
    fail_file(path, fmt::format("the encoder knows {} tokens, and its tokenizer gave token {}", table.size(0), largest),
              "give the tokenizer that belongs to this encoder (tokenizers: in the job)");
  }
  const at::Tensor places = ids.to(table.device());
  const at::Tensor rows = at::embedding(table, places.clamp_min(0)).to(at::kFloat);
  if (!vectors.defined()) return rows;
  const at::Tensor given = at::embedding(vectors.to(rows.options()), (-1 - places).clamp_min(0));
  return at::where(places.lt(0).unsqueeze(-1), given, rows);
}

}  // namespace mgpu
