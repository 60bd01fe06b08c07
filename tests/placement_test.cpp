#include <doctest/doctest.h>

#include "shard/make_plan.h"
#include "shard/plan.h"
#include "tests/plan_cases.h"

using namespace mgpu;
using namespace mgpu::test;

TEST_SUITE_BEGIN("placement");

namespace {

/// The diffusion model's ranges under an allocation string.
std::string placed(const char* allocation, const std::vector<DeviceRoom>& devices) {
  return ranges_of(make_plan(components(), devices, {.allocation = {{"unet", parse_allocation(allocation)}}}), "unet");
}

}  // namespace

TEST_CASE("percentages are normalised, and * takes the rest") {
  const std::vector<DeviceRoom> three = rooms({49152 * kMiB, 49152 * kMiB, 49152 * kMiB});
  CHECK(placed("cuda:0,40%;cuda:1,40%;cuda:2,20%", three) == placed("cuda:0,8%;cuda:1,8%;cuda:2,4%", three));
  CHECK(placed("cuda:0,40%;cuda:1,40%;cuda:2,20%", three) == placed("cuda:0,40%;cuda:1,40%;cuda:2,*", three));
  CHECK(placed("cuda:0,40%;cuda:1,40%;cuda:2,20%", three) ==
        "cuda:0 double 0-12, cuda:1 double 13-18, cuda:1 single 0-20, cuda:2 single 21-37");
  // The string's order is the blocks' order.
  CHECK(placed("cuda:2,50%;cuda:0,50%", three) == "cuda:0 double 17-18, cuda:0 single 0-37, cuda:2 double 0-16");
  CHECK(placed("cuda:1,7%", three) == "cuda:1 double 0-18, cuda:1 single 0-37");
  CHECK(placed("#cuda:1", three) == "cuda:1 double 0-18, cuda:1 single 0-37");
  CHECK(placed("cuda:1,*#cuda:1", three) == "cuda:1 double 0-18, cuda:1 single 0-37");
  CHECK(placed("#cuda:1;4;cuda:1", three) == "cuda:1 double 0-18, cuda:1 single 0-37");
}

TEST_CASE("bytes and fractions are capacities") {
  const std::vector<DeviceRoom> three = rooms({49152 * kMiB, 49152 * kMiB, 49152 * kMiB});
  // The stem, 500 MiB, lies with the first block; a double block has 631.6 MiB, a single one 263.2.
  CHECK(placed("cuda:0,4gb;cuda:1,*", three) == "cuda:0 double 0-4, cuda:1 double 5-18, cuda:1 single 0-37");
  CHECK(placed("cuda:0,*;cuda:1,4gb", three) == "cuda:0 double 0-18, cuda:0 single 0-22, cuda:1 single 23-37");
  CHECK(placed("cuda:0,0.05;cuda:1,*", three) == placed("cuda:0,4096mb;cuda:1,*", three));  // of 80 GiB in all
  CHECK(placed("cuda:0,2gb;cuda:1,*;cuda:2,2gb", three) ==
        "cuda:0 double 0-1, cuda:1 double 2-18, cuda:1 single 0-30, cuda:2 single 31-37");
  CHECK(placed("cuda:0,30gb;cuda:1,5gb", three) == "cuda:0 double 0-18, cuda:0 single 0-37");  // surplus unused
  CHECK(placed("cuda:0,*;cuda:1,*", three) == placed("cuda:0,50%;cuda:1,50%", three));         // by free memory
  // 22500 MiB: 22400 leave less than 1 %, which the last takes.
  CHECK(placed("cuda:0,12000mb;cuda:1,10700mb", three) ==
        "cuda:0 double 0-17, cuda:1 double 18-18, cuda:1 single 0-37");
}

TEST_CASE("allocations that cannot be, and at which column") {
  const std::vector<DeviceRoom> two = rooms({49152 * kMiB, 49152 * kMiB});
  const auto fault = [&](const char* text, const char* component = "unet") {
    try {
      make_plan(components(), two,
                {.allocation = {{component, parse_allocation(text)}}, .donors = {main_memory(65536 * kMiB)}});
    } catch (const PlacementError& e) {
      CHECK(e.component() == component);
      return std::to_string(e.column()) + ": " + e.what() + " | " + e.hint();
    }
    return std::string("no error");
  };
  const std::string there = " | the job computes on cuda:0, cuda:1; any other device that is there may lend memory";
  CHECK(fault("cuda:0,60%;cuda:7,40%") == "11: cuda:7 is not on this machine" + there);
  CHECK(fault("#cuda:0;4;cuda:2") == "1: cuda:2 is not on this machine" + there);
  CHECK(fault("cpu,40%") == "0: no device of this allocation computes | name one of cuda:0, cuda:1");
  CHECK(fault("#cpu") ==
        "1: cpu does not compute in this job | its devices are cuda:0, cuda:1: \"gpu_ids\" names them");
  CHECK(fault("cuda:0,100mb;cuda:1,*") ==
        "7: no block of the unet fits into what cuda:0 is given | give it more, or leave it out");
  CHECK(fault("cuda:0,*;cuda:1,100mb") ==
        "16: no block of the unet fits into what cuda:1 is given | give it more, or leave it out");
  CHECK(fault("cuda:0,0.1%;cuda:1,99.9%", "t5xxl") ==
        "7: no block of the t5xxl fits into what cuda:0 is given | give it more, or leave it out");
  CHECK(fault("cuda:0,10gb;cuda:1,4gb") ==
        "19: the allocation holds 13.5 GB of the unet's 22.0 GB | 8.5 GB are left: add them, or write * for the rest");
  CHECK(fault("cuda:0,50%;cuda:1,50%", "vae") == "11: the vae lies on one device | name the one device");
}

TEST_CASE("a component goes where it is told, the others where it is best") {
  const std::vector<DeviceRoom> two = rooms({49152 * kMiB, 49152 * kMiB});
  const Plan plan =
      make_plan(components(), two,
                {.allocation = {{"vae", parse_allocation("#cuda:1")}, {"t5xxl", parse_allocation("cuda:1,*")}}});
  CHECK(plan.mode == "shard");
  CHECK(plan.mode_reason == "as the allocation says");
  CHECK(ranges_of(plan, "vae") == "cuda:1 level 0-3");
  CHECK(ranges_of(plan, "t5xxl") == "cuda:1 layer 0-23");
  CHECK(ranges_of(plan, "clip_l") == "cuda:0 layer 0-11");
  PlacementRequest request{.mode = PlacementRequest::Mode::Single,
                           .allocation = {{"vae", parse_allocation("#cuda:1")}}};
  CHECK(ranges_of(make_plan(components(), two, request), "unet") == "cuda:1 double 0-18, cuda:1 single 0-37");
  request.allocation["unet"] = parse_allocation("#cuda:0");
  CHECK_THROWS_WITH_AS(make_plan(components(), two, request),
                       "\"mode: single\" keeps everything on one device, and the allocation spreads it",
                       PlacementError);
}

TEST_SUITE_END();
