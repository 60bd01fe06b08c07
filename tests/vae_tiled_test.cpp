#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <random>

#include "core/part_shapes.h"
#include "tests/testing.h"
#include "tests/vae_ranks.h"
#include "vae/tiled.h"
#include "vae/vae_sizes.h"

using namespace mgpu;

TEST_SUITE_BEGIN("vae_tiled");

namespace {

const Tiling kSmallTiles{.tile = 128, .overlap = 40, .levels = 2};

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace

TEST_CASE("tiles cover a side, evenly spread, sharing at least the overlap with their neighbours alone") {
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    const std::int64_t tile = 3 + random() % 60, overlap = random() % (tile / 3 + 1), side = 1 + random() % 500;
    CAPTURE(tile);
    CAPTURE(overlap);
    CAPTURE(side);
    const std::vector<RowRange> tiles = cut_into_tiles(side, tile, overlap);
    CHECK(tiles.front().first == 0);
    CHECK(tiles.back().last == side);
    at::Tensor sum = at::zeros({side});
    for (std::size_t k = 0; k < tiles.size(); ++k) {
      CHECK(tiles[k].size() == tiles[0].size());
      CHECK(tiles[k].size() <= tile);
      if (k > 0) CHECK(tiles[k - 1].last - tiles[k].first >= overlap);
      if (k > 1) CHECK(tiles[k - 2].last <= tiles[k].first);
      if (overlap == 0) continue;
      sum.narrow(0, tiles[k].first, tiles[k].size()) += feather(tiles, k, (overlap - 1) / 2);
    }
    if (overlap > 0) CHECK(largest_difference(sum, at::ones({side})) < 1e-6);
  }
}

TEST_CASE("neighbours share what their edges reach and a ramp, as far as the overlap allows") {
  CHECK(edge_reach(1, 3) == 8);
  CHECK(edge_reach(2, 3) == 22);
  CHECK(edge_reach(3, 3) == 50);
  CHECK(shared_pixels({.tile = 1024, .overlap = 128, .levels = 2}, 3) == 52);
  CHECK(shared_pixels({.tile = 1024, .overlap = 128, .levels = 3}, 3) == 112);
  CHECK(shared_pixels({.tile = 1024, .overlap = 48, .levels = 2}, 3) == 48);
}

TEST_CASE("what a cut has reached counts for nothing") {
  const std::vector<RowRange> tiles = cut_into_tiles(200, 80, 20);
  REQUIRE((tiles == std::vector<RowRange>{{0, 80}, {60, 140}, {120, 200}}));
  const at::Tensor weights = feather(tiles, 1, 8);
  CHECK(weights.narrow(0, 0, 8).eq(0).all().item<bool>());
  CHECK(weights.narrow(0, 72, 8).eq(0).all().item<bool>());
  CHECK(weights[40].item<float>() == 1);
}

TEST_CASE("a tiled decode is about the whole one, across the tiles' borders as elsewhere") {
  for (const char* name : {"vae_flux", "vae_sd"}) {
    const auto decoder = coders<Decoder>(name, 1);
    const bool is_flux = std::string_view(name) == "vae_flux";
    const std::int64_t factor = decoder[0].sizes().factor();
    const Tiling tiling{.tile = 160, .overlap = 52, .levels = is_flux ? 2 : 1};
    const at::Tensor z = noise({1, decoder[0].sizes().latent_channels, 328 / factor, 272 / factor});
    const at::Tensor whole = decoder[0].forward(z);
    const at::Tensor tiled = decode_in_tiles(decoder, Team::alone(), z, tiling);
    REQUIRE(tiled.sizes() == whole.sizes());
    const double error = relative_l2(tiled, whole);
    MESSAGE(name, ": relative L2 against the whole decode ", error);
    CHECK(error <= 0.1);
    // Of each row and column: where tiles meet it is no worse.
    const at::Tensor squares = (tiled - whole).square().mean(at::IntArrayRef{0, 1});
    for (const int dim : {0, 1}) {
      const at::Tensor lines = squares.mean(dim).sqrt();
      CHECK(lines.max().item<double>() <= 3 * lines.mean().item<double>());
    }
  }
}

TEST_CASE("the demo model's pictures have no seams where tiles meet") {
  const auto file = TensorFile::open(MGPU_SOURCE "/presets/demo/ae.safetensors");
  PartShapes shapes(*file, "");
  const VaeSizes sizes = read_vae_sizes(shapes);
  const Weights weights(file, "", at::kFloat, at::kCPU);
  // A bright disc on a slope: flat regions, where a seam would show, and an edge.
  const at::Tensor side = at::linspace(-1, 1, 448);
  const at::Tensor x = side.unsqueeze(0).expand({448, 448}), y = side.unsqueeze(1).expand({448, 448});
  const at::Tensor disc = ((x.square() + y.square()).sqrt() < 0.6).to(at::kFloat);
  const at::Tensor picture = at::stack({x * 0.5 + disc * 0.4, y * 0.5, disc - 0.5}).unsqueeze(0).clamp(-1, 1);
  const std::vector<Decoder> decoder{Decoder(sizes, weights)};
  const at::Tensor z = Encoder(sizes, weights).forward(picture).mean;
  const Tiling tiling{.tile = 192, .overlap = 64, .levels = 2};
  const at::Tensor tiled = decode_in_tiles(decoder, Team::alone(), z, tiling), whole = decoder[0].forward(z);
  CHECK(relative_l2(tiled, whole) <= 0.05);
  // What tiles add to the step from each row, or column, to the next: where they meet no more than elsewhere.
  const std::int64_t shared = shared_pixels(tiling, sizes.residual_blocks + 1);
  const std::vector<RowRange> tiles = cut_into_tiles(448 / 4, tiling.tile / 4, shared / 4);
  REQUIRE(tiles.size() > 2);
  at::Tensor meet = at::zeros({447}, at::kBool);
  for (std::size_t i = 1; i < tiles.size(); ++i)
    meet.narrow(0, 4 * tiles[i].first, 4 * (tiles[i - 1].last - tiles[i].first)).fill_(true);
  for (const int dim : {2, 3}) {
    const at::Tensor steps = (tiled - whole).diff(1, dim).abs().mean(at::IntArrayRef{0, 1, dim == 2 ? 3 : 2});
    const at::Tensor there = steps.masked_select(meet), elsewhere = steps.masked_select(meet.logical_not());
    CHECK(there.mean().item<double>() <= 1.25 * elsewhere.mean().item<double>());
    CHECK(there.max().item<double>() <= 1.25 * elsewhere.max().item<double>());
  }
}

TEST_CASE("a tiled decode has the same bits on 1 to 5 devices") {
  const auto decoders = coders<Decoder>("vae_flux", 5);
  const at::Tensor z = noise({1, 16, 24, 30});
  const at::Tensor alone = decode_in_tiles(std::span(decoders).first(1), Team::alone(), z, kSmallTiles, kSmallBands);
  for (std::size_t devices = 2; devices <= 5; ++devices) {
    std::vector<double> speeds(devices, 1.0);
    speeds[1] = 0.3;
    CHECK(at::equal(decode_in_tiles(std::span(decoders).first(devices), threads(speeds), z, kSmallTiles, kSmallBands),
                    alone));
  }
}

TEST_CASE("low and narrow pictures are tiled too; what is no larger than a tile is decoded whole") {
  const auto decoder = coders<Decoder>("vae_flux", 1);
  for (const auto& [rows, columns] : {std::pair<int, int>{1, 40}, {3, 50}, {40, 1}, {17, 16}}) {
    const at::Tensor z = noise({1, 16, rows, columns});
    const at::Tensor tiled = decode_in_tiles(decoder, Team::alone(), z, kSmallTiles);
    CHECK(tiled.sizes() == at::IntArrayRef({1, 3, 8 * rows, 8 * columns}));
    CHECK(tiled.isfinite().all().item<bool>());
  }
  const at::Tensor small = noise({1, 16, 16, 16});
  CHECK(at::equal(decode_in_tiles(decoder, Team::alone(), small, kSmallTiles), decoder[0].forward(small)));
}

TEST_CASE("a device that fails at any exchange ends a tiled decode for all") {
  const auto decoders = coders<Decoder>("vae_flux", 2);
  const at::Tensor z = noise({1, 16, 24, 20});
  const Team team = threads({1, 1});
  const auto decode = [&] { decode_in_tiles(decoders, team, z, kSmallTiles, kSmallBands); };
  CHECK(exchanges_that_end(decode) > 20);
}

TEST_SUITE_END();
