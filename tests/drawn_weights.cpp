#include "tests/drawn_weights.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/weights.h"
#include "tests/testing.h"

namespace mgpu::test {
namespace {

std::uint32_t name_hash(const std::string& name) {
  std::uint32_t value = 0x811C9DC5;
  for (const char c : name) value = (value ^ static_cast<unsigned char>(c)) * 0x01000193;
  return value;
}

double uniform(std::uint32_t counter) {
  std::uint32_t x = counter;
  x = (x ^ (x >> 16)) * 0x7FEB352D;
  x = (x ^ (x >> 15)) * 0x846CA68B;
  x ^= x >> 16;
  return (x >> 8) / 8388608.0 - 1.0;
}

}  // namespace

Entry drawn(const std::string& name, const std::vector<std::int64_t>& shape) {
  const auto product = [&](std::size_t from) {
    return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(from), shape.end(), std::int64_t{1},
                           std::multiplies<>());
  };
  const bool matrix = shape.size() > 1, scale = !matrix && name.ends_with("weight");
  const double spread = matrix ? std::sqrt(3.0 / static_cast<double>(product(1))) : scale ? 0.3 : 0.1;
  std::vector<float> values(static_cast<std::size_t>(product(0)));
  const std::uint32_t first = name_hash(name);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] =
        static_cast<float>(spread * uniform(first + static_cast<std::uint32_t>(i) * 0x9E3779B9) + (scale ? 1.0 : 0.0));
  return {name, DType::F32, shape, bytes_of(values)};
}

std::vector<Entry> drawn_model(const std::string& file, const std::string& model, const std::string& prefix) {
  std::ifstream in(golden(file));
  const auto tensors = nlohmann::json::parse(in).at(model);
  std::vector<Entry> out;
  for (const auto& [name, shape] : tensors.items()) {
    out.push_back(drawn(name, shape.get<std::vector<std::int64_t>>()));
    out.back().name = prefix + name;
  }
  return out;
}

std::vector<Entry> drawn_unet(const std::string& model, const std::string& prefix) {
  return drawn_model("unet_models.json", model, prefix);
}

void scale(Entry& entry, float factor) {
  std::vector<float> values(entry.data.size() / sizeof(float));
  std::memcpy(values.data(), entry.data.data(), entry.data.size());
  for (float& value : values) value *= factor;
  entry.data = bytes_of(values);
}

std::vector<Entry> deeper_flux(const std::string& file, int doubles, int singles) {
  const auto golden = TensorFile::open(file);
  std::vector<Entry> out;
  for (const auto& [name, info] : golden->tensors()) {
    const bool is_double = name.starts_with("double_blocks.0."), is_single = name.starts_with("single_blocks.0.");
    if (name.find("_blocks.") != std::string::npos && !is_double && !is_single) continue;
    const at::Tensor wide = mapped_tensor(golden, info).to(at::kFloat).contiguous();
    const std::string data(static_cast<const char*>(wide.const_data_ptr()), wide.nbytes());
    const int copies = is_double ? doubles : is_single ? singles : 1;
    for (int i = 0; i < copies; ++i) {
      Entry& entry = out.emplace_back(Entry{name, DType::F32, info.shape, data});
      if (i == 0) continue;
      entry.name.replace(name.find('.') + 1, 1, std::to_string(i));
      scale(entry, std::pow(0.9F, static_cast<float>(i)));
    }
  }
  return out;
}

}  // namespace mgpu::test
