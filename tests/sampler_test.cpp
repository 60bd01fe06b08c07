#include "samplers/sampler.h"

#include <ATen/Parallel.h>
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "samplers/denoiser.h"
#include "samplers/noise.h"
#include "samplers/steps.h"

using namespace mgpu;

namespace {

constexpr double cfg = 1.5;
const std::vector<std::int64_t> shape{2, 2, 2, 2};

/// Tensors here are tiny: threads would only wait for each other.
struct OneThread {
  int before = at::get_num_threads();
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before); }
};

template <typename F>
at::Tensor elements(F function) {
  at::Tensor values = at::empty(shape, at::kDouble);
  for (std::int64_t j = 0; j < values.numel(); ++j)
    values.mutable_data_ptr<double>()[j] = function(static_cast<double>(j));
  return values;
}

/// The posterior mean of a mixture of three Gaussians over each image, as make_sampler_goldens.py states it.
at::Tensor mixture_mean(const at::Tensor& x, double alpha, double sigma, int first) {
  at::Tensor flat = x.flatten(1).to(at::kDouble);
  const double spread = 0.25, variance = alpha * alpha * spread + sigma * sigma;
  std::vector<at::Tensor> weights, means;
  for (int k = first; k < first + 3; ++k) {
    at::Tensor mean = at::arange(flat.size(1), at::kDouble).mul(0.7).add(1.3 * k).sin();
    at::Tensor away = flat - alpha * mean;
    weights.push_back(-away.square().sum(1) / (2 * variance));
    means.push_back(mean + alpha * spread / variance * away);
  }
  return (at::stack(weights).softmax(0).unsqueeze(2) * at::stack(means)).sum(0).reshape(x.sizes()).to(x.scalar_type());
}

Denoised analytic(const SigmaTable& table, double scale, const at::Tensor& x, double sigma) {
  double alpha = steps::alpha(table.path, sigma);
  if (scale == 1) return {mixture_mean(x, alpha, sigma, 0), mixture_mean(x, alpha, sigma, 0)};
  at::Tensor uncond = mixture_mean(x, alpha, sigma, 2);
  return {uncond + scale * (mixture_mean(x, alpha, sigma, 0) - uncond), uncond};
}

at::Tensor start() {
  return elements([](double j) { return std::sqrt(2.0) * std::sin(12.9898 * (j + 1)); });
}

/// One run over the analytic denoiser, counting calls.
struct Run {
  int evaluations = 0, callbacks = 0, draws = 0;
  at::Tensor result;

  Run(const SamplerRow& row, const SigmaTable& table, std::span<const double> sigmas, double scale = cfg,
      at::ScalarType dtype = at::kDouble, double noise_scale = 1) {
    auto denoise = [&](const at::Tensor& x, double sigma) {
      ++evaluations;
      REQUIRE(sigma > 0);
      return analytic(table, scale, x, sigma);
    };
    auto noise = [&](double sigma, double next) {
      double n = draws++;
      CHECK(sigma >= next * (1 - 1e-12));
      CHECK(next > 0);
      return noise_scale * elements([&](double j) {
               return std::sqrt(2.0) * std::cos(0.37 * (j + 1) * (n + 1) + 5 * sigma + 3 * next);
             });
    };
    auto callback = [&](int step, double, const at::Tensor& x, const at::Tensor& denoised) {
      CHECK(step == callbacks++);
      CHECK(x.sizes() == denoised.sizes());
    };
    at::Tensor first = start().to(dtype);
    at::Tensor x = noised_latent(table, sigmas.front(), first, at::zeros_like(first));
    at::Tensor kept = x.clone();
    at::Tensor last = row.sample(x, sigmas, {table, denoise, noise, callback});
    CHECK(at::equal(x, kept));  // samplers leave the caller's tensor alone
    CHECK((last.scalar_type() == dtype));
    result = final_latent(table, sigmas.back(), last);
  }
};

SigmaTable table_of(const std::string& model) {
  return model == "flux_dev"       ? flux_dev_sigmas()
         : model == "flux_schnell" ? flux_schnell_sigmas()
                                   : stable_diffusion_sigmas();
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).to(at::kDouble).norm() / b.to(at::kDouble).norm()).item<double>();
}

}  // namespace

TEST_SUITE_BEGIN("sampler");

TEST_CASE("every sampler on both noise paths equals the reference over an analytic denoiser") {
  OneThread one_thread;
  std::map<std::string_view, int> seen;
  for (const auto& c : nlohmann::json::parse(std::ifstream(MGPU_GOLDENS "/samplers_results.json"))) {
    const std::string model = c.at("model"), name = c.at("sampler"), run = c.at("run");
    INFO(fmt::format("{} {} {}", model, name, run));
    const SamplerRow* row = find_sampler(name);
    REQUIRE(row);
    ++seen[row->name];
    SigmaTable table = table_of(model);
    auto sigmas = c.at("sigmas").get<std::vector<double>>();
    Run ours(*row, table, sigmas);
    auto values = c.at("result").get<std::vector<double>>();
    CHECK(relative(ours.result, at::tensor(values, at::kDouble).reshape(shape)) <= 1e-5);
    CHECK(ours.evaluations == c.at("evaluations").get<int>());
    CHECK(ours.callbacks == c.at("callbacks").get<int>());
    // In fp32, as pictures are made, only rounding may differ.
    CHECK(relative(Run(*row, table, sigmas, cfg, at::kFloat).result, ours.result) <= 2e-4);
  }
  for (const SamplerRow& row : samplers()) CHECK_MESSAGE(seen[row.name] >= 12, row.name);
}

TEST_CASE("a seed's whole run in fp32 equals ComfyUI's, its noise included") {
  OneThread one_thread;
  const nlohmann::json cases = nlohmann::json::parse(std::ifstream(MGPU_GOLDENS "/samplers_seeded.json"));
  CHECK(cases.size() == 2 * samplers().size());
  const std::vector<std::int64_t> small{1, 2, 4, 4};
  for (const auto& c : cases) {
    const std::string model = c.at("model"), name = c.at("sampler");
    INFO(fmt::format("{} {}", model, name));
    const SamplerRow* row = find_sampler(name);
    REQUIRE(row);
    SigmaTable table = table_of(model);
    std::vector<double> sigmas =
        make_sigmas(*find_schedule(c.at("scheduler").get<std::string>()), table, 20, 1, row->extra_step);
    auto denoise = [&](const at::Tensor& x, double sigma) { return analytic(table, cfg, x, sigma); };
    at::Tensor noise = initial_noise(1234, small);
    at::Tensor x = noised_latent(table, sigmas.front(), noise, at::zeros_like(noise));
    StepNoise step_noise = make_step_noise(row->step_noise, StepNoiseKind::Cpu, 1234, small, sigmas);
    x = final_latent(table, sigmas.back(), row->sample(x, sigmas, {table, denoise, step_noise, nullptr}));
    at::Tensor expected = at::tensor(c.at("result").get<std::vector<double>>(), at::kDouble).reshape(small);
    CHECK((x - expected).abs().max().item<double>() < 2e-4);
  }
}

TEST_CASE("runs repeat, and noise is drawn exactly by those rows that say so") {
  OneThread one_thread;
  SigmaTable tables[] = {flux_dev_sigmas(), stable_diffusion_sigmas()};
  for (const SigmaTable& table : tables)
    for (const SamplerRow& row : samplers()) {
      INFO(fmt::format("{}", row.name));
      std::vector<double> sigmas = make_sigmas(*find_schedule("simple"), table, 6, 1, row.extra_step);
      Run once(row, table, sigmas), again(row, table, sigmas), quiet(row, table, sigmas, cfg, at::kDouble, 0.5);
      CHECK(at::equal(once.result, again.result));
      bool draws = row.step_noise != NoiseSource::None;
      CHECK((once.draws > 0) == draws);
      CHECK(at::equal(once.result, quiet.result) == !draws);
    }
}

TEST_CASE("the levels at which a sampler evaluates the model are known before it runs") {
  for (const SamplerRow& row : samplers()) {
    CAPTURE(row.name);
    for (const char* model : {"flux_dev", "flux_schnell", "sd"}) {
      CAPTURE(model);
      const SigmaTable table = table_of(model);
      const std::vector<double> sigmas = make_sigmas(*find_schedule("simple"), table, 7, 1.0, row.extra_step);
      const std::vector<double> listed = evaluated_sigmas(row, sigmas, table);
      std::vector<double> asked;
      const Denoise denoise = [&](const at::Tensor& x, double sigma) {
        if (std::ranges::find(asked, sigma) == asked.end()) asked.push_back(sigma);
        return analytic(table, cfg, x, sigma);
      };
      const auto noise = [&](double, double) { return start(); };
      const at::Tensor x = start().to(at::kFloat);
      row.sample(noised_latent(table, sigmas.front(), x, at::zeros_like(x)), sigmas, {table, denoise, noise, nullptr});
      if (row.name == "dpm_adaptive") {  // steps as the picture asks for
        CHECK(listed.front() == asked.front());
      } else {
        CHECK(listed == asked);
      }
    }
  }
}

TEST_CASE("one step is the denoised latent") {
  OneThread one_thread;
  for (const SigmaTable& table : {flux_dev_sigmas(), stable_diffusion_sigmas()})
    for (const SamplerRow& row : samplers()) {
      INFO(fmt::format("{}", row.name));
      if (row.name.starts_with("dpm_fast") || row.name.starts_with("dpm_adaptive")) continue;  // they stop at sigma_min
      std::vector<double> sigmas{table.sigma_max(), 0};
      Run run(row, table, sigmas, 1);
      at::Tensor x = noised_latent(table, sigmas[0], start(), at::zeros(shape, at::kDouble));
      // uni_pc ends at 0.001, not at 0.
      CHECK(relative(run.result, analytic(table, 1, x, sigmas[0]).denoised) <
            (row.name.starts_with("uni_pc") ? 5e-3 : 2e-4));
    }
}

TEST_CASE("deterministic samplers converge to the probability-flow solution") {
  OneThread one_thread;
  for (const SigmaTable& table : {flux_schnell_sigmas(), stable_diffusion_sigmas()}) {
    auto run = [&](const SamplerRow& row, int steps, std::string_view schedule) {
      return Run(row, table, make_sigmas(*find_schedule(schedule), table, steps, 1, row.extra_step), 1).result;
    };
    at::Tensor solution = run(*find_sampler("heun"), 640, "karras");
    for (const SamplerRow& row : samplers()) {
      if (row.step_noise != NoiseSource::None || row.name == "dpm_adaptive") continue;
      INFO(fmt::format("{} {}", row.name, table.sigma_max()));
      double coarse = relative(run(row, 10, "karras"), solution), fine = relative(run(row, 80, "karras"), solution);
      CHECK(fine < 0.03);
      CHECK(fine < coarse);
    }
  }
}

TEST_CASE("without guidance the unconditional part does not matter") {
  OneThread one_thread;
  SigmaTable table = flux_dev_sigmas();
  std::vector<double> sigmas = make_sigmas(*find_schedule("simple"), table, 5, 1, false);
  for (const SamplerRow& row : samplers()) {
    INFO(fmt::format("{}", row.name));
    auto sample = [&](bool with_uncond) {
      int n = 0;
      auto denoise = [&](const at::Tensor& x, double sigma) {
        at::Tensor denoised = mixture_mean(x, 1 - sigma, sigma, 0);
        return Denoised{denoised, with_uncond ? denoised + 1 : denoised};
      };
      auto noise = [&](double, double) { return elements([&](double j) { return std::sin(j + n); }); };
      return row.sample(start(), sigmas, {table, denoise, noise, nullptr});
    };
    CHECK(at::equal(sample(false), sample(true)) == !row.needs_uncond);
  }
}

TEST_CASE("a schedule without a step leaves x as it is") {
  OneThread one_thread;
  SigmaTable table = flux_dev_sigmas();
  auto never = [](const at::Tensor&, double) -> Denoised { throw std::logic_error("evaluated"); };
  for (const SamplerRow& row : samplers()) {
    INFO(fmt::format("{}", row.name));
    std::vector<double> sigmas{0.5};
    CHECK(at::equal(row.sample(start(), sigmas, {table, never, nullptr, nullptr}), start()));
  }
}

TEST_CASE("names and other programs' spellings are found") {
  CHECK(find_sampler("Euler") == nullptr);
  auto choice = [](std::string_view name) {
    std::optional<SamplerChoice> found = choose_sampler(name);
    return found ? fmt::format("{} {} {}", found->sampler->name, found->schedule ? found->schedule->name : "-",
                               found->philox)
                 : "none";
  };
  CHECK(choice("dpmpp_2m") == "dpmpp_2m - false");
  CHECK(choice("dpmpp_2m_sde_gpu") == "dpmpp_2m_sde - true");
  CHECK(choice("DPM++ 2M Karras") == "dpmpp_2m karras false");
  CHECK(choice("dpm++ 2m sde exponential") == "dpmpp_2m_sde exponential false");
  CHECK(choice("Euler a") == "euler_ancestral - false");
  CHECK(choice("DPM2 a Karras") == "dpm_2_ancestral karras false");
  CHECK(choice("Euler SGM Uniform") == "euler sgm_uniform false");
  CHECK(choice("DPM++ 2M SDE Heun Karras") == "dpmpp_2m_sde_heun karras false");
  CHECK(choice("euler_gpu") == "none");
  CHECK(choice("Karras") == "none");
  CHECK(choice("") == "none");
}

TEST_CASE("the table lists every sampler and schedule once") {
  std::string table = registry_table();
  CHECK(table.ends_with("\n\n" + schedule_table()));
  for (const SamplerRow& row : samplers()) {
    std::string cell = fmt::format("| `{}` |", row.name);
    CHECK(table.find(cell) != std::string::npos);
    CHECK(table.find(cell) == table.rfind(cell));
  }
  CHECK(samplers().size() == 40);
}

TEST_SUITE_END();
