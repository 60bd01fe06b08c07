#include "cli/files/png.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <lodepng.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>

#include "cli/job/picture_metadata.h"
#include "cli/job/read_job.h"
#include "core/error.h"

using namespace mgpu;

namespace {

const std::string job_text =
    "checkpoint: models/flux1-dev.safetensors\nencoders: {clip_l: /w/clip_l.safetensors}\n"
    "sampler: {steps: 28, guidance: 3.5, shift: {base: 0.5, max: 1.15}}\n"
    "images: [{prompt: \"a \\\"red\\\" fox\\n\xE7\x8B\x90\", negative: \"blur: x\", width: 512, height: 256, seed: "
    "18446744073709551615, batch: 2}]\n";

std::string record_of(const Job& job) {
  return picture_record(job, expand(std::span(&job, 1))[1], {ComputeType::Bf16, ComputeType::Fp32, ComputeType::Bf16},
                        {{"flux1-dev.safetensors", 34, "ab12"}});
}

}  // namespace

TEST_SUITE_BEGIN("png");

TEST_CASE("pixels are truncated, not rounded, and clamped") {
  const at::Tensor image = at::tensor({0.0f, 0.999f, 1.0f, 2.0f, -1.0f, 0.5f}).reshape({3, 1, 2});
  const Rgb8 picture = to_rgb8(image);
  CHECK(picture.width == 2);
  CHECK(picture.height == 1);
  CHECK(picture.pixels == std::vector<std::uint8_t>{0, 255, 0, 254, 255, 127});
  CHECK_THROWS_WITH_AS(to_rgb8(at::full({3, 1, 1}, std::nan(""))), "the picture has values that are not finite", Error);
}

TEST_CASE("pixels and text come back; Latin-1 goes into tEXt, the rest into iTXt, nothing into zTXt") {
  Rgb8 picture{3, 2, {}};
  for (int i = 0; i < 18; ++i) picture.pixels.push_back(static_cast<std::uint8_t>(i * 14));
  const std::string latin = fmt::format("{:a>3000}\nna\xC3\xAFve", "");
  const std::string chinese = "\xE7\x8B\x90";
  const std::string bytes = encode_png(picture, {{"parameters", latin}, {"mgpu_job", "{}"}, {"other", chinese}});
  CHECK(is_png(bytes));
  const PngFile file = decode_png(bytes, "a.png");
  CHECK(file.picture.pixels == picture.pixels);
  CHECK(file.text.at("parameters") == latin);
  CHECK(file.text.at("mgpu_job") == "{}");
  CHECK(file.text.at("other") == chinese);
  CHECK(bytes.find("tEXtparameters") != std::string::npos);
  CHECK(bytes.find("iTXtother") != std::string::npos);
  CHECK(bytes.find("zTXt") == std::string::npos);
  CHECK(bytes == encode_png(picture, {{"parameters", latin}, {"mgpu_job", "{}"}, {"other", chinese}}));
}

TEST_CASE("any PNG is read as 8-bit RGB") {
  const auto read_as = [](std::vector<unsigned char> raw, LodePNGColorType type, unsigned depth,
                          std::vector<unsigned char> palette = {}) {
    lodepng::State state;
    for (LodePNGColorMode* mode : {&state.info_raw, &state.info_png.color}) {
      mode->colortype = type;
      mode->bitdepth = depth;
      for (std::size_t i = 0; i + 3 < palette.size(); i += 4)
        lodepng_palette_add(mode, palette[i], palette[i + 1], palette[i + 2], palette[i + 3]);
    }
    state.encoder.auto_convert = 0;
    std::vector<unsigned char> png;
    REQUIRE(lodepng::encode(png, raw, 1, 1, state) == 0);
    return decode_png({reinterpret_cast<const char*>(png.data()), png.size()}, "a.png").picture.pixels;
  };
  using Bytes = std::vector<std::uint8_t>;
  CHECK(read_as({7}, LCT_GREY, 8) == Bytes{7, 7, 7});
  CHECK(read_as({0x80}, LCT_GREY, 1) == Bytes{255, 255, 255});
  CHECK(read_as({0x12, 0xFE}, LCT_GREY, 16) == Bytes{0x12, 0x12, 0x12});
  CHECK(read_as({1, 0xFF, 2, 0xFF, 3, 0xFF}, LCT_RGB, 16) == Bytes{1, 2, 3});
  CHECK(read_as({1, 2, 3, 0}, LCT_RGBA, 8) == Bytes{1, 2, 3});  // alpha is dropped, not multiplied in
  CHECK(read_as({9, 128}, LCT_GREY_ALPHA, 8) == Bytes{9, 9, 9});
  CHECK(read_as({0x40}, LCT_PALETTE, 2, {1, 2, 3, 255, 4, 5, 6, 0}) == Bytes{4, 5, 6});
}

TEST_CASE("a picture as a tensor: rows, columns and channels in their places, 255 is 1") {
  const at::Tensor t = to_tensor({2, 1, {0, 51, 255, 102, 153, 204}});
  REQUIRE(t.sizes() == at::IntArrayRef({1, 3, 1, 2}));
  CHECK(at::allclose(t.flatten(), at::tensor({0.0F, 0.4F, 0.2F, 0.6F, 1.0F, 0.8F})));
  CHECK(to_rgb8(t[0]).pixels == std::vector<std::uint8_t>{0, 51, 255, 102, 153, 204});
}

namespace {

std::string be32(std::uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 0xFF);
  return out;
}

std::string chunk(const std::string& type, const std::string& content) {
  const std::string checked = type + content;
  const auto sum = ::crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()));
  return be32(static_cast<std::uint32_t>(content.size())) + checked + be32(static_cast<std::uint32_t>(sum));
}

std::string deflated(const std::string& text) {
  uLong bytes = ::compressBound(text.size());
  std::string out(bytes, '\0');
  ::compress(reinterpret_cast<Bytef*>(out.data()), &bytes, reinterpret_cast<const Bytef*>(text.data()), text.size());
  out.resize(bytes);
  return out;
}

/// A grey picture of 8 bits: its size, chunks before the pixels, and the pixels before they are compressed.
std::string grey_png(std::uint32_t width, std::uint32_t height, const std::string& chunks, const std::string& rows) {
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", be32(width) + be32(height) + std::string("\x08\0\0\0\0", 5)) + chunks +
         chunk("IDAT", deflated(rows)) + chunk("IEND", "");
}

std::string fault_of(const std::string& png) {
  try {
    decode_png(png, "a.png");
  } catch (const Error& e) {
    CHECK(e.code() == Exit::Usage);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("text is read without the pixels, compressed or not, and no more of it than can be meant") {
  const std::string bomb = deflated(std::string(std::size_t{17} << 20, 'x'));
  const std::string text = chunk("tEXt", std::string("a\0gr\xFCn", 6)) +
                           chunk("zTXt", std::string("b\0\0", 3) + deflated("z")) +
                           chunk("iTXt", std::string("c\0\0\0en\0k\0\xE7\x8B\x90", 12)) +
                           chunk("iTXt", std::string("d\0\1\0\0\0", 6) + deflated("i")) +
                           chunk("zTXt", std::string("e\0\0", 3) + bomb) + chunk("tEXt", "no end");
  const std::string png = grey_png(1, 1, text, std::string(2, '\0'));
  const std::map<std::string, std::string> read = {{"a", "gr\xC3\xBCn"}, {"b", "z"}, {"c", "\xE7\x8B\x90"}, {"d", "i"}};
  CHECK(read_png_text(png, "a.png") == read);
  CHECK(decode_png(png, "a.png").text == read);
  CHECK(read_png_text(grey_png(1, 1, text, "damaged pixels"), "a.png") == read);
  for (std::size_t i = 0; i < png.size(); ++i) {
    CHECK_THROWS_AS(read_png_text(png.substr(0, i), "a.png"), Error);
    if (i % 97 != 0) continue;  // any byte that is another is noticed
    std::string other = png;
    other[i] = static_cast<char>(other[i] ^ 1);
    CHECK_THROWS_AS(read_png_text(other, "a.png"), Error);
  }
}

TEST_CASE("a picture takes no more memory than its file can be meant to hold") {
  const std::string prefix = "a.png: is no readable PNG: ";
  CHECK(fault_of(grey_png(60000, 60000, "", "")) ==
        prefix + "it has 60000x60000 pixels, and 268435456 are the most that are read");
  CHECK(fault_of(grey_png(16384, 16384, "", "x")) == prefix + "its 9 bytes of data cannot hold 16384x16384 pixels");
  CHECK(fault_of(grey_png(2, 2, "", std::string(std::size_t{1} << 26, '\0'))) == prefix + "its pixels are damaged");
  CHECK(fault_of(grey_png(0, 2, "", "")) == prefix + "its header is damaged");
  CHECK(fault_of(grey_png(2, 2, "", std::string(6, '\0'))) == "");
}

TEST_CASE("a damaged file is named") {
  CHECK_THROWS_WITH_AS(decode_png("\x89PNG\r\n\x1a\nxxxx", "a.png"), doctest::Contains("a.png: is no readable PNG: "),
                       Error);
}

TEST_CASE("parameters read as AUTOMATIC1111's do") {
  Job job = read_job(job_text, "job.yaml", "");
  const std::string without = a1111_parameters(job, expand(std::span(&job, 1))[1]);
  CHECK(without.find("CFG scale: 1, Seed: ") != std::string::npos);  // Stable Diffusion has no distilled guidance
  job.takes_guidance = true;
  CHECK(a1111_parameters(job, expand(std::span(&job, 1))[1]) ==
        "a \"red\" fox\n\xE7\x8B\x90\nNegative prompt: blur: x\n"
        "Steps: 28, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: "
        "18446744073709551615, "
        "Size: 512x256, Model: flux1-dev, Batch size: 2, Batch pos: 1, RNG: CPU, Version: mgpu-render 0.1.0");
}

TEST_CASE("a record holds what determines the picture, no folder, and gives its job back") {
  const Job job = read_job(job_text, "job.yaml", "");
  const std::string record = record_of(job);
  CHECK(
      record ==
      R"({"version":1,"job":{"checkpoint":"flux1-dev.safetensors","encoders":{"clip_l":"clip_l.safetensors"},)"
      R"("dtype":{"unet":"bf16","clip":"fp32","vae":"bf16"},"exact":true,"sampler":{"name":"euler","scheduler":"simple","steps":28,)"
      R"("cfg":1.0,"guidance":3.5,"denoise":1.0,"shift":{"base":0.5,"max":1.15},"step_noise":"cpu"},)"
      R"("images":[{"prompt":"a \"red\" fox\n\u72d0","negative":"blur: x","width":512,"height":256,)"
      R"("seed":18446744073709551615,"batch":2}]},)"
      R"("files":[{"name":"flux1-dev.safetensors","bytes":34,"sha256":"ab12"}],"in_batch":1})");
  const std::string yaml = record_to_yaml(record, "a.png");
  CHECK(yaml.starts_with(
      "# made with \"flux1-dev.safetensors\": 34 bytes, sha256 ab12\n# picture 1 of its batch, from 0\n"
      "checkpoint: \"flux1-dev.safetensors\"\n"));
  CHECK(record_of(read_job(yaml, "again.yaml", "")) == record);
  CHECK_THROWS_WITH_AS(record_to_yaml("{\"version\": 2}", "a.png"),
                       "a.png: its mgpu_job record is damaged, or of a later version", Error);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = record;
    changed.replace(changed.find(from), from.size(), to);
    try {
      record_to_yaml(changed, "a.png");
    } catch (const Error& e) {
      return e.message();
    }
    return std::string();
  };
  const std::string damaged = "its mgpu_job record is damaged: ";
  CHECK(with("\"exact\"", "\"mode\"") == damaged + "\"job.mode\" is a key that no record has");
  CHECK(with("flux1-dev.safetensors\"", "/flux1-dev.safetensors\"") ==
        damaged + "\"job.checkpoint\" is no file name without a folder");
  CHECK(with("clip_l.safetensors", "..") == damaged + "\"job.encoders.clip_l\" is no file name without a folder");
  CHECK(with("\"images\":[", "\"images\":[{},") == damaged + "\"job.images\" is no list of the right length");
  CHECK(with("ab12", "ab\\n12") == damaged + "\"files.0.sha256\" is no hash");
  CHECK(with("\"bytes\":34", "\"bytes\":[34]") == damaged + "\"files.0.bytes\" is no whole number");
}

TEST_CASE("a record says what a picture started from and was told beside its prompt") {
  const Job job = read_job(
      "checkpoint: c.safetensors\nimages: [{prompt: x, width: 64, height: 64, init_image: in/b.png, mask: m.png, "
      "sampler: "
      "{name: DPM++ 2M Karras, denoise: 0.6}, conditions: [{prompt: y, strength: 0.5}, {prompt: z, mask: in/n.png, "
      "end: "
      "0.75}]}]",
      "job.yaml", "");
  const Picture picture = expand(std::span(&job, 1))[0];
  const std::vector<FileIdentity> files = {{"c.safetensors", 34, "ab12"}, {"b.png", 5, "cd34"}};
  const std::string record = picture_record(job, picture, {}, files);
  CHECK(
      record.find(
          R"("sampler":{"name":"dpmpp_2m","scheduler":"karras","steps":20,"cfg":1.0,"guidance":3.5,"denoise":0.6,)") !=
      std::string::npos);
  CHECK(record.find(R"("seed":0,"batch":1,"conditions":[{"prompt":"y","strength":0.5,"start":0.0,"end":1.0},)"
                    R"({"prompt":"z","mask":"n.png","strength":1.0,"start":0.0,"end":0.75}],)"
                    R"("init_image":"b.png","mask":"m.png"}]})") != std::string::npos);
  const Job again = read_job(record_to_yaml(record, "a.png"), "again.yaml", "");
  CHECK(picture_record(again, expand(std::span(&again, 1))[0], {}, files) == record);
  CHECK(a1111_parameters(job, picture).find("Sampler: DPM++ 2M, Schedule type: Karras,") != std::string::npos);
  CHECK(a1111_parameters(job, picture).find(", Denoising strength: 0.6,") != std::string::npos);
}

TEST_CASE("a picture is a job: the same record, the same place in its batch, the same files") {
  const Job job = read_job(job_text, "job.yaml", "");
  const std::string record = record_of(job);
  const std::string png = encode_png({1, 1, {0, 0, 0}}, {{"mgpu_job", record}});
  const Job again = read_picture_job(png, "out/a.png", {});
  const std::vector<Picture> pictures = expand(std::span(&again, 1));
  REQUIRE(pictures.size() == 1);
  CHECK(pictures[0].in_batch == 1);
  CHECK(pictures[0].batch == 2);
  CHECK(pictures[0].file == "a-0001-18446744073709551615.png");
  CHECK(picture_record(again, pictures[0], {ComputeType::Bf16, ComputeType::Fp32, ComputeType::Bf16},
                       again.expected_files) == record);
  CHECK_NOTHROW(check_expected_files(again, {{"flux1-dev.safetensors", 34, "ab12"}}));
  Job read = again;
  read.file = "out/a.png";
  CHECK_THROWS_WITH_AS(check_expected_files(read, {{"flux1-dev.safetensors", 35, "ab12"}}),
                       "out/a.png: was made with another file \"flux1-dev.safetensors\": 34 bytes, sha256 ab12\n"
                       "  the one found has 35 bytes, sha256 ab12",
                       Error);
  // Two files may share a name: one of them is the right one.
  CHECK_NOTHROW(
      check_expected_files(read, {{"flux1-dev.safetensors", 35, "ab12"}, {"flux1-dev.safetensors", 34, "ab12"}}));
  CHECK_THROWS_WITH_AS(
      read_picture_job(encode_png({1, 1, {0, 0, 0}}, {}), "b.png", {}),
      "b.png: is a picture without an mgpu_job record\n  only pictures that mgpu-render made can be rendered again",
      Error);
}

TEST_SUITE_END();
