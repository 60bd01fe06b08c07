#pragma once

#include <functional>
#include <string>
#include <vector>

#include "vae/team.h"
#include "vae/vae_sizes.h"

namespace mgpu {

/// So little at once that small pictures have many units and strips.
inline const BandRules kSmallBands{
    .unit_values = 1 << 10, .strip_values = 1 << 12, .score_values = 1 << 11, .least_queries = 1};

/// So many devices, each a thread.
Team threads(std::vector<double> speeds);

/// fp32 values from a normal distribution, always the same.
at::Tensor noise(at::IntArrayRef shape);

/// A golden autoencoder's weights, "vae_flux" or "vae_sd", fp32 on the CPU, and its sizes.
Weights coder_weights(const std::string& name);
VaeSizes coder_sizes(const Weights& weights);

/// Fails `work` at every third of its exchanges, each time from its beginning: it must throw what the exchange threw.
/// Returns how many exchanges there are.
int exchanges_that_end(const std::function<void()>& work);

/// So many of its coders.
template <class Coder>
std::vector<Coder> coders(const std::string& name, std::size_t count) {
  const Weights weights = coder_weights(name);
  std::vector<Coder> out;
  for (std::size_t i = 0; i < count; ++i) out.emplace_back(coder_sizes(weights), weights);
  return out;
}

}  // namespace mgpu
