#include "samplers/schedule.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "samplers/beta_quantile.h"

namespace mgpu {
namespace {

double fp32(double value) {
  return static_cast<float>(value);
}

std::vector<double> to_vector(const at::Tensor& values) {
  at::Tensor wide = values.to(at::kDouble).contiguous();
  return {wide.const_data_ptr<double>(), wide.const_data_ptr<double>() + wide.numel()};
}

/// ComfyUI's test for a schedule that already ends at zero.
bool is_zero(double sigma) {
  return std::abs(sigma) <= 1e-5;
}

std::vector<double> sigmas_at(const SigmaTable& table, const std::vector<double>& timesteps, bool append_zero) {
  std::vector<double> sigmas;
  for (double t : timesteps) sigmas.push_back(table.sigma(t));
  if (append_zero) sigmas.push_back(0);
  return sigmas;
}

std::vector<double> linspace(double start, double end, int count) {
  return to_vector(at::linspace(start, end, count, at::kFloat));
}

std::vector<double> simple(const SigmaTable& table, int steps) {
  std::vector<double> sigmas;
  double stride = static_cast<double>(table.sigmas.size()) / steps;
  for (int i = 0; i < steps; ++i)
    sigmas.push_back(table.sigmas[table.sigmas.size() - 1 - static_cast<int>(i * stride)]);
  sigmas.push_back(0);
  return sigmas;
}

std::vector<double> sgm_uniform(const SigmaTable& table, int steps) {
  std::vector<double> timesteps =
      linspace(table.timestep(table.sigma_max()), table.timestep(table.sigma_min()), steps + 1);
  timesteps.pop_back();
  return sigmas_at(table, timesteps, true);
}

std::vector<double> normal(const SigmaTable& table, int steps) {
  double start = table.timestep(table.sigma_max()), end = table.timestep(table.sigma_min());
  bool ends_at_zero = is_zero(table.sigma(end));
  return sigmas_at(table, linspace(start, end, steps + (ends_at_zero ? 1 : 0)), !ends_at_zero);
}

/// Karras et al. 2022, eq. 5, rho = 7.
std::vector<double> karras(const SigmaTable& table, int steps) {
  double low = std::pow(table.sigma_min(), 1 / 7.0), high = std::pow(table.sigma_max(), 1 / 7.0);
  at::Tensor ramp = at::linspace(0, 1, steps, at::kFloat);
  std::vector<double> sigmas = to_vector((high + ramp * (low - high)).pow(7.0));
  sigmas.push_back(0);
  return sigmas;
}

std::vector<double> exponential(const SigmaTable& table, int steps) {
  std::vector<double> sigmas =
      to_vector(at::linspace(std::log(table.sigma_max()), std::log(table.sigma_min()), steps, at::kFloat).exp());
  sigmas.push_back(0);
  return sigmas;
}

/// Steps through the table from its second entry with an integer stride, so the count is seldom the one asked for.
std::vector<double> ddim_uniform(const SigmaTable& table, int steps) {
  std::vector<double> sigmas;
  if (is_zero(table.sigmas[1]))
    ++steps;
  else
    sigmas.push_back(0);
  std::size_t stride = std::max<std::size_t>(table.sigmas.size() / steps, 1);
  for (std::size_t i = 1; i < table.sigmas.size(); i += stride) sigmas.push_back(table.sigmas[i]);
  std::ranges::reverse(sigmas);
  return sigmas;
}

/// "Beta Sampling is All You Need" (arXiv:2407.12173), alpha = beta = 0.6. Steps that fall on one entry are run once.
std::vector<double> beta(const SigmaTable& table, int steps) {
  std::vector<double> sigmas;
  double last = static_cast<double>(table.sigmas.size() - 1), previous = -1;
  for (int i = 0; i < steps; ++i) {
    double index = std::nearbyint(beta_quantile(1 - i * (1.0 / steps), 0.6, 0.6) * last);
    if (index != previous) sigmas.push_back(table.sigmas[static_cast<std::size_t>(index)]);
    previous = index;
  }
  sigmas.push_back(0);
  return sigmas;
}

/// Mochi's schedule (genmo, Apache-2.0): linear down to 1 - 0.025 for half of the steps, quadratic from there.
std::vector<double> linear_quadratic(const SigmaTable& table, int steps) {
  constexpr double threshold = 0.025;
  std::vector<double> sigmas;
  int linear = steps / 2, rest = steps - linear;
  for (int i = 0; i < linear; ++i) sigmas.push_back(1 - i * threshold / linear);
  if (linear == 0) {
    sigmas.push_back(1);
  } else {
    double excess = linear - threshold * steps, squared = static_cast<double>(rest) * rest;
    double a = excess / (linear * squared), b = threshold / linear - 2 * excess / squared;
    double c = a * (static_cast<double>(linear) * linear);
    for (int i = linear; i < steps; ++i) sigmas.push_back(1 - (a * (static_cast<double>(i) * i) + b * i + c));
  }
  sigmas.push_back(0);
  for (double& sigma : sigmas) sigma = fp32(static_cast<float>(sigma) * static_cast<float>(table.sigma_max()));
  return sigmas;
}

/// "Align Your Steps" (arXiv:2404.14507), theorem 3.1: uniform in atan(sigma). ComfyUI's one step is NaN; ours starts
/// at sigma_max.
std::vector<double> kl_optimal(const SigmaTable& table, int steps) {
  at::Tensor ramp = at::arange(steps, at::kFloat).div_(std::max(steps - 1, 1));
  std::vector<double> sigmas =
      to_vector((ramp * std::atan(table.sigma_min()) + (1 - ramp) * std::atan(table.sigma_max())).tan_());
  sigmas.push_back(0);
  return sigmas;
}

/// What is left of the signal's variance at each of Stable Diffusion's levels: DDPM's cumulative alphas [1000] fp64.
at::Tensor stable_diffusion_alphas() {
  at::Tensor betas = at::linspace(std::sqrt(0.00085), std::sqrt(0.012), 1000, at::kDouble).square();
  return at::cumprod(1 - betas, 0);
}

SigmaTable table_of(const at::Tensor& alphas) {
  at::Tensor sigmas = ((1 - alphas) / alphas).sqrt();
  return {.path = NoisePath::VarianceExploding,
          .sigmas = to_vector(sigmas.to(at::kFloat)),
          .log_sigmas = to_vector(sigmas.log().to(at::kFloat)),
          .shift = 1};
}

/// The levels that lie below all before them. More steps than the table has levels repeat some, and steps of no length
/// divide by it.
std::vector<double> each_once(const std::vector<double>& sigmas) {
  std::vector<double> out;
  for (const double sigma : sigmas)
    if (out.empty() || sigma < out.back()) out.push_back(sigma);
  return out;
}

constexpr ScheduleRow rows[] = {
    {"simple", simple, "every n-th entry of the model's table of noise levels"},
    {"sgm_uniform", sgm_uniform, "uniform in time, without the last step (SGM)"},
    {"karras", karras, "uniform in sigma^(1/7) (Karras et al. 2022)"},
    {"exponential", exponential, "uniform in log sigma"},
    {"ddim_uniform", ddim_uniform, "integer stride through the table (DDIM); the number of steps may differ"},
    {"beta", beta, "quantiles of Beta(0.6, 0.6) (arXiv:2407.12173); repeated steps are run once"},
    {"normal", normal, "uniform in time"},
    {"linear_quadratic", linear_quadratic, "linear, then quadratic from half of the steps (Mochi)"},
    {"kl_optimal", kl_optimal, "uniform in atan sigma (Align Your Steps, arXiv:2404.14507)"},
};

}  // namespace

double SigmaTable::sigma(double timestep) const {
  if (path == NoisePath::Flow) {
    if (shift == 1) return timestep;
    auto t = static_cast<float>(timestep), s = static_cast<float>(shift);
    return (1 / (s + (1 / t - 1))) * s;
  }
  double t = std::clamp(timestep, 0.0, static_cast<double>(sigmas.size() - 1));
  auto low = static_cast<std::size_t>(std::floor(t)), high = static_cast<std::size_t>(std::ceil(t));
  auto weight = static_cast<float>(t - std::floor(t));
  float log_sigma = (1 - weight) * static_cast<float>(log_sigmas[low]) + weight * static_cast<float>(log_sigmas[high]);
  return fp32(std::exp(static_cast<double>(log_sigma)));
}

double SigmaTable::timestep(double sigma) const {
  if (path == NoisePath::Flow) return sigma;
  const auto log_sigma = static_cast<float>(std::log(fp32(sigma)));
  float best = std::numeric_limits<float>::infinity();
  std::size_t nearest = 0;
  for (std::size_t i = 0; i < log_sigmas.size(); ++i) {
    float distance = std::abs(log_sigma - static_cast<float>(log_sigmas[i]));
    if (distance < best) best = distance, nearest = i;
  }
  return static_cast<double>(nearest);
}

double SigmaTable::percent_to_sigma(double percent) const {
  if (percent >= 1) return 0;
  if (path == NoisePath::Flow) return percent <= 0 ? 1 : shift / (shift + (1 / (1 - percent) - 1));
  return percent <= 0 ? std::numeric_limits<double>::infinity() : sigma(fp32((1 - percent) * 999));
}

SigmaTable flux_dev_sigmas(double mu) {
  SigmaTable table{.path = NoisePath::Flow, .sigmas = {}, .log_sigmas = {}, .shift = std::exp(mu)};
  for (int i = 1; i <= 10000; ++i) table.sigmas.push_back(table.sigma(static_cast<float>(i) / 10000.f));
  return table;
}

double flux_mu(double base, double max, int width, int height) {
  double slope = (max - base) / (4096 - 256);
  return (static_cast<double>(width) * height / 256) * slope + (base - slope * 256);
}

SigmaTable flux_schnell_sigmas() {
  SigmaTable table{.path = NoisePath::Flow, .sigmas = {}, .log_sigmas = {}, .shift = 1};
  for (int i = 1; i <= 1000; ++i) table.sigmas.push_back(static_cast<float>(i) / 1000.f);
  return table;
}

SigmaTable stable_diffusion_sigmas() {
  return table_of(stable_diffusion_alphas());
}

SigmaTable zero_terminal_sigmas() {
  constexpr double kLast = 4.8973451890853435e-08;  // ComfyUI's number: of 0 there is no sigma
  at::Tensor roots = stable_diffusion_alphas().sqrt();
  const at::Tensor first = roots[0], last = roots[-1];
  at::Tensor alphas = ((roots - last) * (first / (first - last))).square();
  alphas[-1].fill_(kLast);
  return table_of(alphas);
}

std::span<const ScheduleRow> schedules() {
  return rows;
}

const ScheduleRow* find_schedule(std::string_view name) {
  auto row = std::ranges::find(rows, name, &ScheduleRow::name);
  return row == std::end(rows) ? nullptr : row;
}

std::vector<double> make_sigmas(const ScheduleRow& schedule, const SigmaTable& table, int steps, double denoise,
                                bool extra_step) {
  MGPU_CHECK(steps >= 1, "{} steps", steps);
  if (denoise <= 0) return {};
  bool whole = denoise > 0.9999;
  int count = (whole ? steps : static_cast<int>(steps / denoise)) + (extra_step ? 1 : 0);
  std::vector<double> sigmas = schedule.make(table, count);
  if (extra_step && sigmas.size() > 1) sigmas.erase(sigmas.end() - 2);
  auto keep = static_cast<std::size_t>(steps) + 1;
  if (!whole && sigmas.size() > keep) sigmas.erase(sigmas.begin(), sigmas.end() - static_cast<std::ptrdiff_t>(keep));
  return each_once(sigmas);
}

std::string schedule_table() {
  std::string table = "| scheduler | what it does |\n|---|---|\n";
  for (const ScheduleRow& row : rows) table += fmt::format("| `{}` | {} |\n", row.name, row.summary);
  return table;
}

}  // namespace mgpu
