#include <doctest/doctest.h>

#include <algorithm>
#include <iterator>

#include "cli/job/job.h"
#include "cli/job/load_job.h"
#include "tests/drawn_weights.h"
#include "tests/rendering.h"
#include "tests/testing.h"

// Whole jobs of the UNet families, from the job file and an all-in-one checkpoint under the original names to the PNG.
// Models are small and drawn, so that they need no files. The references: tests/make_unet_picture_goldens.py.

using namespace mgpu;
using test::Entry;
using test::Folder;

namespace {

/// A part of a checkpoint beside the UNet: its name in unet_picture_parts.json, and its prefix.
struct OtherPart {
  const char* part;
  const char* prefix;
};

struct Checkpoint {
  const char* name;  ///< of the job and, with .safetensors, of the checkpoint
  const char* unet;  ///< in unet_models.json
  std::vector<OtherPart> encoders;
};

const Checkpoint kSd1{"sd1", "sd1", {{"clip_l", "cond_stage_model.transformer."}}};
const Checkpoint kSd1Inpaint{"sd1_inpaint", "sd1_inpaint", {{"clip_l", "cond_stage_model.transformer."}}};
const Checkpoint kSd2V{"sd2_v", "sd2", {{"open_clip", "cond_stage_model.model."}}};
const Checkpoint kSdxl{
    "sdxl",
    "sdxl",
    {{"clip_l", "conditioner.embedders.0.transformer."}, {"open_clip", "conditioner.embedders.1.model."}}};
const Checkpoint kRefiner{"refiner", "refiner", {{"open_clip", "conditioner.embedders.0.model."}}};

/// The autoencoder shows a 32nd of the range in 8 bits, which makes errors of a thousandth visible; SD 2's v-prediction
/// is known by the spread of one tensor.
void adjust(Entry& entry, const Checkpoint& checkpoint) {
  if (entry.name == "first_stage_model.decoder.conv_out.weight") test::scale(entry, 32);
  if (checkpoint.name == std::string("sd2_v") &&
      entry.name == "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias")
    test::scale(entry, 2);
}

std::string file_of(const Checkpoint& checkpoint) {
  std::vector<Entry> entries = test::drawn_unet(checkpoint.unet, "model.diffusion_model.");
  std::vector<OtherPart> others = checkpoint.encoders;
  others.push_back({"vae", "first_stage_model."});
  for (const OtherPart& other : others)
    std::ranges::move(test::drawn_model("unet_picture_parts.json", other.part, other.prefix),
                      std::back_inserter(entries));
  for (Entry& entry : entries) adjust(entry, checkpoint);
  return test::safetensors(entries);
}

/// Renders a family's golden job and compares every picture with the reference's.
Report check_pictures(const Checkpoint& checkpoint, std::size_t count) {
  const Folder folder;
  folder.write(std::string(checkpoint.name) + ".safetensors", file_of(checkpoint));
  const Job job = load_job(golden("unet_picture_" + std::string(checkpoint.name) + ".yaml"),
                           {parse_setting("output.directory=\"" + folder.path("out") + "\""),
                            parse_setting("model_paths=[\"" + folder.path("") + "\"]")});
  RenderResult result = test::render_all({job});
  CHECK(result.code == Exit::Ok);
  CHECK(result.reports.front().images.size() == count);
  for (const ImageReport& image : result.reports.front().images) {
    CAPTURE(image.file);
    CHECK(image.error.empty());
    CHECK(test::difference(test::pixels_of(folder.path("out/" + image.file)), test::pixels_of(golden(image.file))) <=
          1);
  }
  return result.reports.front();
}

}  // namespace

TEST_SUITE_BEGIN("unet_picture");

TEST_CASE("SD 1: weighted words in a batch, img2img, a soft mask, regions, clip_skip, an NVIDIA GPU's step noise") {
  check_pictures(kSd1, 9);
}

TEST_CASE("SD 1 for inpainting: with a mask, from a picture alone, and from nothing") {
  check_pictures(kSd1Inpaint, 4);
}

TEST_CASE("SD 2 with v-prediction, over Karras' levels") {
  check_pictures(kSd2V, 1);
}

TEST_CASE("SDXL: two chunks against one, the picture's sizes, Brownian and ancestral noise") {
  check_pictures(kSdxl, 3);
}

TEST_CASE("SDXL's refiner, with its aesthetic scores") {
  check_pictures(kRefiner, 1);
}

TEST_SUITE_END();
