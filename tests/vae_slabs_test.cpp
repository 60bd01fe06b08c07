#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/slab_layout.h"
#include "tests/testing.h"
#include "tests/vae_ranks.h"
#include "vae/slabs.h"

using namespace mgpu;

TEST_SUITE_BEGIN("vae_slabs");

TEST_CASE("slabs cover the units once, in order; the margin is what convolutions reach") {
  for (std::int64_t first = 0; first < 5; ++first) {
    for (std::int64_t last = first; last < 30; ++last) {
      std::int64_t next = first;
      for (const RowRange& slab : Slabs::cut({first, last})) {
        CHECK(slab.first == next);
        CHECK((slab.size() > 0 && slab.size() <= Slabs::kUnits));
        next = slab.last;
      }
      CHECK(next == last);
    }
  }
  // An enlargement's convolution, six of residual blocks, the head's.
  CHECK(slab_reach(1, 3) == 10);
  CHECK(Slabs::margin(slab_reach(1, 3), 10) == 1);
  CHECK(Slabs::margin(slab_reach(1, 3), 9) == 2);
}

TEST_CASE("a decode in slabs has the bits of one in bands, on 1 to 5 devices, whatever the size") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto decoders = coders<Decoder>(name, 5);
    for (const std::int64_t rows : {1, 3, 17}) {
      const at::Tensor z = noise({1, decoders[0].sizes().latent_channels, rows, 9});
      const at::Tensor bands = decode_in_bands(std::span(decoders).first(1), Team::alone(), z, kSmallBands);
      for (const int levels : {1, 2, 3}) {
        if (levels >= static_cast<int>(decoders[0].sizes().channels.size())) continue;
        for (const bool together : {false, true}) {
          CAPTURE(levels);
          CAPTURE(together);
          const Slabs slabs{.levels = levels, .together = together};
          for (const std::size_t devices : {1, 2, 5}) {
            std::vector<double> speeds;
            for (std::size_t i = 0; i < devices; ++i) speeds.push_back(i % 3 == 0 ? 0.2 : 1.0);
            CHECK(at::equal(decode_in_slabs(std::span(decoders).first(devices), threads(speeds), z, slabs, kSmallBands),
                            bands));
          }
        }
      }
    }
  }
}

TEST_CASE("an encode in slabs has the bits of one in bands, on 1 to 4 devices") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto encoders = coders<Encoder>(name, 4);
    const std::int64_t factor = encoders[0].sizes().factor();
    for (const std::int64_t rows : {1, 15}) {
      const at::Tensor image = noise({1, 3, rows * factor, 7 * factor}).clamp(-1, 1);
      const LatentDistribution bands = encode_in_bands(std::span(encoders).first(1), Team::alone(), image, kSmallBands);
      for (const int levels : {1, 2, 3}) {
        if (levels >= static_cast<int>(encoders[0].sizes().channels.size())) continue;
        CAPTURE(levels);
        for (const std::size_t devices : {1, 2, 4}) {
          const LatentDistribution slabs =
              encode_in_slabs(std::span(encoders).first(devices), threads(std::vector<double>(devices, 1.0)), image,
                              {.levels = levels, .together = devices > 1}, kSmallBands);
          CHECK(at::equal(slabs.mean, bands.mean));
          CHECK(at::equal(slabs.logvar, bands.logvar));
        }
      }
    }
  }
}

TEST_CASE("a device that fails at any exchange ends the work in slabs for all, with its own failure") {
  const auto decoders = coders<Decoder>("vae_flux", 3);
  const auto encoders = coders<Encoder>("vae_flux", 2);
  const at::Tensor z = noise({1, 16, 12, 9}), image = noise({1, 3, 12 * 8, 72}).clamp(-1, 1);
  CHECK(exchanges_that_end([&] { decode_in_slabs(decoders, threads({1, 1, 1}), z, {}, kSmallBands); }) > 60);
  CHECK(exchanges_that_end([&] { encode_in_slabs(encoders, threads({1, 1}), image, {}, kSmallBands); }) > 30);
}

TEST_SUITE_END();
