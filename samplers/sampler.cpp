#include "samplers/sampler.h"

#include <fmt/format.h>

#include <algorithm>

#include "samplers/functions.h"

namespace mgpu {
namespace {

constexpr auto Independent = NoiseSource::Independent;

constexpr SamplerRow rows[] = {
    {"euler", sample::euler, "first-order ODE steps (Karras et al. 2022)"},
    {"euler_ancestral", sample::euler_ancestral, "euler with fresh noise at each step", Independent},
    {"dpmpp_2m", sample::dpmpp_2m, "DPM-Solver++(2M), second-order multistep (Lu et al. 2022)"},
};

}  // namespace

std::span<const SamplerRow> samplers() {
  return rows;
}

const SamplerRow* find_sampler(std::string_view name) {
  auto row = std::ranges::find(rows, name, &SamplerRow::name);
  return row == std::end(rows) ? nullptr : row;
}

std::string sampler_table() {
  std::string table = "| sampler | what it does |\n|---|---|\n";
  for (const SamplerRow& row : rows) table += fmt::format("| `{}` | {} |\n", row.name, row.summary);
  return table;
}

}  // namespace mgpu
