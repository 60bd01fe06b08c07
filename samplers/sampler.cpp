#include "samplers/sampler.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "samplers/functions.h"

namespace mgpu {
namespace {

constexpr auto Independent = NoiseSource::Independent;
constexpr auto Brownian = NoiseSource::Brownian;

constexpr SamplerRow rows[] = {
    {"euler", sample::euler, "first-order ODE steps (Karras et al. 2022)"},
    {"euler_cfg_pp", sample::euler_cfg_pp, "euler with CFG++ (Chung et al. 2024)", NoiseSource::None, true},
    {"euler_ancestral", sample::euler_ancestral, "euler with fresh noise at each step", Independent},
    {"euler_ancestral_cfg_pp", sample::euler_ancestral_cfg_pp, "euler_ancestral with CFG++", Independent, true},
    {"heun", sample::heun, "Heun's second-order steps, two evaluations each (Karras et al. 2022)"},
    {"heunpp2", sample::heunpp2, "Heun++, up to three evaluations a step"},
    {"exp_heun_2_x0", sample::exp_heun_2_x0, "exponential Heun in log-SNR, two evaluations a step"},
    {"exp_heun_2_x0_sde", sample::exp_heun_2_x0_sde, "exp_heun_2_x0 with SEEDS noise", Independent},
    {"dpm_2", sample::dpm_2, "midpoint steps in log sigma (DPM-Solver-2, Lu et al. 2022)", NoiseSource::None, false,
     true},
    {"dpm_2_ancestral", sample::dpm_2_ancestral, "dpm_2 with fresh noise at each step", Independent, false, true},
    {"lms", sample::lms, "linear multistep of order 4 in sigma"},
    {"dpm_fast", sample::dpm_fast, "DPM-Solver-fast, order 3, uniform in log sigma whatever the schedule"},
    {"dpm_adaptive", sample::dpm_adaptive, "DPM-Solver-23 with steps of its own; `steps` sets only where it ends"},
    {"dpmpp_2s_ancestral", sample::dpmpp_2s_ancestral, "DPM-Solver++(2S) with fresh noise (Lu et al. 2022)",
     Independent},
    {"dpmpp_2s_ancestral_cfg_pp", sample::dpmpp_2s_ancestral_cfg_pp, "dpmpp_2s_ancestral with CFG++", Independent,
     true},
    {"dpmpp_sde", sample::dpmpp_sde, "DPM-Solver++ SDE, two evaluations a step", Brownian},
    {"dpmpp_2m", sample::dpmpp_2m, "DPM-Solver++(2M), second-order multistep (Lu et al. 2022)"},
    {"dpmpp_2m_cfg_pp", sample::dpmpp_2m_cfg_pp, "dpmpp_2m with CFG++", NoiseSource::None, true},
    {"dpmpp_2m_sde", sample::dpmpp_2m_sde, "DPM-Solver++(2M) SDE, midpoint", Brownian},
    {"dpmpp_2m_sde_heun", sample::dpmpp_2m_sde_heun, "DPM-Solver++(2M) SDE, Heun", Brownian},
    {"dpmpp_3m_sde", sample::dpmpp_3m_sde, "DPM-Solver++(3M) SDE", Brownian},
    {"ddpm", sample::ddpm, "DDPM posterior steps (Ho et al. 2020)", Independent},
    {"lcm", sample::lcm, "latent consistency: denoise fully, noise to the next level (Luo et al. 2023)", Independent},
    {"ipndm", sample::ipndm, "improved PNDM of order 4, weights of equal steps (Zhang & Chen 2022)"},
    {"ipndm_v", sample::ipndm_v, "improved PNDM of order 4, variable steps"},
    {"deis", sample::deis, "DEIS tAB of order 3 (Zhang & Chen 2022)"},
    {"res_multistep", sample::res_multistep, "refined exponential multistep (Zhang et al. 2023)"},
    {"res_multistep_cfg_pp", sample::res_multistep_cfg_pp, "res_multistep with CFG++", NoiseSource::None, true},
    {"res_multistep_ancestral", sample::res_multistep_ancestral, "res_multistep with fresh noise", Independent},
    {"res_multistep_ancestral_cfg_pp", sample::res_multistep_ancestral_cfg_pp, "res_multistep_ancestral with CFG++",
     Independent, true},
    {"gradient_estimation", sample::gradient_estimation, "euler with extrapolated derivative (Permenter & Yuan 2023)"},
    {"gradient_estimation_cfg_pp", sample::gradient_estimation_cfg_pp, "gradient_estimation with CFG++",
     NoiseSource::None, true},
    {"er_sde", sample::er_sde, "ER-SDE-Solver-3 (Cui et al. 2023)", Independent},
    {"seeds_2", sample::seeds_2, "SEEDS-2, two evaluations a step (Gonzalez et al. 2023)", Independent},
    {"seeds_3", sample::seeds_3, "SEEDS-3, three evaluations a step", Independent},
    {"sa_solver", sample::sa_solver, "stochastic Adams predictor-corrector (Xue et al. 2023)", Independent},
    {"sa_solver_pece", sample::sa_solver_pece, "sa_solver that evaluates the corrected state too", Independent},
    {"ddim", sample::euler, "DDIM without noise, which is euler", NoiseSource::None, false, false, true},
    {"uni_pc", sample::uni_pc, "UniPC of order 3, B(h) = h (Zhao et al. 2023)", NoiseSource::None, false, true},
    {"uni_pc_bh2", sample::uni_pc_bh2, "UniPC of order 3, B(h) = e^h - 1", NoiseSource::None, false, true},
};

/// A1111's names; a schedule's name may follow a sampler's.
struct Alias {
  std::string_view theirs, ours;
};

constexpr Alias sampler_aliases[] = {
    {"Euler", "euler"},
    {"Euler a", "euler_ancestral"},
    {"LMS", "lms"},
    {"Heun", "heun"},
    {"DPM2", "dpm_2"},
    {"DPM2 a", "dpm_2_ancestral"},
    {"DPM fast", "dpm_fast"},
    {"DPM adaptive", "dpm_adaptive"},
    {"DPM++ 2S a", "dpmpp_2s_ancestral"},
    {"DPM++ 2M", "dpmpp_2m"},
    {"DPM++ SDE", "dpmpp_sde"},
    {"DPM++ 2M SDE", "dpmpp_2m_sde"},
    {"DPM++ 2M SDE Heun", "dpmpp_2m_sde_heun"},
    {"DPM++ 3M SDE", "dpmpp_3m_sde"},
    {"DDIM", "ddim"},
    {"DDIM CFG++", "euler_cfg_pp"},
    {"UniPC", "uni_pc"},
    {"LCM", "lcm"},
};

constexpr Alias schedule_aliases[] = {
    {" Karras", "karras"},
    {" Exponential", "exponential"},
    {" SGM Uniform", "sgm_uniform"},
    {" KL Optimal", "kl_optimal"},
    {" Simple", "simple"},
    {" Normal", "normal"},
    {" DDIM Uniform", "ddim_uniform"},
    {" Beta", "beta"},
};

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

}  // namespace

std::vector<double> evaluated_sigmas(const SamplerRow& sampler, std::span<const double> sigmas,
                                     const SigmaTable& table) {
  std::vector<double> out;
  const auto nothing = [] { return at::zeros({1, 1, 1, 1}); };
  const Denoise denoise = [&](const at::Tensor&, double sigma) -> Denoised {
    if (std::ranges::find(out, sigma) == out.end()) out.push_back(sigma);
    return {nothing(), nothing()};
  };
  sampler.sample(nothing(), sigmas, {table, denoise, [&](double, double) { return nothing(); }, nullptr});
  return out;
}

std::span<const SamplerRow> samplers() {
  return rows;
}

const SamplerRow* find_sampler(std::string_view name) {
  auto row = std::ranges::find(rows, name, &SamplerRow::name);
  return row == std::end(rows) ? nullptr : row;
}

std::optional<SamplerChoice> choose_sampler(std::string_view name) {
  if (const SamplerRow* row = find_sampler(name)) return SamplerChoice{row};
  if (name.ends_with("_gpu")) {
    const SamplerRow* row = find_sampler(name.substr(0, name.size() - 4));
    if (row && row->step_noise == NoiseSource::Brownian) return SamplerChoice{row, nullptr, true};
  }
  std::string theirs = lower(name);
  SamplerChoice choice;
  for (const Alias& alias : schedule_aliases)
    if (theirs.ends_with(lower(alias.theirs))) {
      theirs.resize(theirs.size() - alias.theirs.size());
      choice.schedule = find_schedule(alias.ours);
      break;
    }
  for (const Alias& alias : sampler_aliases)
    if (theirs == lower(alias.theirs)) {
      choice.sampler = find_sampler(alias.ours);
      return choice;
    }
  return std::nullopt;
}

std::string registry_table() {
  std::string table = "| sampler | what it does | noise |\n|---|---|---|\n";
  for (const SamplerRow& row : rows) {
    const char* noise = row.step_noise == NoiseSource::None       ? ""
                        : row.step_noise == NoiseSource::Brownian ? "Brownian path"
                                                                  : "each step";
    table += fmt::format("| `{}` | {} | {} |\n", row.name, row.summary, noise);
  }
  return table + "\n" + schedule_table();
}

}  // namespace mgpu
