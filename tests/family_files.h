#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/family.h"
#include "tests/tensor_writer.h"

// Small files of the families, all zeros, and what is said of them.

namespace mgpu::test {

using Entries = std::vector<Entry>;
using Shape = std::vector<std::int64_t>;

struct FluxOptions {
  std::string prefix = {};
  bool guidance = true;
  int in = 64, context = 48, vector = 64;
};

Entries flux(const FluxOptions& options = {});
Entries clip(const std::string& prefix = "", int hidden = 64, int positions = 77, int layers = 2);
/// OpenCLIP's layout, as narrow as it may be.
Entries open_clip(const std::string& prefix = "", int hidden = 64, int layers = 2);
Entries t5(const std::string& prefix = "", int hidden = 48, const std::string& embedding = "shared.weight");
Entries vae(const std::string& prefix = "", int latent = 16, bool encoder = true);

Entries operator+(Entries a, const Entries& b);

/// Less those whose names begin so.
Entries without(Entries entries, const std::string& begin);

/// Where file() writes.
const Folder& folder();

std::shared_ptr<const TensorFile> file(const Entries& entries, const std::string& name = "m.safetensors");

/// What `action` says, less the folder, with its hint after " | "; "" when it is content.
std::string fault(const std::function<void()>& action);

/// What find_part says.
std::string fault_of(const Entries& entries, const Role& role);

}  // namespace mgpu::test
