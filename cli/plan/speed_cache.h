#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace mgpu {

/// How fast kinds of devices were found to be: floating-point operations a second, by speed_key().
using Rates = std::map<std::string, double>;

/// What a rate is remembered by: devices of one name share it, until the driver or this program changes.
std::string speed_key(std::string_view device, int driver_version);

/// `rate` beside the fastest device's, in steps of 0.05, below that of 0.01; at least 0.01.
double relative_speed(double rate, double fastest);

/// mgpu-render/speeds.json in $XDG_CACHE_HOME or else in ~/.cache; "" where there is neither.
std::string speed_cache_path();

/// What the context and the libraries' modules take of kinds of GPUs, in bytes, by driver_key().
using DriverBytes = std::map<std::string, std::uint64_t>;

/// What a GPU's driver bytes are remembered by: as speeds, and by how the environment has modules loaded.
std::string driver_key(std::string_view device, int driver_version);

/// What a cache holds.
struct KnownRates {
  Rates rates;
  std::string note;  ///< why nothing could be read from a file that is there
  DriverBytes driver_bytes = {};
};
KnownRates load_rates(const std::string& path);

/// Keeps them for the next run. Returns why they cannot be kept, or "".
std::string save_rates(const std::string& path, const Rates& rates, const DriverBytes& driver_bytes = {});

}  // namespace mgpu
