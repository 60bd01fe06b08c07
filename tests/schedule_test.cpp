#include "samplers/schedule.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "samplers/beta_quantile.h"

using namespace mgpu;

namespace {

nlohmann::json golden_schedules() {
  return nlohmann::json::parse(std::ifstream(MGPU_GOLDENS "/samplers_schedules.json"));
}

SigmaTable table_of(const std::string& model) {
  if (model == "flux_dev") return flux_dev_sigmas();
  if (model == "flux_dev_512x768") return flux_dev_sigmas(flux_mu(0.5, 1.15, 512, 768));
  if (model == "flux_schnell") return flux_schnell_sigmas();
  if (model == "stable_diffusion") return stable_diffusion_sigmas();
  REQUIRE(model == "zero_terminal");
  return zero_terminal_sigmas();
}

}  // namespace

TEST_SUITE_BEGIN("schedule");

TEST_CASE("every schedule on every table equals ComfyUI's") {
  std::map<std::string, SigmaTable> tables;
  std::map<std::string_view, int> seen;
  const nlohmann::json cases = golden_schedules().at("schedules");
  for (const auto& c : cases) {
    const std::string model = c.at("model"), name = c.at("scheduler");
    const int steps = c.at("steps");
    INFO(fmt::format("{} {} {} {}", model, name, steps, c.at("denoise").get<double>()));
    if (!tables.contains(model)) tables[model] = table_of(model);
    const ScheduleRow* row = find_schedule(name);
    REQUIRE(row);
    ++seen[row->name];
    std::vector<double> sigmas = make_sigmas(*row, tables[model], steps, c.at("denoise"), c.at("extra_step"));
    const auto expected = c.at("sigmas").get<std::vector<double>>();
    REQUIRE(sigmas.size() == expected.size());
    double worst = 0;
    for (std::size_t i = 0; i < sigmas.size(); ++i)
      worst = std::max(worst, std::abs(sigmas[i] - expected[i]) / std::max(1.0, expected[i]));
    CHECK(worst <= 1e-6);
  }
  for (const ScheduleRow& row : schedules()) CHECK_MESSAGE(seen[row.name] > 50, row.name);
}

TEST_CASE("tables hold the published ends") {
  SigmaTable dev = flux_dev_sigmas();
  CHECK(dev.sigmas.size() == 10000);
  CHECK(dev.sigma_max() == 1);
  CHECK(dev.sigma_min() == doctest::Approx(3.157e-4).epsilon(1e-3));
  CHECK(flux_schnell_sigmas().sigma(0.5) == 0.5);
  CHECK(flux_mu(0.5, 1.15, 1024, 1024) == doctest::Approx(1.15));
  CHECK(flux_mu(0.5, 1.15, 256, 256) == doctest::Approx(0.5));
  SigmaTable sd = stable_diffusion_sigmas();
  CHECK(sd.sigma_max() == doctest::Approx(14.61464).epsilon(1e-6));
  CHECK(sd.sigma_min() == doctest::Approx(0.0291675).epsilon(1e-5));
  SigmaTable zero = zero_terminal_sigmas();
  CHECK(zero.sigma_max() == doctest::Approx(4518.75).epsilon(1e-5));
  CHECK(zero.sigma_min() == doctest::Approx(sd.sigma_min()).epsilon(1e-6));
  CHECK(zero.timestep(zero.sigma_max()) == 999);
}

TEST_CASE("timesteps and noise levels are each other's inverse") {
  SigmaTable sd = stable_diffusion_sigmas();
  for (int t : {0, 1, 500, 998, 999}) CHECK(sd.timestep(sd.sigma(t)) == t);
  CHECK(sd.timestep(std::sqrt(sd.sigmas[10] * sd.sigmas[11]) * 1.0001) == 11);
  CHECK(sd.timestep(1e9) == 999);
  SigmaTable dev = flux_dev_sigmas();
  CHECK(dev.timestep(0.25) == 0.25);
  CHECK(dev.percent_to_sigma(0) == 1);
  CHECK(dev.percent_to_sigma(1) == 0);
  CHECK(dev.percent_to_sigma(0.5) == doctest::Approx(std::exp(1.15) / (std::exp(1.15) + 1)));
  CHECK(sd.percent_to_sigma(0.25) == doctest::Approx(sd.sigma(749.25)));
  CHECK(sd.percent_to_sigma(0) > sd.sigma_max());
}

TEST_CASE("any count of steps descends to zero") {
  for (const SigmaTable& table :
       {flux_dev_sigmas(), flux_schnell_sigmas(), stable_diffusion_sigmas(), zero_terminal_sigmas()})
    for (const ScheduleRow& row : schedules())
      for (int steps : {1, 2, 3, 7, 250, 1000, 1500}) {
        INFO(fmt::format("{} {} {}", row.name, steps, table.sigmas.size()));
        for (bool extra_step : {false, true}) {
          std::vector<double> sigmas = make_sigmas(row, table, steps, 1, extra_step);
          REQUIRE(sigmas.size() >= 2);
          CHECK(sigmas.back() == 0);
          CHECK(std::ranges::is_sorted(sigmas, std::greater{}));
          CHECK(std::ranges::all_of(sigmas, [](double s) { return std::isfinite(s) && s == static_cast<float>(s); }));
        }
      }
}

TEST_CASE("a lower denoise runs the end of a longer schedule") {
  SigmaTable table = flux_dev_sigmas();
  const ScheduleRow& simple = *find_schedule("simple");
  std::vector<double> whole = make_sigmas(simple, table, 40, 1, false),
                      half = make_sigmas(simple, table, 20, 0.5, false);
  CHECK(half == std::vector<double>(whole.end() - 21, whole.end()));
  CHECK(make_sigmas(simple, table, 20, 0.99995, false).front() == 1);
  CHECK(make_sigmas(simple, table, 20, 0, false).empty());
}

TEST_CASE("the beta distribution's quantile equals scipy's") {
  const nlohmann::json quantiles = golden_schedules().at("quantiles");
  for (const auto& pair : quantiles)
    CHECK(beta_quantile(pair[0], 0.6, 0.6) == doctest::Approx(pair[1].get<double>()).epsilon(1e-10));
}

TEST_CASE("names are looked up exactly and listed in the table") {
  CHECK(find_schedule("Karras") == nullptr);
  std::string table = schedule_table();
  for (const ScheduleRow& row : schedules()) CHECK(table.find(fmt::format("| `{}` |", row.name)) != std::string::npos);
}

TEST_SUITE_END();
