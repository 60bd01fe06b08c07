#include "core/joint_work.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "core/exchange.h"
#include "core/fault_point.h"
#include "core/host_memory.h"
#include "tests/vae_ranks.h"
#include "tests/watchdog.h"
#include "vae/slabs.h"
#include "vae/tiled.h"

// Work of several ranks, of which one fails: at every place, allocations among them, the others end with it and the
// caller is told its failure.

using namespace mgpu;

namespace {

constexpr std::size_t kMostRanks = 4;

thread_local std::size_t current_rank = kMostRanks;  // none

/// Counts each rank's calls that may throw, and fails one of them, while it lives.
class RankFaults {
 public:
  enum class At : std::uint8_t { Point, Allocation };
  struct Fault {
    At at = At::Point;
    std::size_t rank = kMostRanks;
    int number = -1;
  };

  explicit RankFaults(const Fault& fault) {
    fault_hook = [this, fault](std::string_view) {
      if (counts(fault, At::Point, points_)) throw std::runtime_error("lost");
    };
    allocation_hook = [this, fault] {
      if (counts(fault, At::Allocation, allocations_)) throw HostOutOfMemory(DeviceId::cpu(), "lost");
    };
  }
  ~RankFaults() {
    fault_hook = nullptr;
    allocation_hook = nullptr;
  }
  RankFaults(const RankFaults&) = delete;
  RankFaults& operator=(const RankFaults&) = delete;

  int points(std::size_t rank) const { return points_.at(rank); }
  int allocations(std::size_t rank) const { return allocations_.at(rank); }

 private:
  using Counts = std::array<int, kMostRanks>;
  /// Each rank counts for itself, in its thread.
  static bool counts(const Fault& fault, At at, Counts& counts) {
    if (current_rank == kMostRanks) return false;
    const int number = counts[current_rank]++;
    return fault.at == at && fault.rank == current_rank && fault.number == number;
  }

  Counts points_{}, allocations_{};
};

/// Ranks that know their number.
Team ranks(std::size_t count) {
  const auto run = [](JointWork& together, std::size_t all, const std::function<void(std::size_t)>& work) {
    const auto begin = [](std::size_t rank, std::function<void()> part) {
      return std::async(std::launch::async, [rank, part = std::move(part)] {
        current_rank = rank;
        part();
      });
    };
    current_rank = 0;
    struct Back {
      ~Back() { current_rank = kMostRanks; }
    } back;
    together.run(all, begin, work);
  };
  return {std::vector<double>(count, 1.0), run};
}

/// What `work` throws: its text's first line.
std::string thrown_by(const std::function<void()>& work) {
  try {
    work();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing";
}

/// Fails the work at every point of every rank, and at allocations: at every one, or at about so many.
void check_every_failure(test::Watchdog& watchdog, const std::string& name, std::size_t count, int most_allocations,
                         const std::function<void(const Team&)>& work) {
  const Team team = ranks(count);
  std::array<int, kMostRanks> points{}, allocations{};
  {
    const RankFaults none(RankFaults::Fault{});
    work(team);
    for (std::size_t rank = 0; rank < count; ++rank) {
      points[rank] = none.points(rank);
      allocations[rank] = none.allocations(rank);
    }
  }
  const auto fail_at = [&](RankFaults::At at, std::size_t rank, int number) {
    const std::string place = fmt::format("{}, {} ranks, rank {} fails at {} {}", name, count, rank,
                                          at == RankFaults::At::Point ? "point" : "allocation", number);
    watchdog.sees(place);
    const RankFaults faults(RankFaults::Fault{at, rank, number});
    const std::string found = thrown_by([&] { work(team); });
    CHECK_MESSAGE(found == "lost", place);
  };
  for (std::size_t rank = 0; rank < count; ++rank) {
    REQUIRE(points[rank] > 0);
    for (int n = 0; n < points[rank]; ++n) fail_at(RankFaults::At::Point, rank, n);
    const int step = std::max(1, allocations[rank] / most_allocations);
    for (int n = 0; n < allocations[rank]; n += step) fail_at(RankFaults::At::Allocation, rank, n);
  }
  watchdog.sees(name + " works again");
  work(team);
}

}  // namespace

TEST_SUITE_BEGIN("joint_work");

TEST_CASE("the first failure is everyone's, wherever it comes from") {
  test::Watchdog watchdog("joint work");
  for (std::size_t bad = 0; bad < 3; ++bad) {
    for (const bool before : {true, false}) {
      JointWork together;
      Exchange exchange(3, together);
      std::atomic<int> passed = 0;
      const std::string found = thrown_by([&] {
        ranks(3).run(together, 3, [&](std::size_t rank) {
          if (rank == bad && before) throw std::runtime_error("lost");
          exchange.show(rank, {at::zeros({1})});
          ++passed;
          if (rank == bad) throw std::runtime_error("lost");
          exchange.show(rank, {at::zeros({1})});
          ++passed;
        });
      });
      CHECK(found == "lost");
      CHECK(passed == (before ? 0 : 3));
    }
  }
}

TEST_CASE("a rank that cannot begin ends the others, and what has begun is waited for") {
  test::Watchdog watchdog("a rank that cannot begin");
  for (std::size_t bad = 1; bad < 4; ++bad) {
    JointWork together;
    Exchange exchange(4, together);
    std::atomic<std::size_t> ended = 0;
    const auto begin = [&](std::size_t rank, std::function<void()> part) {
      if (rank == bad) throw std::runtime_error("no thread");
      return std::async(std::launch::async, [&ended, part = std::move(part)] {
        part();
        ++ended;
      });
    };
    CHECK(thrown_by([&] {
            together.run(4, begin, [&](std::size_t rank) { exchange.show(rank, {at::zeros({1})}); });
          }) == "no thread");
    CHECK(ended == bad - 1);
  }
}

TEST_CASE("a decode of which any rank fails anywhere ends for all: in bands, in slabs, in tiles") {
  test::Watchdog watchdog("a decode");
  const auto decoders = coders<Decoder>("vae_flux", kMostRanks);
  const at::Tensor z = noise({1, 16, 8, 6});
  const Tiling tiling{.tile = 32, .overlap = 10, .levels = 1};
  for (std::size_t count = 1; count <= kMostRanks; ++count) {
    const std::span<const Decoder> own = std::span(decoders).first(count);
    const int allocations = count == 2 ? 16 : 3;
    check_every_failure(watchdog, "a decode in bands", count, allocations,
                        [&](const Team& team) { decode_in_bands(own, team, z, kSmallBands); });
    for (const bool together : {false, true})
      check_every_failure(
          watchdog, together ? "a decode in slabs together" : "a decode in slabs", count, allocations,
          [&](const Team& team) { decode_in_slabs(own, team, z, Slabs{.together = together}, kSmallBands); });
    check_every_failure(watchdog, "a decode in tiles", count, allocations,
                        [&](const Team& team) { decode_in_tiles(own, team, z, tiling, kSmallBands); });
  }
}

TEST_CASE("an encode of which any rank fails anywhere ends for all: in bands, in slabs") {
  test::Watchdog watchdog("an encode");
  const auto encoders = coders<Encoder>("vae_flux", kMostRanks);
  const at::Tensor image = noise({1, 3, 64, 48}).clamp(-1, 1);
  for (std::size_t count = 1; count <= kMostRanks; ++count) {
    const std::span<const Encoder> own = std::span(encoders).first(count);
    const int allocations = count == 2 ? 16 : 3;
    check_every_failure(watchdog, "an encode in bands", count, allocations,
                        [&](const Team& team) { encode_in_bands(own, team, image, kSmallBands); });
    check_every_failure(watchdog, "an encode in slabs", count, allocations,
                        [&](const Team& team) { encode_in_slabs(own, team, image, {}, kSmallBands); });
  }
}

TEST_SUITE_END();
