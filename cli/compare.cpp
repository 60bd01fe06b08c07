#include "cli/compare.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/files/png.h"
#include "cli/files/write_file.h"
#include "core/read_file.h"

namespace mgpu {
namespace {

namespace fs = std::filesystem;

constexpr int difference_scale = 16;

struct Comparison {
  std::string name;
  std::string fault;  ///< why they cannot be compared
  int largest = 0;    ///< difference of a channel, of 255
  std::int64_t differing = 0;
  double psnr = std::numeric_limits<double>::infinity();
  Rgb8 difference;

  bool equal() const { return fault.empty() && largest == 0; }
};

PngFile read_png(const fs::path& path) {
  return decode_png(read_file(path.string()), path.string());
}

Comparison compare_pictures(const std::string& name, const Rgb8& a, const Rgb8& b) {
  Comparison result;
  result.name = name;
  if (a.width != b.width || a.height != b.height) {
    result.fault = fmt::format("{}x{} and {}x{}", a.width, a.height, b.width, b.height);
    return result;
  }
  result.difference = {a.width, a.height, std::vector<std::uint8_t>(a.pixels.size())};
  double squares = 0.0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) {
    const int difference = std::abs(int(a.pixels[i]) - int(b.pixels[i]));
    result.largest = std::max(result.largest, difference);
    result.differing += difference != 0 ? 1 : 0;
    result.difference.pixels[i] = static_cast<std::uint8_t>(std::min(255, difference * difference_scale));
    squares += double(difference) * difference;
  }
  if (squares > 0.0) result.psnr = 10.0 * std::log10(255.0 * 255.0 * static_cast<double>(a.pixels.size()) / squares);
  return result;
}

/// Names of the pictures in a folder and below. A link that leads nowhere is none.
std::set<std::string> pictures_in(const fs::path& folder) {
  std::set<std::string> names;
  std::error_code fault, none;
  for (fs::recursive_directory_iterator entry(folder, fault), end; !fault && entry != end; entry.increment(fault))
    if (entry->is_regular_file(none) && entry->path().extension() == ".png")
      names.insert(entry->path().lexically_relative(folder).string());
  if (fault) fail_file(folder.string(), fmt::format("cannot be read: {}", fault.message()));
  return names;
}

/// Two pictures of folders. What cannot be read of them is this one's fault, and none of the others'.
Comparison compare_named(const std::string& name, const fs::path& a, const fs::path& b) {
  try {
    return compare_pictures(name, read_png(a / name).picture, read_png(b / name).picture);
  } catch (const Error& error) {
    Comparison unreadable;
    unreadable.name = name;
    unreadable.fault = fmt::format("{}: {}", error.where().to_string(), error.message());
    return unreadable;
  }
}

std::vector<Comparison> compare_folders(const fs::path& a, const fs::path& b) {
  const std::set<std::string> in_a = pictures_in(a);
  std::set<std::string> names = pictures_in(b);
  const std::set<std::string> in_b = names;
  names.insert(in_a.begin(), in_a.end());
  if (names.empty()) fail_file(a.string(), fmt::format("neither it nor {} holds a PNG file", b.string()));
  std::vector<Comparison> results;
  for (const std::string& name : names) {
    if (in_a.contains(name) && in_b.contains(name)) {
      results.push_back(compare_named(name, a, b));
    } else {
      Comparison missing;
      missing.name = name;
      missing.fault = fmt::format("only in {}", (in_a.contains(name) ? a : b).string());
      results.push_back(std::move(missing));
    }
  }
  return results;
}

std::string line_of(const Comparison& c) {
  if (!c.fault.empty()) return fmt::format("{}: differ: {}\n", c.name, c.fault);
  if (c.equal()) return fmt::format("{}: equal\n", c.name);
  return fmt::format("{}: differ: at most {} of 255, in {} of {} values, PSNR {:.2f} dB\n", c.name, c.largest,
                     c.differing, c.difference.pixels.size(), c.psnr);
}

}  // namespace

Answer compare(const Arguments& arguments) {
  const fs::path a(arguments.files[0]);
  const fs::path b(arguments.files[1]);
  std::error_code fault;
  for (const fs::path& path : {a, b})
    if (!fs::exists(path, fault)) fail_file(path.string(), "no such file");
  if (fs::is_directory(a) != fs::is_directory(b)) fail_file(a.string(), "a picture and a folder cannot be compared");
  const bool folders = fs::is_directory(a);
  const std::vector<Comparison> results =
      folders ? compare_folders(a, b)
              : std::vector{compare_pictures(a.filename().string(), read_png(a).picture, read_png(b).picture)};
  Answer answer;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Comparison& c : results) {
    if (!c.equal()) answer.exit = Exit::ImageFailed;
    answer.text += line_of(c);
    nlohmann::ordered_json entry{
        {"file", c.name}, {"equal", c.equal()}, {"max_difference", c.largest}, {"psnr", nullptr}, {"error", c.fault}};
    if (std::isfinite(c.psnr)) entry["psnr"] = c.psnr;
    list.push_back(std::move(entry));
    if (arguments.difference.empty() || c.difference.pixels.empty()) continue;
    const fs::path target = folders ? fs::path(arguments.difference) / c.name : fs::path(arguments.difference);
    for (const fs::path& compared : {folders ? a / c.name : a, folders ? b / c.name : b}) {
      std::error_code missing;
      if (fs::equivalent(target, compared, missing))
        fail_file(target.string(), "is one of the pictures that are compared", "name another with --difference");
    }
    write_file(target.string(), encode_png(c.difference, {}));
  }
  if (arguments.json) answer.text = list.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  return answer;
}

}  // namespace mgpu
