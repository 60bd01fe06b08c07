#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "core/devices.h"

namespace mgpu {

/// How much of a component a device takes.
struct AllocationAmount {
  enum class Kind : std::uint8_t {
    Percent,   ///< of the component; all percentages are normalised by their sum
    Bytes,     ///< a capacity: filled in order, surplus unused
    Fraction,  ///< of the device's total memory, likewise a capacity
    Rest,      ///< "*": what the others leave; several share it by free memory
  };
  Kind kind = Kind::Rest;
  double value = 0.0;       ///< Percent as written, Fraction in (0, 1]
  std::uint64_t bytes = 0;  ///< Bytes

  bool operator==(const AllocationAmount&) const = default;
};

struct AllocationEntry {
  DeviceId device;
  AllocationAmount amount;
  std::size_t column = 0;         ///< of the device and ...
  std::size_t amount_column = 0;  ///< ... the amount in the text, in bytes from 0; not part of the value

  bool operator==(const AllocationEntry& o) const { return device == o.device && amount == o.amount; }
};

/// "#compute;virtual_gb;donor[,donor...]": one device computes all, the donors hold what it has no room for.
struct AllocationTail {
  DeviceId compute;
  std::uint64_t virtual_bytes = 0;  ///< moved from the compute device to the donors
  std::vector<DeviceId> donors;
  std::size_t column = 0;  ///< of the compute device in the text; not part of the value

  bool operator==(const AllocationTail& o) const {
    return compute == o.compute && virtual_bytes == o.virtual_bytes && donors == o.donors;
  }
};

/// Where a component's bytes lie: an allocation string of the job file, taken apart. Entries stand in layer order; with
/// a tail, its device computes, whatever the others hold. A tail alone, without virtual bytes: the whole component on
/// its device.
struct AllocationString {
  std::vector<AllocationEntry> entries;
  std::optional<AllocationTail> tail;

  bool operator==(const AllocationString&) const = default;
};

/// What is wrong with an allocation string, and where in it.
class AllocationError : public std::runtime_error {
 public:
  AllocationError(std::size_t column, const std::string& message, std::string hint = {})
      : std::runtime_error(message), column_(column), hint_(std::move(hint)) {}
  std::size_t column() const { return column_; }  ///< in bytes from 0
  const std::string& hint() const { return hint_; }

 private:
  std::size_t column_;
  std::string hint_;
};

/// Takes a string of this grammar apart; spaces are ignored around , ; # and before a unit, letters may be capitals:
///
///     string = [entry (";" entry)*] ["#" device [";" gigabytes [";" device ("," device)*]]]
///     entry  = device "," (number "%" | number ("gb" | "mb" | "kb" | "b") | number | "*")
///
/// Throws AllocationError: an unknown or repeated device, amounts of several units other than "*", one that is not
/// above 0, anything left over.
AllocationString parse_allocation(std::string_view text);

/// Bytes of an amount of memory in this grammar ("8GB", "512 mb"). Nothing for any other text, and for other amounts.
std::optional<std::uint64_t> parse_memory_amount(std::string_view text);

/// The string in its normal form: no spaces, full device names, bytes in the largest unit that counts them whole,
/// numbers with the fewest digits that read back the same. parse_allocation() gives the same value again.
std::string to_string(const AllocationString& allocation);

}  // namespace mgpu
