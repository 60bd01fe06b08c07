#include "samplers/noise.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "samplers/brownian_tree.h"

using namespace mgpu;

namespace {

const std::vector<std::int64_t> shape{2, 4, 8, 8};

double mean_of(const at::Tensor& x) {
  return x.to(at::kDouble).mean().item<double>();
}
double deviation(const at::Tensor& x) {
  return x.to(at::kDouble).std().item<double>();
}

void check_begins(const at::Tensor& noise, std::vector<double> expected, double tolerance) {
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(noise.flatten()[static_cast<std::int64_t>(i)].item<double>() ==
          doctest::Approx(expected[i]).epsilon(tolerance));
}

}  // namespace

TEST_SUITE_BEGIN("noise");

TEST_CASE("initial noise is torch.randn of the seed, the whole batch in one draw") {
  // torch.manual_seed(0); torch.randn(4)[:4], from PyTorch's documentation and releases.
  check_begins(initial_noise(0, {4}), {1.5410, -0.2934, -2.1788, 0.5684}, 1e-4);
  CHECK(at::equal(initial_noise(42, shape)[0], initial_noise(42, {1, 4, 8, 8})[0]));
  CHECK_FALSE(at::equal(initial_noise(42, shape), initial_noise(43, shape)));
  CHECK((initial_noise(0xffffffffffffffffULL, shape).scalar_type() == at::kFloat));
}

TEST_CASE("step noise on the CPU is one generator seeded seed + 1") {
  StepNoise noise = make_step_noise(NoiseSource::Independent, StepNoiseKind::Cpu, 41, shape, {});
  CHECK(at::equal(noise(1, 0.5), initial_noise(42, shape)));
  CHECK_FALSE(at::equal(noise(1, 0.5), initial_noise(42, shape)));
  CHECK(make_step_noise(NoiseSource::None, StepNoiseKind::Cpu, 0, shape, {}) == nullptr);
}

TEST_CASE("philox noise is what an NVIDIA GPU draws") {
  // torch.manual_seed(0); torch.randn(10, device="cuda"), as A1111's rng_philox.py records it.
  PhiloxGenerator generator(0);
  check_begins(generator.randn({10}),
               {-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709,
                -1.07454231, -0.36314407},
               2e-6);
  at::Tensor second = generator.randn({10});
  CHECK_FALSE(at::equal(second, PhiloxGenerator(0).randn({10})));
  // The first element does not depend on how many follow.
  CHECK(at::equal(PhiloxGenerator(7).randn({1000}).slice(0, 0, 10), PhiloxGenerator(7).randn({10})));
  at::Tensor many = PhiloxGenerator(3).randn({100000});
  CHECK(std::abs(mean_of(many)) < 0.01);
  CHECK(deviation(many) == doctest::Approx(1).epsilon(0.01));
  StepNoise noise = make_step_noise(NoiseSource::Independent, StepNoiseKind::Philox, 5, shape, {});
  PhiloxGenerator same(5);
  CHECK(at::equal(noise(1, 0.5), same.randn(shape)));
  CHECK(at::equal(noise(0.5, 0.2), same.randn(shape)));
}

TEST_CASE("seed sequences equal numpy's") {
  // numpy.random.SeedSequence(0).generate_state(3)
  CHECK(seed_sequence(0, {}, 4, 3) == std::vector<std::uint32_t>{2968811710u, 3677149159u, 745650761u});
  // numpy.random.SeedSequence(2**40 + 5, spawn_key=(3, 2**33), pool_size=24).generate_state(4)
  const std::uint64_t key[] = {3, std::uint64_t{1} << 33};
  CHECK(seed_sequence((std::uint64_t{1} << 40) + 5, key, 24, 4) ==
        std::vector<std::uint32_t>{2248424382u, 2659781770u, 683163675u, 8802295u});
}

TEST_CASE("Brownian increments equal torchsde's") {
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(MGPU_GOLDENS "/samplers_brownian.json"));
  for (const auto& c : golden.at("cases")) {
    auto entropy = c.at("entropy").get<std::uint64_t>();
    INFO(fmt::format("{} {} {}", entropy, c.at("from").get<double>(), c.at("to").get<double>()));
    BrownianTree tree(golden.at("start"), golden.at("end"), entropy, [](std::uint64_t seed) {
      return initial_noise(seed, {1, 2, 4, 4});
    });
    at::Tensor increment = tree.increment(c.at("from"), c.at("to")).flatten().to(at::kDouble);
    at::Tensor expected = at::tensor(c.at("increment").get<std::vector<double>>(), at::kDouble);
    CHECK((increment - expected).abs().max().item<double>() < 1e-5);
  }
}

TEST_CASE("a Brownian path does not depend on what is asked of it, and its increments add up") {
  std::vector<double> sigmas{14.6, 7, 3, 1, 0.5, 0.1, 0};
  StepNoise noise = make_step_noise(NoiseSource::Brownian, StepNoiseKind::Cpu, 9, shape, sigmas);
  StepNoise other = make_step_noise(NoiseSource::Brownian, StepNoiseKind::Cpu, 9, shape, sigmas);
  at::Tensor sum = at::zeros(shape);
  for (std::size_t i = 0; i + 2 < sigmas.size(); ++i) {
    at::Tensor draw = noise(sigmas[i], sigmas[i + 1]);
    CHECK(deviation(draw) == doctest::Approx(1).epsilon(0.15));
    sum = sum + draw * std::sqrt(sigmas[i] - sigmas[i + 1]);
  }
  CHECK(at::allclose(sum, other(14.6, 0.1) * std::sqrt(14.5), 1e-4, 1e-4));
  CHECK(at::equal(other(3, 1), noise(3, 1)));
  // Many questions, so that increments leave memory and are drawn again.
  for (int i = 1; i < 200; ++i) noise(0.11 * i + 0.1, 0.1 * i);
  CHECK(at::equal(other(3, 1), noise(3, 1)));
  StepNoise philox = make_step_noise(NoiseSource::Brownian, StepNoiseKind::Philox, 9, shape, sigmas);
  CHECK(deviation(philox(3, 1)) == doctest::Approx(1).epsilon(0.15));
  CHECK_FALSE(at::allclose(philox(3, 1), noise(3, 1), 1e-3, 1e-3));
}

TEST_SUITE_END();
