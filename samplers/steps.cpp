#include "samplers/steps.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace mgpu::steps {

Denoised evaluate(const SampleContext& context, std::size_t step, const at::Tensor& x, double sigma) {
  Denoised result = context.denoise(x, sigma);
  if (context.callback) context.callback(static_cast<int>(step), sigma, x, result.denoised);
  return result;
}

at::Tensor derivative(const at::Tensor& x, double sigma, const at::Tensor& denoised) {
  return (x - denoised) / sigma;
}

at::Tensor draw(const SampleContext& context, const at::Tensor& x, double sigma, double next) {
  MGPU_CHECK(context.noise, "this sampler draws noise, but none was given");
  return context.noise(sigma, next).to(x.options());
}

Ancestral ancestral_exploding(double sigma, double next, double eta) {
  if (eta == 0) return {.down = next, .up = 0, .scale = 1};
  // From an infinite sigma (a flow's pure noise) the square root is NaN, and min keeps `next`, which is the limit.
  double up = std::min(next, eta * std::sqrt(next * next * (sigma * sigma - next * next) / (sigma * sigma)));
  return {.down = std::sqrt(next * next - up * up), .up = up, .scale = 1};
}

Ancestral ancestral(NoisePath path, double sigma, double next) {
  if (path == NoisePath::VarianceExploding) return ancestral_exploding(sigma, next);
  double down = next * (next / sigma);
  double scale = (1 - next) / (1 - down);
  return {.down = down, .up = std::sqrt(std::max(0.0, next * next - down * down * scale * scale)), .scale = scale};
}

double alpha(NoisePath path, double sigma) {
  return path == NoisePath::Flow ? 1 - sigma : 1;
}

double half_log_snr(NoisePath path, double sigma) {
  return path == NoisePath::Flow ? -std::log(sigma / (1 - sigma)) : -std::log(sigma);
}

double sigma_of_half_log_snr(NoisePath path, double half_log_snr) {
  return path == NoisePath::Flow ? 1 / (1 + std::exp(half_log_snr)) : std::exp(-half_log_snr);
}

std::vector<double> finite_log_snr(std::span<const double> sigmas, const SigmaTable& table, at::ScalarType dtype) {
  std::vector<double> moved(sigmas.begin(), sigmas.end());
  if (table.path == NoisePath::Flow && moved.size() > 1 && moved[0] >= 1) {
    double first = table.percent_to_sigma(1e-4);
    moved[0] = dtype == at::kDouble ? first : static_cast<float>(first);
    while (moved.size() > 2 && moved[1] >= moved[0]) moved.erase(moved.begin() + 1);  // of thousands of steps
  }
  return moved;
}

double log_midpoint(double a, double b) {
  return std::sqrt(a * b);
}

}  // namespace mgpu::steps
