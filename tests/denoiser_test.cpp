#include "samplers/denoiser.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/error.h"

using namespace mgpu;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

at::Tensor ramp() {
  return at::arange(16, at::kFloat).reshape({1, 4, 2, 2}) / 8 - 1;
}

/// A model that is asked text by text.
template <class Answer>
ModelCall one_by_one(Answer answer) {
  return [answer](const at::Tensor& x, double timestep, std::span<const Conditioned> texts) {
    std::vector<at::Tensor> out;
    for (const Conditioned text : texts) out.push_back(answer(x, timestep, text));
    return out;
  };
}

/// A model that answers 2 * input for the positive and input / 2 for the negative, and remembers its calls.
struct Model {
  std::vector<Conditioned> asked;
  std::vector<double> timesteps;
  at::Tensor input;

  ModelCall call() {
    return one_by_one([this](const at::Tensor& x, double timestep, Conditioned which) {
      asked.push_back(which);
      timesteps.push_back(timestep);
      input = x;
      return x * (which == Conditioned::Positive ? 2 : 0.5);
    });
  }
};

}  // namespace

TEST_SUITE_BEGIN("denoiser");

TEST_CASE("a velocity is taken off along the flow") {
  Model model;
  std::vector<double> sigmas{1, 0.5, 0};
  Denoised out = make_denoiser(model.call(), flux_dev_sigmas(), sigmas, {})(ramp(), 0.5);
  CHECK(at::allclose(out.denoised, ramp() - 0.5 * 2 * ramp()));
  CHECK(at::equal(out.denoised, out.uncond));
  CHECK((model.asked == std::vector{Conditioned::Positive}));
  CHECK(model.timesteps == std::vector{0.5});
  CHECK(at::equal(model.input, ramp()));
}

TEST_CASE("epsilon and v predictions see the scaled latent and the table's timestep") {
  SigmaTable table = stable_diffusion_sigmas();
  double sigma = table.sigmas[700], scale = std::sqrt(sigma * sigma + 1);
  for (Prediction prediction : {Prediction::Epsilon, Prediction::V}) {
    Model model;
    std::vector<double> sigmas{sigma, 0};
    DenoiserOptions options{.prediction = prediction, .cfg = 1, .needs_uncond = false};
    Denoised out = make_denoiser(model.call(), table, sigmas, options)(ramp(), sigma);
    at::Tensor output = 2 * ramp() / scale;
    at::Tensor expected =
        prediction == Prediction::Epsilon ? ramp() - sigma * output : ramp() / (scale * scale) - output * sigma / scale;
    CHECK(at::allclose(out.denoised, expected, 1e-5, 1e-5));
    CHECK(at::allclose(model.input, ramp() / scale));
    CHECK(model.timesteps == std::vector{700.0});
  }
}

TEST_CASE("guidance goes from the negative through the positive, and exactly 1 skips the negative") {
  auto run = [](double cfg, bool needs_uncond, Model& model) {
    std::vector<double> sigmas{1, 0};
    DenoiserOptions options{.prediction = Prediction::Velocity, .cfg = cfg, .needs_uncond = needs_uncond};
    return make_denoiser(model.call(), flux_dev_sigmas(), sigmas, options)(ramp(), 0.5);
  };
  Model guided, skipped, nearly, kept;
  Denoised out = run(3, false, guided);
  at::Tensor cond = ramp() - ramp(), uncond = ramp() - 0.25 * ramp();
  CHECK(at::allclose(out.denoised, uncond + 3 * (cond - uncond)));
  CHECK(at::allclose(out.uncond, uncond));
  CHECK((guided.asked == std::vector{Conditioned::Positive, Conditioned::Negative}));
  run(1 + 1e-12, false, skipped);
  CHECK(skipped.asked.size() == 1);
  run(1.001, false, nearly);
  CHECK(nearly.asked.size() == 2);
  CHECK(at::allclose(run(1, true, kept).uncond, uncond));
  CHECK(kept.asked.size() == 2);
}

TEST_CASE("several positives: their mean weighted by mask and strength, each within its levels") {
  std::vector<Conditioned> asked;
  // The i-th positive finds the latent to be i + 1 everywhere, the negative 10.
  const ModelCall model = one_by_one([&](const at::Tensor& x, double sigma, Conditioned which) {
    asked.push_back(which);
    return (x - (which == Conditioned::Negative ? 10 : static_cast<int>(which) + 1)) / sigma;
  });
  const at::Tensor left = at::tensor({1.0F, 0.0F}).reshape({1, 1, 1, 2}).expand({1, 1, 2, 2});
  const auto run = [&](std::vector<Region> regions, double sigma, double cfg = 1) {
    asked.clear();
    std::vector<double> sigmas{1, 0};
    DenoiserOptions options{
        .prediction = Prediction::Velocity, .cfg = cfg, .needs_uncond = false, .regions = std::move(regions)};
    return make_denoiser(model, flux_dev_sigmas(), sigmas, options)(ramp(), sigma).denoised;
  };
  const auto columns = [](double a, double b) {
    return at::tensor({a, b}, at::kFloat).reshape({1, 1, 1, 2}).expand({1, 4, 2, 2});
  };
  const std::vector<Region> two = {{}, {.mask = left, .strength = 3, .from = 0.8, .to = 0.4}};
  CHECK(at::allclose(run(two, 0.5), columns((1 + 3 * 2) / 4.0, 1)));
  CHECK((asked == std::vector{Conditioned::Positive, static_cast<Conditioned>(1)}));
  CHECK(at::allclose(run(two, 0.9), columns(1, 1)));
  CHECK((asked == std::vector{Conditioned::Positive}));
  CHECK(at::allclose(run(two, 0.39), columns(1, 1)));
  CHECK(at::allclose(run(two, 0.8), columns(1.75, 1)));  // both ends count, compared in fp32
  CHECK(at::allclose(run(two, 0.4 - 1e-12), columns(1.75, 1)));
  CHECK(at::allclose(run({{}, {.strength = 0.5}}, 0.5), columns(4 / 3.0, 4 / 3.0)));
  CHECK(at::allclose(run(two, 0.5, 2), columns(10 + 2 * (1.75 - 10), 10 + 2 * (1 - 10.0))));
  // Where nothing counts the prediction is zero, not NaN.
  CHECK(at::allclose(run({{.mask = left}}, 0.5), columns(1, 0)));
  CHECK(at::equal(run({{.to = 0.9}}, 0.5), at::zeros({1, 4, 2, 2})));
}

TEST_CASE("a latent that is not finite fails the image and names the step") {
  std::vector<double> sigmas{1, 0.75, 0.5, 0.25, 0};
  auto message = [&](double sigma, double bad, at::ScalarType computed_in = at::kHalf,
                     std::string_view hint = "a wider dtype often helps: bf16 or fp32 instead of fp16") {
    const ModelCall model = one_by_one([&](const at::Tensor& x, double, Conditioned) {
      at::Tensor out = x.clone();
      out.flatten().slice(0, 0, 3).fill_(bad);
      return out;
    });
    try {
      make_denoiser(model, flux_dev_sigmas(), sigmas, {.computed_in = computed_in})(ramp(), sigma);
    } catch (const Error& e) {
      CHECK((e.code() == Exit::ImageFailed));
      CHECK(e.hint() == hint);
      return e.message();
    }
    return std::string("nothing");
  };
  CHECK(message(1, std::nan("")) == "step 1 of 4: the latent is not finite (3 NaN, 0 Inf)");
  CHECK(message(0.5, infinity) == "step 3 of 4: the latent is not finite (0 NaN, 3 Inf)");
  CHECK(message(0.6, -infinity) == "step 2 of 4: the latent is not finite (0 NaN, 3 Inf)");
  CHECK(message(0.1, infinity) == "step 4 of 4: the latent is not finite (0 NaN, 3 Inf)");
  CHECK(message(0.5, 1e30) == "nothing");
  // A wider dtype is named only where there is one.
  const std::string_view wider = "a wider dtype often helps: fp32 instead of bf16";
  CHECK(message(1, infinity, at::kBFloat16, wider) == "step 1 of 4: the latent is not finite (0 NaN, 3 Inf)");
  const std::string_view widest =
      "fp32 is wide enough: look for damage in the model's file, or take another sampler or scheduler";
  CHECK(message(1, infinity, at::kFloat, widest) == "step 1 of 4: the latent is not finite (0 NaN, 3 Inf)");
}

TEST_CASE("a model may answer in a narrower dtype") {
  const ModelCall model = one_by_one([](const at::Tensor& x, double, Conditioned) { return x.to(at::kBFloat16); });
  std::vector<double> sigmas{1, 0};
  Denoised out = make_denoiser(model, flux_dev_sigmas(), sigmas, {})(ramp(), 0.5);
  CHECK((out.denoised.scalar_type() == at::kFloat));
  CHECK(at::allclose(out.denoised, ramp() / 2, 1e-2, 1e-2));
}

TEST_CASE("sampling starts from noise mixed as the path says") {
  at::Tensor noise = ramp(), latent = at::ones_like(noise);
  SigmaTable flow = flux_dev_sigmas(), sd = stable_diffusion_sigmas();
  CHECK(at::equal(noised_latent(flow, 1, noise, at::zeros_like(noise)), noise));
  CHECK(at::allclose(noised_latent(flow, 0.25, noise, latent), 0.25 * noise + 0.75 * latent));
  double top = sd.sigma_max();
  CHECK(at::allclose(noised_latent(sd, top, noise, latent), std::sqrt(1 + top * top) * noise + latent));
  CHECK(at::allclose(noised_latent(sd, top * 0.99, noise, latent), top * 0.99 * noise + latent));
  CHECK(at::allclose(at_level(sd, top, noise, latent), top * noise + latent));
  CHECK(at::equal(at_level(flow, 0.25, noise, latent), noised_latent(flow, 0.25, noise, latent)));
  CHECK(at::allclose(final_latent(flow, 0.5, noise), 2 * noise));
  CHECK(at::equal(final_latent(flow, 0, noise), noise));
  CHECK(at::equal(final_latent(sd, 0.5, noise), noise));
}

TEST_SUITE_END();
