#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <atomic>
#include <future>
#include <random>

#include "core/exchange.h"
#include "core/family_sizes.h"
#include "core/fault_point.h"
#include "tests/testing.h"
#include "vae/team.h"

using namespace mgpu;

TEST_SUITE_BEGIN("vae_bands");

namespace {

/// So little at once that small pictures have many units and strips.
const BandRules kSmall{.unit_values = 1 << 10, .strip_values = 1 << 12, .score_values = 1 << 11};

Weights weights_of(const std::string& name) {
  return Weights(TensorFile::open(golden(name + ".safetensors")), name == "vae_sd" ? "first_stage_model" : "",
                 at::kFloat, at::kCPU);
}

/// So many devices, each a thread.
Team threads(std::vector<double> speeds) {
  const auto run = [](std::size_t ranks, const std::function<void(std::size_t)>& work) {
    std::vector<std::future<void>> all;
    for (std::size_t rank = 0; rank < ranks; ++rank) all.push_back(std::async(std::launch::async, work, rank));
    finish(all);
  };
  return {std::move(speeds), run};
}

at::Tensor noise(at::IntArrayRef shape) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  return at::randn(shape, generator);
}

template <class Coder>
std::vector<Coder> copies(const std::string& name, std::size_t count) {
  const Weights weights = weights_of(name);
  const VaeSizes sizes = std::get<VaeSizes>(read_vae_sizes(weights.file(), weights.prefix()));
  std::vector<Coder> out;
  for (std::size_t i = 0; i < count; ++i) out.emplace_back(sizes, weights);
  return out;
}

}  // namespace

TEST_CASE("units and strips cover an image once, in order, whatever its size") {
  std::mt19937 random(1);
  const auto draw = [&](int most) { return 1 + static_cast<std::int64_t>(random() % static_cast<unsigned>(most)); };
  for (int i = 0; i < 500; ++i) {
    const std::int64_t rows = draw(70), width = draw(70), scale = std::int64_t{1} << draw(4), channels = 32 * draw(16);
    const BandRules rules{.unit_values = draw(1 << 17), .strip_values = draw(1 << 17), .score_values = draw(1 << 20)};
    const Bands bands(rows, width, channels, rules);
    const auto covers = [](const std::vector<RowRange>& parts, std::int64_t all) {
      std::int64_t next = 0;
      for (const RowRange& part : parts) {
        REQUIRE(part.first == next);
        REQUIRE(part.size() > 0);
        next = part.last;
      }
      REQUIRE(next == all);
    };
    covers(bands.strips(bands.all(), width * scale, channels), rows * scale);
    covers(bands.query_pieces(bands.all()), rows * width);
    for (const RowRange& strip : bands.strips(bands.all(), width * scale, channels))
      CHECK((strip.size() == 1 || strip.size() * width * scale * channels <= rules.strip_values));
  }
}

TEST_CASE("a unit's strips are the same on any device") {
  const Bands bands(37, 20, 64, kSmall);
  REQUIRE(bands.units() > 8);
  std::vector<RowRange> joined;
  for (std::int64_t unit = 0; unit < bands.units(); ++unit)
    for (const RowRange& strip : bands.strips({unit, unit + 1}, 80, 32)) joined.push_back(strip);
  CHECK((joined == bands.strips(bands.all(), 80, 32)));
}

TEST_CASE("units are dealt by speed") {
  const auto deal = [](std::int64_t units, const std::vector<double>& speeds) {
    std::vector<std::int64_t> out;
    for (const RowRange& share : deal_units(units, speeds)) out.push_back(share.size());
    return out;
  };
  CHECK((deal(8, {1.0}) == std::vector<std::int64_t>{8}));
  CHECK((deal(8, {1.0, 1.0}) == std::vector<std::int64_t>{4, 4}));
  CHECK((deal(9, {1.0, 0.5}) == std::vector<std::int64_t>{6, 3}));
  CHECK((deal(1, {1.0, 1.0, 1.0}) == std::vector<std::int64_t>{0, 1, 0}));
  CHECK((deal(3, {1.0, 0.001, 1.0}) == std::vector<std::int64_t>{1, 1, 1}));
}

TEST_CASE("a decode in many units and strips is that in one") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto decoder = copies<Decoder>(name, 1);
    const at::Tensor z = noise({1, decoder[0].sizes().latent_channels, 11, 9});
    CHECK(relative_l2(decode_in_bands(decoder, Team::alone(), z, kSmall), decoder[0].forward(z)) <= 2e-6);
  }
}

TEST_CASE("a decode has the same bits on 1 to 8 devices") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto decoders = copies<Decoder>(name, 8);
    for (const std::int64_t rows : {1, 2, 11, 16}) {
      const at::Tensor z = noise({1, decoders[0].sizes().latent_channels, rows, 9});
      const at::Tensor alone = decode_in_bands(std::span(decoders).first(1), Team::alone(), z, kSmall);
      for (std::size_t devices = 1; devices <= 8; ++devices) {
        CAPTURE(devices);
        std::vector<double> speeds;
        for (std::size_t i = 0; i < devices; ++i) speeds.push_back(i % 3 == 1 ? 0.4 : 1.0);
        CHECK(at::equal(decode_in_bands(std::span(decoders).first(devices), threads(speeds), z, kSmall), alone));
      }
    }
  }
}

TEST_CASE("an encode has the same bits on 1 to 5 devices") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto encoders = copies<Encoder>(name, 5);
    const std::int64_t factor = encoders[0].sizes().factor();
    const at::Tensor image = noise({1, 3, 13 * factor, 7 * factor}).clamp(-1, 1);
    const LatentDistribution alone = encode_in_bands(std::span(encoders).first(1), Team::alone(), image, kSmall);
    CHECK(relative_l2(alone.mean, encoders[0].forward(image).mean) <= 2e-6);
    for (std::size_t devices = 2; devices <= 5; ++devices) {
      const LatentDistribution together = encode_in_bands(
          std::span(encoders).first(devices), threads(std::vector<double>(devices, 1.0)), image, kSmall);
      CHECK(at::equal(together.mean, alone.mean));
      CHECK(at::equal(together.logvar, alone.logvar));
    }
  }
}

TEST_CASE("a device that fails at any exchange ends the decode for all, with its own failure") {
  const auto decoders = copies<Decoder>("vae_flux", 3);
  const at::Tensor z = noise({1, 16, 12, 9});
  std::atomic<int> exchanges = 0;
  int bad = -1;
  fault_hook = [&](std::string_view) {
    if (exchanges++ == bad) throw std::runtime_error("lost");
  };
  decode_in_bands(decoders, threads({1, 1, 1}), z, kSmall);
  const int all = exchanges;
  CHECK(all > 60);
  for (bad = 0; bad < all; bad += 5) {
    exchanges = 0;
    CHECK_THROWS_WITH_AS(decode_in_bands(decoders, threads({1, 1, 1}), z, kSmall), "lost", std::runtime_error);
  }
  fault_hook = nullptr;
}

TEST_CASE("who comes to an exchange that another has left is told so") {
  Exchange exchange(2);
  auto waiting = std::async(std::launch::async, [&] { exchange.show(0, {at::zeros({1})}); });
  exchange.leave();
  CHECK_THROWS_AS(waiting.get(), Exchange::Broken);
  CHECK_THROWS_AS(exchange.show(0, {at::zeros({1})}), Exchange::Broken);
}

TEST_SUITE_END();
