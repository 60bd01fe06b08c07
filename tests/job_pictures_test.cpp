#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "cli/job/find_files.h"
#include "cli/job/job.h"
#include "cli/job/picture_list.h"
#include "cli/job/read_job.h"
#include "core/error.h"

using namespace mgpu;

TEST_SUITE_BEGIN("job_pictures");

TEST_CASE("files are found beside the job, then in model_paths by their kind") {
  namespace fs = std::filesystem;
  const fs::path root = fs::temp_directory_path() / "mgpu_job_test";
  fs::remove_all(root);
  for (const char* folder : {"jobs", "models/unet", "models/text_encoders", "comfy/models/vae"})
    fs::create_directories(root / folder);
  for (const char* file : {"models/unet/a.safetensors", "models/text_encoders/t5.safetensors",
                           "comfy/models/vae/ae.safetensors", "jobs/clip.safetensors"})
    std::ofstream(root / file) << "x";
  std::ofstream(root / "paths.yaml")
      << "comfyui:\n  base_path: comfy\n  is_default: true\n  vae: |\n    nowhere\n    models/vae\n";
  const std::string text =
      "checkpoint: a.safetensors\nencoders: {t5xxl: t5.safetensors, clip_l: clip.safetensors}\nvae: ae.safetensors\n"
      "model_paths: [../models, ../paths.yaml]\nimages: [{prompt: x}]\n";
  Job job = read_job(text, "job.yaml", (root / "jobs").string());
  resolve_files(job);
  CHECK(job.files.checkpoint.path == (root / "models/unet/a.safetensors").string());
  CHECK(job.files.encoders.at("t5xxl").path == (root / "models/text_encoders/t5.safetensors").string());
  CHECK(job.files.encoders.at("clip_l").path == (root / "jobs/clip.safetensors").string());
  CHECK(job.files.vae.path == (root / "comfy/models/vae/ae.safetensors").string());
  CHECK(job.output.directory.path == (root / "jobs/out").string());
  Job missing = read_job("checkpoint: b.safetensors\nimages: [{prompt: x}]\n", "job.yaml", (root / "jobs").string());
  CHECK_THROWS_WITH_AS(resolve_files(missing),
                       ("job.yaml:1:13: no file \"b.safetensors\"\n   1 | checkpoint: b.safetensors\n     |            "
                        " ^\n  looked in " +
                        (root / "jobs").string())
                           .c_str(),
                       Error);
  std::ofstream(root / "none.yaml") << "# comfyui:\n#   base_path: comfy\n";
  Job without = read_job("checkpoint: a\nmodel_paths: [none.yaml]\nimages: [{prompt: x}]\n", "job.yaml", root.string());
  CHECK_THROWS_WITH_AS(resolve_files(without),
                       ((root / "none.yaml").string() +
                        ": names no folders\n  under model_paths, a file is one of ComfyUI's extra_model_paths.yaml")
                           .c_str(),
                       Error);
  fs::remove_all(root);
}

TEST_CASE("pictures of a job") {
  const Job job = read_job(
      "checkpoint: a\nimages:\n- {prompt: x, seed: 5, count: 2, batch: 2}\n- {prompt: y, width: 512}\n"
      "output: {name: \"{{{item}}}-{index:03}-{seed}-{width}.png\"}",
      "dir/night.yaml", "dir");
  const std::vector<Picture> pictures = expand(std::span(&job, 1));
  REQUIRE(pictures.size() == 5);
  CHECK(pictures[3].file == "{0}-003-6-1024.png");
  CHECK(pictures[3].seed == 6);
  CHECK(pictures[3].in_batch == 1);
  CHECK(pictures[4].file == "{1}-004-0-512.png");
  std::vector<int> left;
  for (const Picture& p : select(pictures, parse_only("0,3-4"), std::nullopt)) left.push_back(p.index);
  CHECK(left == std::vector{0, 3, 4});
  std::vector<int> parts;
  for (int i = 0; i < 3; ++i)
    for (const Picture& p : select(pictures, std::nullopt, PartOfRun{i, 3})) parts.push_back(p.index);
  CHECK(parts == std::vector{0, 1, 2, 3, 4});
  CHECK_THROWS_WITH_AS(select(pictures, parse_only("5"), std::nullopt),
                       "--only: there is no picture 5\n  pictures count from 0, as {index} does", Error);
  CHECK_THROWS_WITH_AS(parse_only("3-1"), "--only 3-1: \"3-1\" is no picture number or range\n  as in --only 0,3-5",
                       Error);
  CHECK_THROWS_WITH_AS(parse_part("2/2"), "--part 2/2: a part is I/N with I from 0 to N - 1\n  as in --part 0/4",
                       Error);
  CHECK(report_name("report.json", PartOfRun{1, 4}) == "report-1-of-4.json");
}

TEST_CASE("names that repeat or are no template are refused") {
  const Job job = read_job(
      "checkpoint: a\nimages: [{prompt: x, count: 2}]\noutput: {name: \"{item}.png\", directory: d}", "job.yaml", "");
  CHECK_THROWS_WITH_AS(expand(std::span(&job, 1)),
                       "job.yaml:3:16: two pictures would be written to \"0.png\"\n"
                       "   3 | output: {name: \"{item}.png\", directory: d}\n"
                       "     |                ^\n"
                       "  picture 0 of images.0 at job.yaml:2:10 and picture 1 of images.0 at job.yaml:2:10: put "
                       "{index} into output.name",
                       Error);
  const auto line = [](const std::string& name) {
    const std::string text = "checkpoint: a\nimages: [{prompt: x}]\noutput: {name: '" + name + "'}";
    try {
      read_job(text, "job.yaml", "");
    } catch (const Error& error) {
      const std::string what = error.what();
      return what.substr(0, what.find('\n'));
    }
    return std::string("no error");
  };
  CHECK(line("{sed}.png") == "job.yaml:3:16: \"output.name\" has an unknown field \"{sed}\"");
  CHECK(line("{seed:x}.png") == "job.yaml:3:16: \"output.name\" has an unknown format \"{seed:x}\"");
  CHECK(line("{seed.png") == "job.yaml:3:16: \"output.name\" has a \"{\" without its \"}\"");
  CHECK(line("{seed}.jpg") == "job.yaml:3:16: \"output.name\" must end in .png");
  CHECK(line("../{seed}.png") == "job.yaml:3:16: \"output.name\" leads out of the directory");
}

TEST_SUITE_END();
