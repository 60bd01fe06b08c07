#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>

#include "samplers/denoiser.h"
#include "samplers/noise.h"
#include "samplers/sampler.h"

using namespace mgpu;

// More steps than a model's table has levels: every level is run once, and every sampler ends in a picture.

namespace {

const std::vector<std::int64_t> shape{1, 1, 2, 2};

struct OneThread {
  int before = at::get_num_threads();
  OneThread() { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before); }
};

struct Model {
  const char* name;
  SigmaTable table;
};

std::vector<Model> models() {
  return {{"flux_dev", flux_dev_sigmas()},
          {"flux_schnell", flux_schnell_sigmas()},
          {"stable_diffusion", stable_diffusion_sigmas()},
          {"zero_terminal", zero_terminal_sigmas()}};
}

/// A run over a model that always answers the same picture, its step noise as pictures have it.
at::Tensor run_over(const SamplerRow& row, const SigmaTable& table, const std::vector<double>& sigmas) {
  const auto denoise = [](const at::Tensor& x, double) -> Denoised {
    const at::Tensor clean = at::full_like(x, 0.5);
    return {clean, clean};
  };
  const at::Tensor noise = initial_noise(3, shape);
  const StepNoise step_noise = make_step_noise(row.step_noise, StepNoiseKind::Cpu, 3, shape, sigmas);
  const at::Tensor x = noised_latent(table, sigmas.front(), noise, at::zeros_like(noise));
  return final_latent(table, sigmas.back(), row.sample(x, sigmas, {table, denoise, step_noise, nullptr}));
}

void check_all_samplers(const Model& model, const ScheduleRow& schedule, int steps, double denoise) {
  const std::vector<double> plain = make_sigmas(schedule, model.table, steps, denoise, false),
                            extra = make_sigmas(schedule, model.table, steps, denoise, true);
  for (const std::vector<double>* sigmas : {&plain, &extra}) {
    REQUIRE(sigmas->size() >= 2);
    CHECK(std::ranges::is_sorted(*sigmas, std::greater_equal{}));  // each below the one before
    CHECK(sigmas->back() == 0);
  }
  for (const SamplerRow& row : samplers()) {
    INFO(fmt::format("{} {} {} {} {}", model.name, schedule.name, row.name, steps, denoise));
    const at::Tensor result = run_over(row, model.table, row.extra_step ? extra : plain);
    CHECK(result.isfinite().all().item<bool>());
    // A model that always answers the same is followed to its answer; some stop at the lowest level, or at 0.001.
    const bool stops = row.name.starts_with("uni_pc") || row.name == "dpm_fast" || row.name == "dpm_adaptive";
    CHECK(result.sub(0.5).abs().max().item<double>() < (stops ? 5.0 : 0.05));
  }
}

}  // namespace

TEST_SUITE_BEGIN("levels");

TEST_CASE("a part of more steps than there are levels is finite with every sampler") {
  OneThread one_thread;
  for (const Model& model : models()) check_all_samplers(model, *find_schedule("simple"), 20, 0.01);
}

TEST_CASE("the last steps of a long schedule are finite with every sampler and scheduler") {
  OneThread one_thread;
  const Model model{"flux_schnell", flux_schnell_sigmas()};
  for (const ScheduleRow& schedule : schedules()) check_all_samplers(model, schedule, 3, 0.001);
}

TEST_CASE("more steps than there are levels are finite with every sampler") {
  OneThread one_thread;
  SigmaTable coarse = flux_schnell_sigmas();
  coarse.sigmas.clear();
  for (int i = 1; i <= 12; ++i) coarse.sigmas.push_back(static_cast<float>(i) / 12.0F);
  check_all_samplers({"coarse", coarse}, *find_schedule("simple"), 30, 1);
  // Levels between 1 and where log-SNR begins to be finite.
  const SigmaTable table = flux_dev_sigmas();
  for (const SamplerRow& row : samplers()) {
    CAPTURE(row.name);
    CHECK(run_over(row, table, {1, 0.99999, 0.99998, 0.9, 0.5, 0.1, 0}).isfinite().all().item<bool>());
  }
}

TEST_CASE("repeated levels are run once, from the level at which denoise begins") {
  const SigmaTable table = stable_diffusion_sigmas();
  const std::vector<double> sigmas = make_sigmas(*find_schedule("simple"), table, 20, 0.01, false);
  CHECK(sigmas.size() == 11);
  CHECK(sigmas.front() == table.sigmas[9]);
  CHECK(make_sigmas(*find_schedule("simple"), table, 2000, 1, false).size() == 1001);
  // The table's own count is no repetition.
  CHECK(make_sigmas(*find_schedule("simple"), table, 1000, 1, false).size() == 1001);
}

TEST_SUITE_END();
