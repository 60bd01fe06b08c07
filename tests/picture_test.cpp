#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/files/png.h"
#include "cli/job/load_job.h"
#include "cli/render/render.h"
#include "core/fault_point.h"
#include "tests/rendering.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

// Whole jobs, from the job file to the PNG and the report, on small models.

using namespace mgpu;
using namespace mgpu::test;

TEST_SUITE_BEGIN("picture");

TEST_CASE("whole pictures are the reference pipeline's to 1 in any channel, and the same bytes a second time") {
  const Folder folder;
  const std::pair<const char*, std::vector<std::string>> jobs[] = {
      {"picture_dev", {"picture_dev-0000-7.png", "picture_dev-0001-18446744073709551615.png"}},
      {"picture_schnell", {"picture_schnell-0000-1234567.png"}}};
  for (const auto& [name, pictures] : jobs) {
    const std::string shown = name;  // clang captures no structured binding
    CAPTURE(shown);
    const auto run = [&, job_name = name](const char* directory) {
      const std::string file = golden(std::string(job_name) + ".yaml");
      const Job job = load_job(file, {parse_setting("output.directory=\"" + folder.path(directory) + "\"")});
      CHECK(render_all({job}).code == Exit::Ok);
    };
    run("first");
    run("second");
    for (const std::string& picture : pictures) {
      CAPTURE(picture);
      const std::string first = folder.path("first/" + picture);
      CHECK(difference(pixels_of(first), pixels_of(golden(picture))) <= 1);
      CHECK(read_all(first) == read_all(folder.path("second/" + picture)));
    }
  }
}

TEST_CASE(
    "pictures that start from pictures, keep parts of them, or are told several things, are the reference's to 1") {
  const Folder folder;
  const Job job = load_job(golden("edit.yaml"), {parse_setting("output.directory=\"" + folder.path("out") + "\"")});
  const RenderResult result = render_all({job});
  CHECK(result.code == Exit::Ok);
  REQUIRE(result.reports.front().images.size() == 4);
  for (const ImageReport& image : result.reports.front().images) {
    CAPTURE(image.file);
    CHECK(difference(pixels_of(folder.path("out/" + image.file)), pixels_of(golden(image.file))) <= 1);
  }
  // 5 steps of 2 images; 4 steps with a negative; 6 steps with a negative and two conditions, of which each acts on
  // some.
  const std::int64_t alone = 5 * 2 + 4 * 2 + 6 * 2, passes = result.reports.front().devices[0].passes;
  CHECK(passes > alone);
  CHECK(passes < alone + 6 * 2);
  const auto planned = [&](const Assignment& a) { return a.component == "vae" && a.kind == "encoder level"; };
  CHECK(std::ranges::count_if(result.reports.front().devices[0].assignments, planned) == 1);
  CHECK(result.reports.front().devices[0].warnings.empty());
}

TEST_CASE("pictures that start from pictures are the same on several devices") {
  const Folder folder;
  const auto render = [&](const std::string& name, const std::string& devices, const std::string& speed) {
    std::vector<Setting> settings = {parse_setting("output.directory=\"" + folder.path(name) + "\""),
                                     parse_setting("gpu_ids=" + devices)};
    if (!speed.empty()) settings.insert(settings.end(), {parse_setting("mode=shard"), parse_setting("speed=" + speed)});
    const RenderResult result = render_all({load_job(golden("edit.yaml"), settings)});
    CHECK(result.code == Exit::Ok);
    return result.reports.front();
  };
  const Report alone = render("alone", "[cpu:0]", "");
  for (const std::string speed : {"{cpu:0: 1}", "{cpu:0: 0.3}", "{cpu:1: 0.3}"}) {
    CAPTURE(speed);
    const Report shared = render("shared", "[cpu:0, cpu:1]", speed);
    CHECK(shared.mode == "shard");
    REQUIRE(shared.images.size() == alone.images.size());
    for (std::size_t i = 0; i < shared.images.size(); ++i) {
      CHECK(shared.images[i].error == "");
      CHECK(shared.images[i].sha256 == alone.images[i].sha256);
    }
    std::filesystem::remove_all(folder.path("shared"));
  }
}

TEST_CASE("an init image that cannot be encoded is refused before anything is loaded") {
  const Folder folder;
  const auto refusal = [&](const std::string& parts) {
    const Job job =
        golden_job(folder, "refused", "flux_schnell.safetensors", "{prompt: a boat, init_image: in.png}", parts);
    try {
      render_all({job});
    } catch (const Error& error) {
      CHECK(error.code() == Exit::Usage);
      return error.message() + " | " + error.hint();
    }
    return std::string("it renders");
  };
  folder.write("in.png", encode_png({40, 15, std::vector<std::uint8_t>(3 * 40 * 15)}, {}));
  CHECK(refusal(kParts) == "\"init_image\" is 40x15: too small | the smallest picture is 16x16");
  folder.write("in.png", encode_png({32, 32, std::vector<std::uint8_t>(3 * 32 * 32)}, {}));
  std::vector<Entry> decoder = entries_of("vae_flux.safetensors");
  std::erase_if(decoder, [](const Entry& entry) { return entry.name.starts_with("encoder."); });
  const std::string file = folder.write("decoder.safetensors", test::safetensors(decoder));
  const std::string encoders = std::string(kParts).substr(0, std::string(kParts).find("vae:"));
  CHECK(refusal(encoders + "vae: decoder.safetensors\n") == "\"init_image\" needs an encoder, and the autoencoder in " +
                                                                file +
                                                                " has none | name a whole autoencoder under \"vae\"");
  CHECK_FALSE(std::filesystem::exists(folder.path("refused")));
}

TEST_CASE("a mask of zeros gives the init image back, and one of ones is no mask") {
  const Folder folder;
  const auto flat = [&](const std::string& name, std::uint8_t value) {
    folder.write(name, encode_png({32, 32, std::vector<std::uint8_t>(3 * 32 * 32, value)}, {}));
  };
  flat("white.png", 255);
  flat("black.png", 0);
  flat("grey.png", 128);
  const auto edit = [&](const std::string& name, const std::string& mask, const std::string& sampler = "steps: 2") {
    const Job job = golden_job(
        folder, name, "flux_schnell.safetensors",
        "{prompt: a boat, seed: 5, init_image: grey.png" + mask + ", sampler: {denoise: 0.7, " + sampler + "}}");
    REQUIRE(render_all({job}).code == Exit::Ok);
    return pixels_of(folder.path(name + "/" + name + "-0000-5.png"));
  };
  const Rgb8 whole = edit("whole", ""), kept = edit("kept", ", mask: black.png");
  CHECK(difference(edit("all", ", mask: white.png"), whole) == 0);
  CHECK(difference(kept, whole) > 1);
  // What is kept does not depend on noise or steps: it is the autoencoder's own picture of the init image.
  CHECK(difference(edit("other", ", mask: black.png", "steps: 5"), kept) == 0);
  // ddim is euler but for the noise over what a mask keeps.
  CHECK(difference(edit("ddim", "", "steps: 2, name: ddim"), whole) == 0);
  CHECK(difference(edit("soft", ", mask: grey.png"), edit("soft_ddim", ", mask: grey.png", "steps: 2, name: ddim")) >
        1);
}

TEST_CASE("a mask is scaled whole onto the latent, as ComfyUI's SetLatentNoiseMask is, where the init image is cut") {
  const Folder folder;
  const auto white_from = [&](const std::string& name, int width, int first) {
    Rgb8 picture{width, 32, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * 32 * width), 0)};
    for (int i = 0; i < 32 * width; ++i)
      if (i % width >= first) std::fill_n(picture.pixels.begin() + 3 * i, 3, std::uint8_t{255});
    folder.write(name, encode_png(picture, {}));
  };
  const auto edit = [&](const std::string& name, const std::string& init, const std::string& mask) {
    const Job job = golden_job(folder, name, "flux_schnell.safetensors",
                               "{prompt: a boat, seed: 5, init_image: " + init + ", mask: " + mask + "}");
    REQUIRE(render_all({job}).code == Exit::Ok);
    return pixels_of(folder.path(name + "/" + name + "-0000-5.png"));
  };
  // 39 pixels become 4 latent columns, the last sampled between 33 and 34: white. Of the 32 that are left of the
  // picture it would lie between 30 and 31 of the 39: black.
  white_from("init.png", 39, 39);
  white_from("mask.png", 39, 33);
  white_from("cut_init.png", 32, 32);
  white_from("last_column.png", 32, 24);
  white_from("nothing.png", 32, 32);
  const Rgb8 odd = edit("odd", "init.png", "mask.png");
  CHECK(difference(odd, edit("cut", "cut_init.png", "last_column.png")) == 0);
  CHECK(difference(odd, edit("kept", "cut_init.png", "nothing.png")) > 1);
}

TEST_CASE("runs, batches and conditionings: seeds, passes and blocks are counted as they are") {
  const Folder folder;
  const Job job = golden_job(folder, "many", "flux_dev.safetensors",
                             "{prompt: a boat, width: 32, height: 32, seed: 5, count: 2},"
                             "{prompt: a boat, width: 32, height: 32, seed: 5, batch: 3, sampler: {steps: 3}},"
                             "{prompt: a boat, negative: fog, width: 32, height: 32, seed: 9, sampler: {cfg: 2.0}},"
                             "{prompt: a boat, negative: fog, width: 32, height: 32, seed: 9, sampler: {cfg: 1.0}}",
                             kParts, "");
  const RenderResult result = render_all({job});
  CHECK(result.code == Exit::Ok);
  REQUIRE(result.reports.size() == 1);
  const Report& report = result.reports[0];
  CHECK(report.status == "ok");
  std::vector<std::uint64_t> seeds;
  for (const ImageReport& image : report.images) seeds.push_back(image.seed);
  CHECK(seeds == std::vector<std::uint64_t>{5, 6, 5, 5, 5, 9, 9});
  REQUIRE(report.devices.size() == 1);
  // steps x conditionings x images: two runs of 2, three images of 3, one of 2 with a negative, one of 2 without.
  CHECK(report.devices[0].passes == 2 * 2 + 3 * 3 + 2 * 2 + 2);
  int planned = 0;
  for (const Assignment& a : report.devices[0].assignments) planned += a.component == "unet" ? a.blocks : 0;
  CHECK(planned > 0);
  CHECK(report.devices[0].blocks_executed_per_pass == planned);
  CHECK(report.devices[0].warnings.empty());

  const auto picture = [&](int index) {
    return pixels_of(folder.path("many/" + report.images[static_cast<std::size_t>(index)].file));
  };
  CHECK(difference(picture(5), picture(6)) > 1);  // the negative acts
  CHECK(difference(picture(0), picture(1)) > 1);
  CHECK(difference(picture(2), picture(3)) > 1);
  CHECK(difference(picture(3), picture(4)) > 1);
}

TEST_CASE("the first image of a batch is the single render, and each alone is what it is in the batch") {
  const Folder folder;
  const std::string image = "{prompt: a boat, width: 32, height: 32, seed: 5";
  const Job batch = golden_job(folder, "batch", "flux_schnell.safetensors", image + ", batch: 2}");
  CHECK(render_all({batch}).code == Exit::Ok);
  CHECK(difference(pixels_of(folder.path("batch/batch-0000-5.png")),
                   boat(folder, "single", "flux_schnell.safetensors")) == 0);

  const Job alone = golden_job(folder, "alone", "flux_schnell.safetensors", image + ", batch: 2}");
  RenderOptions options;
  options.only = parse_only("1");
  CHECK(render_all({alone}, options).code == Exit::Ok);
  CHECK_FALSE(std::filesystem::exists(folder.path("alone/alone-0000-5.png")));
  CHECK(difference(pixels_of(folder.path("alone/alone-0001-5.png")),
                   pixels_of(folder.path("batch/batch-0001-5.png"))) == 0);
}

TEST_CASE("a latent that is not finite fails its pictures, naming the step, and leaves the other jobs alone") {
  const Folder folder;
  std::vector<Entry> damaged = entries_of("flux_schnell.safetensors");
  for (Entry& entry : damaged) {
    if (entry.name != "final_layer.linear.bias") continue;
    const std::string nan = entry.dtype == DType::F32 ? std::string("\0\0\xc0\x7f", 4) : std::string("\xc0\x7f", 2);
    entry.data.replace(0, nan.size(), nan);
  }
  folder.write("damaged.safetensors", test::safetensors(damaged));
  const Job bad = golden_job(folder, "bad", "damaged.safetensors",
                             std::string(kBoat) + "," + "{prompt: a sun, width: 32, height: 32, seed: 6}");
  const Job good = golden_job(folder, "good", "flux_schnell.safetensors", kBoat);
  const RenderResult result = render_all({bad, good});
  CHECK(result.code == Exit::ImageFailed);
  REQUIRE(result.reports.size() == 2);
  CHECK(result.reports[0].status == "failed");
  REQUIRE(result.reports[0].images.size() == 2);
  for (const ImageReport& image : result.reports[0].images) {
    CHECK(image.status == "failed");
    CHECK(image.error.starts_with("step 1 of 2: the latent is not finite ("));
    CHECK(image.sha256.empty());
    CHECK_FALSE(std::filesystem::exists(folder.path("bad/" + image.file)));
  }
  CHECK(result.reports[1].status == "ok");
  CHECK(std::filesystem::exists(folder.path("good/good-0000-5.png")));
  CHECK(nlohmann::json::parse(read_all(folder.path("bad/report.json")))["status"] == "failed");
}

TEST_CASE("a picture that cannot be written leaves the others of its job") {
  const Folder folder;
  const Job job = golden_job(folder, "blocked", "flux_schnell.safetensors",
                             std::string(kBoat) + "," + "{prompt: a sun, width: 32, height: 32, seed: 6}");
  fault_hook = [&](std::string_view place) {  // behind the checks, which refuse it
    if (place == "sample") std::filesystem::create_directories(folder.path("blocked/blocked-0000-5.png/x"));
  };
  RenderOptions options;
  options.overwrite = true;
  const RenderResult result = render_all({job}, options);
  fault_hook = nullptr;
  CHECK(result.code == Exit::ImageFailed);
  CHECK(result.reports[0].status == "partial");
  CHECK(result.reports[0].images[0].status == "failed");
  CHECK(result.reports[0].images[1].status == "ok");
}

TEST_CASE("a job that does not fit is refused before anything is written, with what would fit") {
  const Folder folder;
  const auto refusal = [&](const std::string& image, const std::string& more) {
    Job job = golden_job(folder, "refused", "flux_schnell.safetensors", image, kParts, more);
    job.placement.gpu_ids.value = {DeviceId::cpu(0)};  // which, unlike cpu, does not count the program itself
    try {
      render_all({job});
    } catch (const Error& error) {
      CHECK(error.code() == Exit::DoesNotFit);
      return error.message() + " | " + error.hint();
    }
    return std::string("it fits");
  };
  const std::string wide = "{prompt: a boat, width: 1024, height: 512}";
  CHECK(refusal(kBoat, "vram_limit: 1MB\n") ==
        "cpu:0 needs 8.9 MB to sample and may use 1.0 MB: 7.9 MB short | it takes a device or a vram_limit of 9MB");
  CHECK(refusal(wide, "decode: {way: whole}\nvram_limit: 31MB\n") ==
        "cpu:0 needs 61.5 MB to decode and may use 31.0 MB: 30.5 MB short | pictures of 304x144 would fit");
  CHECK(refusal(wide, "decode: {way: whole}\nvram_limit: 60MB\n") ==
        "cpu:0 needs 61.5 MB to decode and may use 60.0 MB: 1.5 MB short | dtype: bf16 would fit");
  CHECK_FALSE(std::filesystem::exists(folder.path("refused/report.json")));
  // What was offered fits.
  CHECK(refusal(kBoat, "vram_limit: 9MB\n") == "it fits");
  CHECK(refusal("{prompt: a boat, width: 304, height: 144, sampler: {steps: 1}}", "vram_limit: 31MB\n") == "it fits");
}

TEST_CASE("--part and --resume: each makes its share, and only what is missing or was made otherwise") {
  const Folder folder;
  const std::string images = "{prompt: a boat, width: 32, height: 16, seed: 1, count: 4}";
  const Job job = golden_job(folder, "shared", "flux_schnell.safetensors", images);
  RenderOptions options;
  for (int i = 0; i < 2; ++i) {
    options.part = PartOfRun{i, 2};
    const RenderResult result = render_all({job}, options);
    CHECK(result.reports[0].images.size() == 2);
    CHECK(std::filesystem::exists(folder.path(i == 0 ? "shared/report-0-of-2.json" : "shared/report-1-of-2.json")));
  }
  options = {};
  options.resume = true;
  std::filesystem::remove(folder.path("shared/shared-0002-3.png"));
  const RenderResult result = render_all({job}, options);
  std::string statuses;
  for (const ImageReport& image : result.reports[0].images) statuses += image.status + " ";
  CHECK(statuses == "kept kept ok kept ");
  CHECK(result.reports[0].devices[0].passes == 2);
}

TEST_SUITE_END();
