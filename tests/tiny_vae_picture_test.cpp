#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>

#include "cli/files/pixels.h"
#include "cli/job/load_job.h"
#include "core/error.h"
#include "core/model_set.h"
#include "tests/rendering.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"
#include "vae/tiny_codec.h"
#include "vae/tiny_vae_sizes.h"

// Whole jobs whose `vae:` is a tiny autoencoder.

using namespace mgpu;
using test::Folder;
using test::pixels_of;
using test::read_all;

TEST_SUITE_BEGIN("tiny_vae_picture");

namespace {

constexpr const char* kPicture = "picture_schnell-0000-1234567.png";

Job job_with(const Folder& folder, const char* job, const std::string& directory,
             const std::vector<std::string>& settings = {}) {
  std::vector<Setting> all{parse_setting("output.directory=\"" + folder.path(directory) + "\""),
                           parse_setting("vae=\"" + golden("tiny_vae_flux.safetensors") + "\"")};
  for (const std::string& setting : settings) all.push_back(parse_setting(setting));
  return load_job(golden(job), all);
}

void check_memory(const Report& report) {
  for (const DeviceReport& device : report.devices) {
    CHECK(device.warnings.empty());
    for (const Phase phase : kPhases) CHECK(device.peak_bytes[phase] <= device.predicted_peak_bytes[phase]);
  }
}

}  // namespace

TEST_CASE("a job renders with it: the reference's latent, decoded") {
  const Folder folder;
  const RenderResult result = test::render_all({job_with(folder, "picture_schnell.yaml", "out")});
  REQUIRE(result.code == Exit::Ok);
  const Part vae = find_part(TensorFile::open(golden("tiny_vae_flux.safetensors")), kVaeRole);
  const LatentFormat format{16, 8, 0.3611, 0.1159};
  const at::Tensor latent = read(*TensorFile::open(golden("picture_cases.safetensors")), "schnell.0.latent");
  const at::Tensor expected =
      decode(latent, format, tiny_decoding(vae.as<TinyVaeSizes>(), weights_of(vae, at::kFloat, at::kCPU), format))[0];
  CHECK(test::difference(pixels_of(folder.path(std::string("out/") + kPicture)), to_rgb8(expected)) <= 1);

  const DeviceReport& device = result.reports[0].devices[0];
  const auto row = std::ranges::find(device.assignments, "vae", &Assignment::component);
  REQUIRE(row != device.assignments.end());
  CHECK(row->kind == "level");
  CHECK(row->first == 0);
  CHECK(row->last == 3);
  check_memory(result.reports[0]);
}

TEST_CASE("several devices give the same bytes, wherever the autoencoder is") {
  const Folder folder;
  REQUIRE(test::render_all({job_with(folder, "picture_schnell.yaml", "one")}).code == Exit::Ok);
  for (const char* device : {"cpu:0", "cpu:1"}) {
    CAPTURE(device);
    const Job job =
        job_with(folder, "picture_schnell.yaml", device,
                 {"gpu_ids=[\"cpu:0\", \"cpu:1\"]", "mode=shard", std::string("allocation.vae=\"") + device + "\""});
    const RenderResult result = test::render_all({job});
    REQUIRE(result.code == Exit::Ok);
    check_memory(result.reports[0]);
    CHECK(read_all(folder.path(std::string(device) + "/" + kPicture)) ==
          read_all(folder.path(std::string("one/") + kPicture)));
  }
}

TEST_CASE("it encodes init images, and inpaints with them, within the memory that was foreseen") {
  const Folder folder;
  const RenderResult result = test::render_all({job_with(folder, "edit.yaml", "out")});
  CHECK(result.code == Exit::Ok);
  for (const ImageReport& image : result.reports[0].images) CHECK(image.status == "ok");
  const DeviceReport& device = result.reports[0].devices[0];
  CHECK(device.peak_bytes.encode <= device.predicted_peak_bytes.encode);
  CHECK(device.peak_bytes.decode <= device.predicted_peak_bytes.decode);
}

TEST_CASE("a decoder alone renders the same, and is refused for init images") {
  const Folder folder;
  std::vector<test::Entry> entries;
  const auto both = TensorFile::open(golden("tiny_vae_flux.safetensors"));
  const std::string decoder = "taesd_decoder.";
  for (const auto& [name, info] : both->tensors()) {
    if (!name.starts_with(decoder)) continue;
    const auto bytes = both->bytes(info);
    entries.push_back({name.substr(decoder.size()),
                       info.dtype,
                       info.shape,
                       {reinterpret_cast<const char*>(bytes.data()), bytes.size()}});
  }
  const std::string path = folder.write("taef1_decoder.safetensors", test::safetensors(entries));
  REQUIRE(test::render_all({job_with(folder, "picture_schnell.yaml", "both")}).code == Exit::Ok);
  REQUIRE(test::render_all({job_with(folder, "picture_schnell.yaml", "alone", {"vae=\"" + path + "\""})}).code ==
          Exit::Ok);
  CHECK(test::difference(pixels_of(folder.path(std::string("both/") + kPicture)),
                         pixels_of(folder.path(std::string("alone/") + kPicture))) == 0);
  try {
    test::render_all({job_with(folder, "edit.yaml", "edit", {"vae=\"" + path + "\""})});
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == Exit::Usage);
    CHECK(error.message() == "\"init_image\" needs an encoder, and the autoencoder in " + path + " has none");
    CHECK(error.hint() == "name a whole autoencoder under \"vae\"");
  }
}

TEST_SUITE_END();
