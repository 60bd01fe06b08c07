#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <mutex>

#include "cli/files/png.h"
#include "cli/job/load_job.h"
#include "cli/render/preview_file.h"
#include "cli/render/render.h"
#include "core/fault_point.h"
#include "tests/rendering.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"
#include "vae/rough_picture.h"

using namespace mgpu;
using test::Folder;
using test::pixels_of;
using test::read_all;

TEST_SUITE_BEGIN("preview");

namespace {

namespace fs = std::filesystem;

/// A job of two pictures from one draw, 64 x 32, six steps.
Job boats(const Folder& folder, const std::string& directory, const std::vector<std::string>& settings = {}) {
  std::vector<Setting> all{parse_setting("output.directory=\"" + folder.path(directory) + "\""),
                           parse_setting("output.name=\"{index}.png\""),
                           parse_setting("images=[{prompt: a boat, width: 64, height: 32, seed: 5, batch: 2}]"),
                           parse_setting("sampler.steps=6")};
  for (const std::string& setting : settings) all.push_back(parse_setting(setting));
  return load_job(golden("picture_schnell.yaml"), all);
}

std::string vae_setting(const std::string& name) {
  return "vae=\"" + golden(name + ".safetensors") + "\"";
}

RenderOptions every(int steps) {
  RenderOptions options;
  options.preview = steps;
  return options;
}

/// Notes only.
class Notes final : public Progress {
 public:
  void phase(const std::string&, const std::string&) override {}
  void step(const std::string&, int, int) override {}
  void finished(const std::string&, const std::string&, double, const std::string&) override {}
  void note(const std::string& text) override { notes.push_back(text); }

  std::vector<std::string> notes;
};

/// Counts previews, and keeps what of them is in a folder when the first picture is about to be written.
class Watch {
 public:
  explicit Watch(std::string folder) : folder_(std::move(folder)) {
    fault_hook = [this](std::string_view place) {
      const std::lock_guard lock(mutex_);
      if (place == "preview") ++rounds_;
      if (place == "preview" && fails_) throw std::runtime_error("injected");
      if (place != "compress") return;
      for (const fs::directory_entry& file : fs::directory_iterator(folder_))
        if (file.path().string().ends_with(".preview.png"))
          seen_.emplace(file.path().filename(), read_all(file.path()));
      if (fails_to_write_) throw std::runtime_error("injected");
    };
  }
  ~Watch() { fault_hook = nullptr; }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void fail() { fails_ = true; }
  void fail_to_write() { fails_to_write_ = true; }
  int rounds() const { return rounds_; }
  const std::map<std::string, std::string>& seen() const { return seen_; }

 private:
  std::string folder_;
  std::mutex mutex_;
  bool fails_ = false, fails_to_write_ = false;
  int rounds_ = 0;
  std::map<std::string, std::string> seen_;
};

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> out;
  for (const fs::directory_entry& file : fs::directory_iterator(folder)) out.push_back(file.path().filename());
  std::ranges::sort(out);
  return out;
}

const std::vector<std::string> kFinished{"0.png", "1.png", "manifest.jsonl", "report.json"};

}  // namespace

TEST_CASE("previews stand beside their pictures while these are made, and change nothing of them") {
  for (const char* devices : {"gpu_ids=[cpu]", "gpu_ids=[\"cpu:0\", \"cpu:1\"]"})
    for (const bool tiny : {false, true}) {
      CAPTURE(devices);
      CAPTURE(tiny);
      const std::string vae = vae_setting(tiny ? "tiny_vae_flux" : "vae_flux");
      const Folder folder;
      REQUIRE(test::render_all({boats(folder, "plain", {devices, vae})}).code == Exit::Ok);
      const Job job = boats(folder, "shown", {devices, vae});
      fs::create_directories(folder.path("shown"));
      const Watch watch(folder.path("shown"));
      const RenderResult result = test::render_all({job}, every(2));
      CHECK(result.code == Exit::Ok);
      CHECK(watch.rounds() == 2);  // after steps 2 and 4; after the sixth comes the picture
      REQUIRE(watch.seen().size() == 2);
      for (const auto& [name, bytes] : watch.seen()) {
        const Rgb8 preview = decode_png(bytes, name).picture;
        CHECK(preview.width == (tiny ? 64 : 8));
        CHECK(preview.height == (tiny ? 32 : 4));
      }
      CHECK(watch.seen().at("0.preview.png") != watch.seen().at("1.preview.png"));
      CHECK(files_in(folder.path("shown")) == kFinished);
      for (const char* picture : {"0.png", "1.png"})
        CHECK(read_all(folder.path("shown/" + std::string(picture))) ==
              read_all(folder.path("plain/" + std::string(picture))));
      REQUIRE(result.reports.size() == 1);
      CHECK(result.reports[0].images.size() == 2);
      for (const DeviceReport& device : result.reports[0].devices) {
        CHECK(device.warnings.empty());
        for (const Phase phase : kPhases) CHECK(device.peak_bytes[phase] <= device.predicted_peak_bytes[phase]);
      }
    }
}

TEST_CASE("the preview of the last step but one is nearly the picture") {
  // The same latent through the same autoencoder, but for what the last of many steps changes.
  const Folder folder;
  fs::create_directories(folder.path("near"));
  const Watch watch(folder.path("near"));
  const Job job = boats(folder, "near", {vae_setting("tiny_vae_flux"), "sampler.steps=40"});
  REQUIRE(test::render_all({job}, every(39)).code == Exit::Ok);
  const Rgb8 preview = decode_png(watch.seen().at("0.preview.png"), "preview").picture;
  CHECK(test::difference(preview, pixels_of(folder.path("near/0.png"))) < 64);
}

TEST_CASE("a preview that fails is noted once, and no picture fails for it") {
  const Folder folder;
  fs::create_directories(folder.path("out"));
  Watch watch(folder.path("out"));
  watch.fail();
  Notes progress;
  CHECK(render({boats(folder, "out")}, every(1), progress).code == Exit::Ok);
  CHECK(watch.rounds() == 1);
  REQUIRE(progress.notes.size() == 1);
  CHECK(progress.notes[0].starts_with("no more previews: injected"));
  CHECK(files_in(folder.path("out")) == kFinished);
}

TEST_CASE("a picture that fails leaves no preview") {
  const Folder folder;
  fs::create_directories(folder.path("out"));
  Watch watch(folder.path("out"));
  watch.fail_to_write();
  CHECK(test::render_all({boats(folder, "out")}, every(1)).code == Exit::ImageFailed);
  CHECK(watch.seen().size() == 2);
  CHECK(files_in(folder.path("out")) == std::vector<std::string>{"report.json"});
}

TEST_CASE("a preview's name follows from its picture's") {
  CHECK(preview_path("out/job-0000-42.png") == "out/job-0000-42.preview.png");
  CHECK(preview_path("out/a.b.png") == "out/a.b.preview.png");
}

TEST_CASE("rough colours are a latent's values times its format's factors") {
  at::Tensor latent = at::zeros({1, 4, 2, 3});
  latent[0][3][1][2] = 0.5;
  const at::Tensor image = rough_picture(latent, kSdxlRgb);
  REQUIRE(image.sizes() == at::IntArrayRef({1, 3, 2, 3}));
  CHECK(image[0][0][0][0].item<float>() == doctest::Approx((0.1084 + 1) / 2));
  CHECK(image[0][2][0][0].item<float>() == doctest::Approx((-0.0011 + 1) / 2));
  CHECK(image[0][0][1][2].item<float>() == doctest::Approx((0.5 * -0.3165 + 0.1084 + 1) / 2));
  CHECK(image[0][1][1][2].item<float>() == doctest::Approx((0.5 * -0.2492 - 0.0175 + 1) / 2));
  CHECK(rough_picture(latent * 100, kSdxlRgb).min().item<float>() == 0.0F);
}

TEST_CASE("an image is made smaller where a side is too long, and only there") {
  const at::Tensor image = at::rand({1, 3, 48, 96});
  CHECK(at::equal(shrink(image, 96), image));
  const at::Tensor half = shrink(image, 48);
  REQUIRE(half.sizes() == at::IntArrayRef({1, 3, 24, 48}));
  CHECK(half.mean().item<double>() == doctest::Approx(image.mean().item<double>()).epsilon(0.01));
  CHECK(shrink(at::rand({1, 3, 2, 1000}), 100).sizes() == at::IntArrayRef({1, 3, 1, 100}));
}

TEST_SUITE_END();
