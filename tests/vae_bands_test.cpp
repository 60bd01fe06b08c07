#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <atomic>
#include <future>
#include <random>

#include "core/exchange.h"
#include "tests/testing.h"
#include "tests/vae_ranks.h"
#include "vae/band_work.h"

using namespace mgpu;

TEST_SUITE_BEGIN("vae_bands");

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
  const Bands bands(37, 20, 64, kSmallBands);
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
    const auto decoder = coders<Decoder>(name, 1);
    const at::Tensor z = noise({1, decoder[0].sizes().latent_channels, 11, 9});
    CHECK(relative_l2(decode_in_bands(decoder, Team::alone(), z, kSmallBands), decoder[0].forward(z)) <= 2e-6);
  }
}

TEST_CASE("a decode has the same bits on 1 to 8 devices") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto decoders = coders<Decoder>(name, 8);
    for (const std::int64_t rows : {1, 2, 11, 16}) {
      const at::Tensor z = noise({1, decoders[0].sizes().latent_channels, rows, 9});
      const at::Tensor alone = decode_in_bands(std::span(decoders).first(1), Team::alone(), z, kSmallBands);
      for (std::size_t devices = 1; devices <= 8; ++devices) {
        CAPTURE(devices);
        std::vector<double> speeds;
        for (std::size_t i = 0; i < devices; ++i) speeds.push_back(i % 3 == 1 ? 0.4 : 1.0);
        CHECK(at::equal(decode_in_bands(std::span(decoders).first(devices), threads(speeds), z, kSmallBands), alone));
      }
    }
  }
}

TEST_CASE("an encode has the same bits on 1 to 5 devices") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto encoders = coders<Encoder>(name, 5);
    const std::int64_t factor = encoders[0].sizes().factor();
    const at::Tensor image = noise({1, 3, 13 * factor, 7 * factor}).clamp(-1, 1);
    const LatentDistribution alone = encode_in_bands(std::span(encoders).first(1), Team::alone(), image, kSmallBands);
    CHECK(relative_l2(alone.mean, encoders[0].forward(image).mean) <= 2e-6);
    for (std::size_t devices = 2; devices <= 5; ++devices) {
      const LatentDistribution together = encode_in_bands(
          std::span(encoders).first(devices), threads(std::vector<double>(devices, 1.0)), image, kSmallBands);
      CHECK(at::equal(together.mean, alone.mean));
      CHECK(at::equal(together.logvar, alone.logvar));
    }
  }
}

TEST_CASE("a device that fails at any exchange ends the decode for all, with its own failure") {
  const auto decoders = coders<Decoder>("vae_flux", 3);
  const at::Tensor z = noise({1, 16, 12, 9});
  const Team team = threads({1, 1, 1});
  CHECK(exchanges_that_end([&] { decode_in_bands(decoders, team, z, kSmallBands); }) > 60);
}

TEST_CASE("a device that cannot take its rows ends the work for those that wait for it") {
  const auto decoders = coders<Decoder>("vae_flux", 2);
  const at::Tensor z = noise({1, 16, 12, 9}), lost = noise({1, 16, 2, 9});  // without the second device's rows
  const Team team = threads({1, 1});
  JointWork together;
  BandWork work(bands_of(decoders[0], z, kSmallBands), team, together);
  std::atomic<int> broken = 0;
  const auto part = [&](std::size_t device) {
    try {
      work.run(device, decoders[device].steps(), work.rows(device, device == 0 ? z : lost, at::kCPU, at::kFloat));
    } catch (const JointWork::Broken&) {
      ++broken;
      throw;
    }
  };
  CHECK_THROWS_AS(team.run(together, 2, part), c10::Error);
  CHECK(broken == 1);
}

TEST_CASE("who comes to an exchange after another has failed is told so") {
  JointWork together;
  Exchange exchange(2, together);
  auto waiting = std::async(std::launch::async, [&] { exchange.show(0, {at::zeros({1})}); });
  together.fail(std::make_exception_ptr(std::runtime_error("lost")));
  CHECK_THROWS_AS(waiting.get(), JointWork::Broken);
  CHECK_THROWS_AS(exchange.show(0, {at::zeros({1})}), JointWork::Broken);
}

TEST_SUITE_END();
