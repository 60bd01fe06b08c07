#include "cli/job/picture_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <set>

namespace mgpu {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_pictures = 10'000'000;

/// Fills the template, or throws what is wrong with it (a text that ends in a hint for the user).
std::string fill(const std::string& name, const std::map<std::string_view, std::string>& values) {
  std::string result;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if ((c == '{' || c == '}') && i + 1 < name.size() && name[i + 1] == c) {
      result += name[++i];
    } else if (c == '}') {
      throw std::invalid_argument("has a \"}\" without its \"{\"");
    } else if (c != '{') {
      result += c;
    } else {
      const std::size_t end = name.find('}', i);
      if (end == std::string::npos) throw std::invalid_argument("has a \"{\" without its \"}\"");
      const std::string_view field = std::string_view(name).substr(i + 1, end - i - 1);
      const std::size_t colon = field.find(':');
      const auto found = values.find(field.substr(0, colon));
      if (found == values.end()) throw std::invalid_argument(fmt::format("has an unknown field \"{{{}}}\"", field));
      std::string value = found->second;
      if (colon != std::string_view::npos) {
        const std::string_view width_text = field.substr(colon + 1);
        int width = 0;
        const auto [stop, fault] = std::from_chars(width_text.data(), width_text.data() + width_text.size(), width);
        const bool bad =
            !width_text.starts_with('0') || fault != std::errc{} || stop != width_text.data() + width_text.size();
        if (bad || width > 20) throw std::invalid_argument(fmt::format("has an unknown format \"{{{}}}\"", field));
        if (value.size() < static_cast<std::size_t>(width))
          value.insert(0, static_cast<std::size_t>(width) - value.size(), '0');
      }
      result += value;
      i = end;
    }
  }
  return result;
}

std::string file_name(const Job& job, const Picture& picture) {
  return fill(*job.output.name, {{"job", job.name},
                                 {"index", std::to_string(picture.index)},
                                 {"item", std::to_string(picture.item)},
                                 {"seed", std::to_string(picture.seed)},
                                 {"width", std::to_string(picture.width())},
                                 {"height", std::to_string(picture.height())}});
}

template <class Number>
bool parse_whole(std::string_view text, Number& number) {
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  return fault == std::errc{} && end == text.data() + text.size() && number >= 0;
}

void add_job(const Job& job, int job_number, std::vector<Picture>& pictures) {
  int index = 0;
  for (std::size_t item = 0; item < job.images.size(); ++item) {
    const ImageJob& image = job.images[item];
    const auto runs = static_cast<std::size_t>(*image.count) * static_cast<std::size_t>(*image.batch);
    if (pictures.size() + runs > most_pictures)
      throw job.error(image.mark, fmt::format("more than {} pictures", most_pictures));
    for (int run = 0; run < *image.count; ++run) {
      for (int in_batch = 0; in_batch < *image.batch; ++in_batch, ++index) {
        if (job.only_in_batch && *job.only_in_batch != in_batch) continue;
        Picture picture{job_number,
                        index,
                        static_cast<int>(item),
                        *image.seed + static_cast<std::uint64_t>(run),
                        in_batch,
                        *image.batch,
                        {},
                        {},
                        &image};
        picture.file = file_name(job, picture);
        picture.path = (fs::path(job.output.directory.path) / picture.file).lexically_normal().string();
        pictures.push_back(std::move(picture));
      }
    }
  }
}

}  // namespace

void check_output_names(const Job& job) {
  const auto refuse = [&](const std::string& why) {
    return job.error(job.output.name.mark, fmt::format("\"output.name\" {}", why),
                     "fields are {job} {index} {item} {seed} {width} {height}, and {index:04} for leading zeros");
  };
  try {
    const ImageJob& image = job.images.front();
    fill(*job.output.name, {{"job", ""},
                            {"index", "0"},
                            {"item", "0"},
                            {"seed", "0"},
                            {"width", std::to_string(*image.width)},
                            {"height", std::to_string(*image.height)}});
  } catch (const std::invalid_argument& fault) {
    throw refuse(fault.what());
  }
  const std::string& name = *job.output.name;
  if (!name.ends_with(".png")) throw refuse("must end in .png");
  const fs::path path(name);
  if (path.is_absolute() || std::find(path.begin(), path.end(), "..") != path.end())
    throw refuse("leads out of the directory");
}

std::vector<Picture> expand(std::span<const Job> jobs) {
  std::vector<Picture> pictures;
  for (std::size_t i = 0; i < jobs.size(); ++i) add_job(jobs[i], static_cast<int>(i), pictures);
  std::map<std::string_view, const Picture*> by_path;
  for (const Picture& picture : pictures) {
    const auto [found, is_new] = by_path.emplace(picture.path, &picture);
    if (is_new) continue;
    const Job& job = jobs[static_cast<std::size_t>(picture.job)];
    const Picture& first = *found->second;
    throw job.error(
        job.output.name.given ? job.output.name.mark : picture.image->mark,
        fmt::format("two pictures would be written to \"{}\"", picture.path),
        fmt::format("picture {} of images.{} at {} and picture {} of images.{} at {}: {}", first.index, first.item,
                    first.image->mark.to_string(), picture.index, picture.item, picture.image->mark.to_string(),
                    first.job == picture.job ? "put {index} into output.name"
                                             : "give one of the jobs another output.directory"));
  }
  return pictures;
}

bool Only::has(int index) const {
  const auto next = std::ranges::upper_bound(ranges, index, {}, [](const auto& range) { return range.first; });
  return next != ranges.begin() && index <= std::prev(next)->second;
}

Only parse_only(std::string_view text) {
  const Mark mark{fmt::format("--only {}", text)};
  Only only;
  while (true) {
    const std::size_t comma = text.find(',');
    const std::string_view entry = text.substr(0, comma);
    const std::size_t dash = entry.find('-');
    std::pair<int, int> range;
    const bool good = parse_whole(entry.substr(0, dash), range.first) &&
                      parse_whole(dash == std::string_view::npos ? entry : entry.substr(dash + 1), range.second);
    if (!good || range.first > range.second)
      throw Error(Exit::Usage, mark, fmt::format("\"{}\" is no picture number or range", entry), "as in --only 0,3-5");
    only.ranges.push_back(range);
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
  }
  std::ranges::sort(only.ranges);
  std::vector<std::pair<int, int>> apart;
  for (const auto& range : only.ranges) {
    if (!apart.empty() && range.first <= apart.back().second) {
      apart.back().second = std::max(apart.back().second, range.second);
    } else {
      apart.push_back(range);
    }
  }
  only.ranges = std::move(apart);
  return only;
}

PartOfRun parse_part(std::string_view text) {
  const std::size_t slash = text.find('/');
  PartOfRun part;
  const bool good = slash != std::string_view::npos && parse_whole(text.substr(0, slash), part.index) &&
                    parse_whole(text.substr(slash + 1), part.count);
  if (!good || part.index >= part.count)
    throw Error(Exit::Usage, Mark{fmt::format("--part {}", text)}, "a part is I/N with I from 0 to N - 1",
                "as in --part 0/4");
  return part;
}

int parse_preview(std::string_view text) {
  int every = 0;
  if (!parse_whole(text, every) || every < 1)
    throw Error(Exit::Usage, Mark{fmt::format("--preview {}", text)}, "a preview is made every so many steps, from 1",
                "as in --preview 5");
  return every;
}

void check_previews(std::span<const Job> jobs, std::span<const Picture> pictures) {
  std::set<std::string_view> paths;
  for (const Picture& picture : pictures) paths.insert(picture.path);
  for (const Picture& picture : pictures) {
    const std::string preview = preview_path(picture.path);
    if (!paths.contains(preview)) continue;
    const Job& job = jobs[static_cast<std::size_t>(picture.job)];
    throw job.error(
        job.output.name.given ? job.output.name.mark : picture.image->mark,
        fmt::format("the preview of \"{}\" would take the place of the picture \"{}\"", picture.path, preview),
        "leave --preview out, or give one of them another output.name");
  }
}

std::vector<Picture> select(std::vector<Picture> pictures, const std::optional<Only>& only,
                            const std::optional<PartOfRun>& part) {
  if (only) {
    std::set<int> numbers;
    for (const Picture& picture : pictures) numbers.insert(picture.index);
    for (const auto& range : only->ranges) {
      const int last = range.second;
      if (!numbers.contains(last))
        throw Error(Exit::Usage, Mark{"--only"}, fmt::format("there is no picture {}", last),
                    "pictures count from 0, as {index} does");
    }
    std::erase_if(pictures, [&](const Picture& picture) { return !only->has(picture.index); });
  }
  if (part) {
    const std::size_t n = pictures.size();
    const auto begin = n * static_cast<std::size_t>(part->index) / static_cast<std::size_t>(part->count);
    const auto end = n * static_cast<std::size_t>(part->index + 1) / static_cast<std::size_t>(part->count);
    pictures = std::vector<Picture>(pictures.begin() + static_cast<std::ptrdiff_t>(begin),
                                    pictures.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return pictures;
}

std::string report_name(const std::string& name, const std::optional<PartOfRun>& part) {
  if (!part || name.empty()) return name;
  const fs::path path(name);
  return (path.parent_path() /
          fmt::format("{}-{}-of-{}{}", path.stem().string(), part->index, part->count, path.extension().string()))
      .string();
}

std::vector<std::string> report_paths(std::span<const Job> jobs, const std::optional<PartOfRun>& part) {
  std::vector<std::string> paths;
  std::set<std::string> used;
  // Two names of a directory are one place: the files are compared where they really lie.
  const auto place_of = [&](const std::string& path) {
    std::error_code fault;
    const fs::path place = fs::weakly_canonical(path, fault);
    return fault ? path : place.string();
  };
  for (const Job& job : jobs) {
    const fs::path directory(job.output.directory.path);
    if (job.output.report->empty()) {
      paths.emplace_back();
      continue;
    }
    const fs::path name(*job.output.report);
    std::string path = (directory / report_name(name.string(), part)).lexically_normal().string();
    for (int copy = 1; !used.insert(place_of(path)).second; ++copy) {
      const std::string own = fmt::format("{}-{}{}{}", name.stem().string(), job.name,
                                          copy == 1 ? "" : fmt::format("-{}", copy), name.extension().string());
      path = (directory / name.parent_path() / report_name(own, part)).lexically_normal().string();
    }
    paths.push_back(std::move(path));
  }
  return paths;
}

std::string preview_path(const std::string& picture) {
  return std::filesystem::path(picture).replace_extension(".preview.png").string();
}

}  // namespace mgpu
