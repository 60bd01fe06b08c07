#pragma once

#include <string>
#include <vector>

#include "tests/tensor_writer.h"

namespace mgpu::test {

/// An fp32 tensor whose values follow from its name and shape, the same as tests/drawn_weights.py draws: models of many
/// shapes need no files in the repository.
Entry drawn(const std::string& name, const std::vector<std::int64_t>& shape);

/// The tensors of a model in a golden file of models' names and shapes, named under `prefix` but drawn by their bare
/// names.
std::vector<Entry> drawn_model(const std::string& file, const std::string& model, const std::string& prefix = {});

/// The same of a model in tests/goldens/unet_models.json.
std::vector<Entry> drawn_unet(const std::string& model, const std::string& prefix = {});

/// The tiny Flux of a golden file in fp32, made deeper: its one double and one single block so many times, each a
/// little weaker than the one before.
std::vector<Entry> deeper_flux(const std::string& file, int doubles, int singles);

/// Multiplies an fp32 tensor's values.
void scale(Entry& entry, float factor);

}  // namespace mgpu::test
