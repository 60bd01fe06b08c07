#include "cli/plan/speed_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/files/write_file.h"
#include "cli/version.h"
#include "core/error.h"
#include "core/read_file.h"

namespace mgpu {
namespace {

constexpr int kCacheVersion = 1;
constexpr std::uint64_t kMostCacheBytes = 1 << 20;

/// The numbers, each above zero, of an object under `key`; nothing where it is something else.
template <class Number>
std::optional<std::map<std::string, Number>> numbers_of(const nlohmann::json& json, const char* key) {
  if (!json.contains(key) || !json[key].is_object()) return std::nullopt;
  std::map<std::string, Number> out;
  for (const auto& [name, number] : json[key].items()) {
    if (!number.is_number() || !(number.template get<double>() > 0.0)) return std::nullopt;
    out[name] = number.template get<Number>();
  }
  return out;
}

/// Older files have no driver bytes.
std::optional<KnownRates> parse_cache(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("version") || json["version"] != kCacheVersion) return std::nullopt;
  auto rates = numbers_of<double>(json, "rates");
  auto driver_bytes = json.contains("driver_bytes") ? numbers_of<std::uint64_t>(json, "driver_bytes") : DriverBytes();
  if (!rates || !driver_bytes) return std::nullopt;
  return KnownRates{std::move(*rates), {}, std::move(*driver_bytes)};
}

}  // namespace

std::string speed_key(std::string_view device, int driver_version) {
  return fmt::format("{}, driver {}, {} {}", device, driver_version, program_name, program_version);
}

std::string driver_key(std::string_view device, int driver_version) {
  const char* loading = std::getenv("CUDA_MODULE_LOADING");
  return speed_key(device, driver_version) + (loading ? fmt::format(", modules {}", loading) : "");
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
    if (auto known = parse_cache(read_file(path, kMostCacheBytes))) return std::move(*known);
  } catch (const Error&) {  // no regular file, or one that cannot be read: said below
  }
  return {{}, fmt::format("{}: holds no speeds that can be read: it will be written anew", path)};
}

std::string save_rates(const std::string& path, const Rates& rates, const DriverBytes& driver_bytes) {
  if (path.empty()) return "the devices' speeds are not kept: neither XDG_CACHE_HOME nor HOME is set";
  const nlohmann::ordered_json json{{"version", kCacheVersion}, {"rates", rates}, {"driver_bytes", driver_bytes}};
  try {
    remove_leftovers({path});
    write_file(path, json.dump(1) + "\n");
  } catch (const Error& error) {
    return fmt::format("the devices' speeds are not kept: {}: {}", path, error.message());
  }
  return {};
}

}  // namespace mgpu
