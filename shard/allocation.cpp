#include "shard/allocation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

namespace mgpu {
namespace {

using Kind = AllocationAmount::Kind;

constexpr double kLargestNumber = 1e6;  // percent, or gigabytes: no machine has more
constexpr std::string_view kAmountHint =
    "an amount is 60%, 4gb (mb, kb, b), a fraction of the device such as 0.5, or *";

struct Unit {
  std::string_view name;
  std::uint64_t bytes = 0;
};
constexpr std::array kUnits{Unit{"gb", std::uint64_t{1} << 30}, Unit{"mb", std::uint64_t{1} << 20},
                            Unit{"kb", std::uint64_t{1} << 10}, Unit{"b", 1}};

/// A piece of the string and where it stands.
struct Piece {
  std::string_view text;
  std::size_t column = 0;
};

bool is_space(char c) {
  return c == ' ' || c == '\t';
}

Piece trimmed(Piece piece) {
  while (!piece.text.empty() && is_space(piece.text.front())) piece.text.remove_prefix(1), ++piece.column;
  while (!piece.text.empty() && is_space(piece.text.back())) piece.text.remove_suffix(1);
  return piece;
}

/// Trimmed pieces between the separators; one more than there are separators.
std::vector<Piece> split(Piece whole, char separator) {
  std::vector<Piece> pieces;
  while (true) {
    const std::size_t end = whole.text.find(separator);
    pieces.push_back(trimmed({whole.text.substr(0, end), whole.column}));
    if (end == std::string_view::npos) return pieces;
    whole.text.remove_prefix(end + 1);
    whole.column += end + 1;
  }
}

[[noreturn]] void fail(const Piece& at, const std::string& message, std::string_view hint = {}) {
  throw AllocationError(at.column, message, std::string(hint));
}

/// A piece as a message quotes it: short, control characters left to the caret.
std::string quoted(std::string_view text) {
  constexpr std::size_t most = 40;
  std::size_t length = std::min(text.size(), most);
  while (length < text.size() && length > 0 && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  std::string shown(text.substr(0, length));
  std::ranges::replace_if(
      shown, [](char c) { return static_cast<unsigned char>(c) < 0x20; }, '?');
  return fmt::format("\"{}{}\"", shown, length < text.size() ? "..." : "");
}

DeviceId parse_device_at(const Piece& piece) {
  const auto id = parse_device(piece.text);
  if (!id) fail(piece, fmt::format("{} is no device", quoted(piece.text)), "a device is cuda:N, cpu or cpu:N");
  return *id;
}

/// A decimal number at the beginning of `text`, which it is cut from: no sign, no exponent.
std::optional<double> take_number(std::string_view& text) {
  const std::size_t length = std::min(text.find_first_not_of("0123456789."), text.size());
  double value = 0.0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + length, value, std::chars_format::fixed);
  if (length == 0 || fault != std::errc{} || end != text.data() + length) return std::nullopt;
  text.remove_prefix(length);
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  return value;
}

std::optional<std::uint64_t> unit_bytes(std::string_view written) {
  std::string name(written);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Unit& unit : kUnits) {
    const std::string_view letter = unit.name.substr(0, 1);
    if (name == unit.name || name == letter || (unit.bytes > 1 && name == fmt::format("{}ib", letter)))
      return unit.bytes;  // GiB and GB both mean 2^30
  }
  return std::nullopt;
}

AllocationAmount parse_amount(const Piece& piece) {
  std::string_view text = piece.text;
  if (text == "*") return {};
  if (text.starts_with('-')) fail(piece, fmt::format("{} is not above 0", quoted(text)), "leave the device out");
  const auto number = take_number(text);
  if (!number) fail(piece, fmt::format("{} is no amount", quoted(piece.text)), kAmountHint);
  if (*number == 0.0) fail(piece, fmt::format("{} is not above 0", quoted(piece.text)), "leave the device out");
  if (*number > kLargestNumber && (text.empty() || text == "%"))
    fail(piece, fmt::format("{} is too large", quoted(piece.text)), kAmountHint);
  if (text == "%") return {Kind::Percent, *number, 0};
  if (text.empty()) {
    if (*number > 1.0)
      fail(piece, fmt::format("{} is more than the whole device", quoted(piece.text)),
           fmt::format("a bare number is a fraction of the device's memory, from 0 to 1; write {0}gb or {0}%",
                       piece.text));
    return {Kind::Fraction, *number, 0};
  }
  const auto unit = unit_bytes(text);
  if (!unit)
    fail({text, piece.column + static_cast<std::size_t>(text.data() - piece.text.data())},
         fmt::format("{} is no unit", quoted(text)),
         "units are %, b, kb, mb and gb; no unit: a fraction of the device");
  const double bytes = *number * static_cast<double>(*unit);
  if (bytes < 1.0) fail(piece, fmt::format("{} is less than a byte", quoted(piece.text)));
  if (bytes > kLargestNumber * 0x1p30) fail(piece, fmt::format("{} is too large", quoted(piece.text)), kAmountHint);
  return {Kind::Bytes, 0.0, static_cast<std::uint64_t>(bytes)};
}

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::Percent:
      return "percentages";
    case Kind::Bytes:
      return "bytes";
    case Kind::Fraction:
      return "fractions of a device";
    case Kind::Rest:
      return "*";
  }
  return "";
}

AllocationEntry parse_entry(const Piece& piece) {
  if (piece.text.empty()) fail(piece, "an entry is empty", "an entry is a device and an amount: cuda:0,60%");
  const std::vector<Piece> parts = split(piece, ',');
  const DeviceId device = parse_device_at(parts[0]);
  if (parts.size() < 2 || parts[1].text.empty()) {
    const Piece at = parts.size() < 2 ? Piece{{}, parts[0].column + parts[0].text.size()} : parts[1];
    fail(at, fmt::format("{} has no amount", device.to_string()), kAmountHint);
  }
  if (parts.size() > 2)
    fail(parts[2], fmt::format("{} follows the amount of {}", quoted(parts[2].text), device.to_string()),
         "entries are separated by ;");
  return {device, parse_amount(parts[1]), parts[0].column, parts[1].column};
}

/// One kind of amount, "*" beside it allowed; every device once.
void check_together(const std::vector<AllocationEntry>& entries) {
  std::optional<Kind> kind;
  double percent = 0.0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const AllocationEntry& entry = entries[i];
    const auto before = std::ranges::find(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(i),
                                          entry.device, &AllocationEntry::device);
    if (before != entries.begin() + static_cast<std::ptrdiff_t>(i))
      throw AllocationError(entry.column, fmt::format("{} is given twice", entry.device.to_string()),
                            "a device has one amount");
    if (entry.amount.kind == Kind::Rest) continue;
    if (kind && *kind != entry.amount.kind)
      throw AllocationError(entry.amount_column,
                            fmt::format("{} beside {}", name_of(entry.amount.kind), name_of(*kind)),
                            "all amounts have one unit; * may stand beside any");
    kind = entry.amount.kind;
    percent += entry.amount.value;
  }
  const auto rest = std::ranges::find(entries, Kind::Rest, [](const AllocationEntry& e) { return e.amount.kind; });
  if (rest != entries.end() && kind == Kind::Percent && percent >= 100.0)
    throw AllocationError(rest->amount_column,
                          fmt::format("nothing is left for *: the percentages add up to {}", percent),
                          "leave the device out, or lower a percentage");
}

AllocationTail parse_tail(const Piece& piece) {
  const std::vector<Piece> parts = split(piece, ';');
  if (parts[0].text.empty())
    fail(parts[0], "no compute device follows #", "the end is #compute;virtual_gb;donor: #cuda:0;4.0;cpu");
  AllocationTail tail{parse_device_at(parts[0]), 0, {}, parts[0].column};
  if (parts.size() == 1) return tail;
  std::string_view text = parts[1].text;
  const auto number = take_number(text);
  if (!number || !text.empty() || *number > kLargestNumber)
    fail(parts[1], fmt::format("{} is no number of gigabytes", quoted(parts[1].text)),
         "the end is #compute;virtual_gb;donor: #cuda:0;4.0;cpu");
  tail.virtual_bytes = static_cast<std::uint64_t>(*number * 0x1p30);
  if (parts.size() == 2) {
    if (tail.virtual_bytes == 0) return tail;
    fail({{}, piece.column + piece.text.size()}, fmt::format("no donor holds the {} GB", parts[1].text),
         "name the device that lends memory: #cuda:0;4.0;cpu");
  }
  if (parts.size() > 3) fail(parts[3], fmt::format("{} follows the donors", quoted(parts[3].text)));
  for (const Piece& name : split(parts[2], ',')) {
    const DeviceId donor = parse_device_at(name);
    if (std::ranges::find(tail.donors, donor) != tail.donors.end())
      fail(name, fmt::format("{} is given twice", donor.to_string()), "a donor is named once");
    tail.donors.push_back(donor);
  }
  return tail;
}

/// The fewest decimals that read back as the same number, never an exponent.
std::string number_text(double value) {
  std::array<char, 512> buffer{};
  const auto [end, fault] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  return {buffer.data(), end};
}

std::string amount_text(const AllocationAmount& amount) {
  switch (amount.kind) {
    case Kind::Percent:
      return number_text(amount.value) + "%";
    case Kind::Fraction:
      return number_text(amount.value);
    case Kind::Rest:
      return "*";
    case Kind::Bytes:
      break;
  }
  const auto unit = std::ranges::find_if(kUnits, [&](const Unit& u) { return amount.bytes % u.bytes == 0; });
  return fmt::format("{}{}", amount.bytes / unit->bytes, unit->name);
}

}  // namespace

AllocationString parse_allocation(std::string_view text) {
  const Piece whole = trimmed({text, 0});
  if (whole.text.empty()) fail(whole, "the allocation is empty", "an example: cuda:0,60%;cuda:1,40%");
  const std::vector<Piece> halves = split(whole, '#');
  if (halves.size() > 2) fail({{}, halves[2].column}, "a second # in the allocation");
  AllocationString out;
  if (!halves[0].text.empty()) {
    for (const Piece& piece : split(halves[0], ';')) out.entries.push_back(parse_entry(piece));
    check_together(out.entries);
  }
  if (halves.size() == 2) out.tail = parse_tail(halves[1]);
  return out;
}

std::optional<std::uint64_t> parse_memory_amount(std::string_view text) {
  try {
    const AllocationAmount amount = parse_amount(trimmed({text, 0}));
    if (amount.kind == Kind::Bytes) return amount.bytes;
  } catch (const AllocationError&) {  // the caller says what is wrong, in words of its own
  }
  return std::nullopt;
}

std::string to_string(const AllocationString& allocation) {
  std::string out;
  for (const AllocationEntry& entry : allocation.entries)
    out += fmt::format("{}{},{}", out.empty() ? "" : ";", entry.device.to_string(), amount_text(entry.amount));
  if (!allocation.tail) return out;
  const AllocationTail& tail = *allocation.tail;
  out += fmt::format("#{}", tail.compute.to_string());
  if (tail.donors.empty()) return out;
  out += fmt::format(";{};", number_text(static_cast<double>(tail.virtual_bytes) / 0x1p30));
  for (const DeviceId& donor : tail.donors)
    out += fmt::format("{}{}", donor == tail.donors.front() ? "" : ",", donor.to_string());
  return out;
}

}  // namespace mgpu
