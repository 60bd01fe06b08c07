#include "cli/speeds.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/output.h"
#include "cli/version.h"
#include "core/error.h"
#include "core/read_file.h"

namespace mgpu {
namespace {

constexpr int kCacheVersion = 1;
constexpr std::uint64_t kMostCacheBytes = 1 << 20;

std::optional<Rates> parse_rates(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("version") || json["version"] != kCacheVersion) return std::nullopt;
  if (!json.contains("rates") || !json["rates"].is_object()) return std::nullopt;
  Rates out;
  for (const auto& [key, rate] : json["rates"].items()) {
    if (!rate.is_number() || !(rate.get<double>() > 0.0)) return std::nullopt;
    out[key] = rate.get<double>();
  }
  return out;
}

}  // namespace

std::string speed_key(std::string_view device, int driver_version) {
  return fmt::format("{}, driver {}, {} {}", device, driver_version, program_name, program_version);
}

double relative_speed(double rate, double fastest) {
  const double share = rate / fastest;
  return share < 0.05 ? std::max(0.01, std::round(share * 100.0) / 100.0) : std::round(share * 20.0) / 20.0;
}

std::string speed_cache_path() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder;
  if (cache && *cache == '/') {  // others are to be ignored, the XDG base directory specification says
    folder = cache;
  } else if (home && *home != '\0') {
    folder = std::filesystem::path(home) / ".cache";
  } else {
    return {};
  }
  return (folder / "mgpu-render" / "speeds.json").string();
}

KnownRates load_rates(const std::string& path) {
  std::error_code fault;
  if (path.empty() || !std::filesystem::exists(path, fault)) return {};
  try {
    if (auto rates = parse_rates(read_file(path, kMostCacheBytes))) return {std::move(*rates), {}};
  } catch (const Error&) {  // no regular file, or one that cannot be read: said below
  }
  return {{}, fmt::format("{}: holds no speeds that can be read: it will be written anew", path)};
}

std::string save_rates(const std::string& path, const Rates& rates) {
  if (path.empty()) return "the devices' speeds are not kept: neither XDG_CACHE_HOME nor HOME is set";
  const nlohmann::ordered_json json{{"version", kCacheVersion}, {"rates", rates}};
  try {
    remove_leftovers({path});
    write_file(path, json.dump(1) + "\n");
  } catch (const Error& error) {
    return fmt::format("the devices' speeds are not kept: {}: {}", path, error.message());
  }
  return {};
}

}  // namespace mgpu
