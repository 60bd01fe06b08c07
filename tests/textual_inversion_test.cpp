#include "core/text/textual_inversion.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <filesystem>

#include "core/error.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;
using mgpu::test::Entry;
using mgpu::test::Folder;

namespace {

std::string floats(std::size_t count, float value) {
  return test::bytes_of(std::vector<float>(count, value));
}

/// What the error says, `folder` shown as "F".
template <class Action>
std::string message_of(const std::string& folder, const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(error.code() == Exit::Usage);
    std::string text = error.what();
    for (auto at = text.find(folder); at != std::string::npos; at = text.find(folder))
      text.replace(at, folder.size(), "F");
    return text;
  }
  return "accepted";
}

}  // namespace

TEST_SUITE_BEGIN("textual_inversion");

TEST_CASE("the tensor that is meant for the encoder is read") {
  const Folder folder;
  folder.write("both.safetensors", test::safetensors({{"clip_g", DType::F32, {1, 3}, floats(3, 2.0F)},
                                                      {"clip_l", DType::F32, {2, 2}, floats(4, 1.0F)}}));
  folder.write("old.safetensors", test::safetensors({{"string_to_param.*", DType::F32, {2, 2}, floats(4, 3.0F)},
                                                     {"string_to_token.*", DType::I64, {1}}}));
  folder.write("params.safetensors",
               test::safetensors({{"a", DType::F32, {1}}, {"emb_params", DType::F32, {1, 2}, floats(2, 4.0F)}}));
  folder.write("one.safetensors", test::safetensors({{"<x>", DType::F32, {2}, floats(2, 5.0F)}}));
  const TextualInversions inversions({folder.path("")});
  CHECK(at::equal(inversions.vectors("both", "clip_l", 2), at::full({2, 2}, 1.0)));
  CHECK(at::equal(inversions.vectors("both.safetensors", "clip_g", 3), at::full({1, 3}, 2.0)));
  CHECK(at::equal(inversions.vectors("old", "clip_l", 2), at::full({2, 2}, 3.0)));
  CHECK(at::equal(inversions.vectors("params", "clip_h", 2), at::full({1, 2}, 4.0)));
  CHECK(at::equal(inversions.vectors("one", "clip_l", 2), at::full({1, 2}, 5.0)));
}

TEST_CASE("folders are searched in order, with the folders in them, and never left") {
  const Folder a, b;
  std::filesystem::create_directories(b.path("inner/deeper"));
  const auto file = [](float value) { return test::safetensors({{"x", DType::F32, {1}, floats(1, value)}}); };
  std::filesystem::create_directories(a.path("a"));
  a.write("a/same.safetensors", file(9.0F));
  a.write("same.safetensors", file(1.0F));
  b.write("same.safetensors", file(2.0F));
  const std::string deep = b.write("inner/deeper/deep.safetensors", file(3.0F));
  const TextualInversions inversions({a.path("absent"), a.path(""), b.path("")});
  CHECK(inversions.vectors("same", "clip_l", 1).item<float>() == 1.0F);
  CHECK(inversions.find("deep") == deep);
  CHECK(inversions.find("deeper/deep") == deep);
  const TextualInversions inner({b.path("inner")});
  CHECK_THROWS_AS(inner.find("../same"), Error);
  CHECK_THROWS_AS(inner.find(b.path("same")), Error);
}

TEST_CASE("what cannot be used is named, with what to do") {
  const Folder folder;
  const std::string root = folder.path("x").substr(0, folder.path("x").size() - 2);
  folder.write("wide.safetensors", test::safetensors({{"emb_params", DType::F32, {4, 3}}}));
  folder.write("many.safetensors", test::safetensors({{"a", DType::F32, {1, 2}}, {"clip_l", DType::F32, {1, 2}}}));
  folder.write("pickled.pt", "PK\x03\x04 and so on");
  const TextualInversions inversions({root, "/nowhere"});
  const auto message = [&](std::string_view name, std::string_view encoder) {
    return message_of(root, [&] { inversions.vectors(name, encoder, 2); });
  };
  CHECK(message("wide", "clip_g") ==
        "F/wide.safetensors: the textual inversion has shape [4, 3], and clip_g takes vectors of 2\n"
        "  it was trained for another family of models");
  CHECK(message("many", "clip_g") ==
        "F/many.safetensors: no vectors for clip_g among the tensors \"a\", \"clip_l\"\n"
        "  a textual inversion holds clip_g, emb_params or one tensor");
  CHECK(message("many", "clip_l") == "accepted");
  CHECK(message("pickled", "clip_l") ==
        "F/pickled.pt: is a pickled checkpoint, which can run code when it is loaded\n"
        "  convert it to safetensors first, on a machine you can spare: torch.load(file, weights_only=True), then "
        "safetensors.torch.save_file");
  CHECK(message("wibe", "clip_l") ==
        "there is no textual inversion \"wibe\"\n"
        "  looked in F, /nowhere and the folders in them; the nearest name is \"wide\"");
  CHECK(message("something else", "clip_l") ==
        "there is no textual inversion \"something else\"\n  looked in F, /nowhere and the folders in them");
  CHECK(message_of(root, [] { TextualInversions().find("x"); }) ==
        "there is no textual inversion \"x\"\n"
        "  put it into a folder \"embeddings\" beside the job file or in one of model_paths");
}

TEST_SUITE_END();
