#include "core/weights.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "core/error.h"
#include "core/ops.h"
#include "tests/tensor_writer.h"

using namespace mgpu;
using mgpu::test::bytes_of;
using mgpu::test::Entry;
using mgpu::test::Folder;

namespace {

std::string bytes_of_tensor(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {static_cast<const char*>(flat.data_ptr()), flat.nbytes()};
}

Weights open(const Folder& folder, const std::vector<Entry>& entries, at::ScalarType dtype,
             const std::string& prefix = "") {
  return {TensorFile::open(folder.write("m.safetensors", test::safetensors(entries))), prefix, dtype, at::kCPU};
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
    return "";
  } catch (const Error& error) {
    CHECK(error.code() == Exit::Usage);
    CHECK(error.where().file.ends_with("m.safetensors"));
    return error.message() + (error.hint().empty() ? "" : " | " + error.hint());
  }
}

Entry f8(const std::string& name, const std::vector<float>& values) {
  return {name,
          DType::F8_E4M3,
          {static_cast<std::int64_t>(values.size()), 1},
          bytes_of_tensor(at::tensor(values).to(at::kFloat8_e4m3fn))};
}

}  // namespace

TEST_SUITE_BEGIN("weights");

TEST_CASE("every type is read as its values") {
  const at::Tensor values = at::tensor(std::vector<float>{0.0f, 1.0f, -2.5f, 448.0f, 0.001953125f});
  const Folder folder;
  std::vector<Entry> entries;
  const std::vector<std::pair<DType, at::ScalarType>> floats{{DType::F64, at::kDouble},
                                                             {DType::F32, at::kFloat},
                                                             {DType::F16, at::kHalf},
                                                             {DType::BF16, at::kBFloat16},
                                                             {DType::F8_E4M3, at::kFloat8_e4m3fn},
                                                             {DType::F8_E5M2, at::kFloat8_e5m2}};
  for (const auto& [dtype, scalar] : floats) {
    CHECK((scalar_type(dtype) == scalar));
    entries.push_back({std::string(name_of(dtype)), dtype, {5}, bytes_of_tensor(values.to(scalar))});
  }
  const at::Tensor whole = at::tensor(std::vector<float>{0.0f, 1.0f, 100.0f});
  const std::vector<std::pair<DType, at::ScalarType>> integers{
      {DType::I64, at::kLong},   {DType::I32, at::kInt},    {DType::I16, at::kShort},  {DType::I8, at::kChar},
      {DType::U64, at::kUInt64}, {DType::U32, at::kUInt32}, {DType::U16, at::kUInt16}, {DType::U8, at::kByte}};
  for (const auto& [dtype, scalar] : integers) {
    CHECK((scalar_type(dtype) == scalar));
    entries.push_back({std::string(name_of(dtype)), dtype, {3}, bytes_of_tensor(whole.to(scalar))});
  }
  entries.push_back({"BOOL", DType::Bool, {2}, std::string("\0\1", 2)});
  const Weights weights = open(folder, entries, at::kFloat);
  for (const auto& [dtype, scalar] : floats) {
    const std::string name(name_of(dtype));
    CHECK_MESSAGE(at::equal(weights.get(name), values.to(scalar).to(at::kFloat)), name);
  }
  for (const auto& [dtype, scalar] : integers) {
    const std::string name(name_of(dtype));
    CHECK_MESSAGE(at::equal(weights.get(name), whole), name);
  }
  CHECK(at::equal(weights.get("BOOL"), at::tensor(std::vector<float>{0.0f, 1.0f})));
  CHECK((weights.get("F64").scalar_type() == at::kFloat));
}

TEST_CASE("a tensor of the right type is the mapping, and keeps it") {
  const Folder folder;
  at::Tensor kept;
  {
    const Weights weights = open(folder, {{"a", DType::F32, {2, 2}, bytes_of<float>({1, 2, 3, 4})}}, at::kFloat);
    kept = weights.get("a");
    CHECK((kept.data_ptr() == static_cast<const void*>(weights.file().bytes(*weights.file().find("a")).data())));
  }
  std::filesystem::remove(folder.path("m.safetensors"));
  CHECK(at::equal(kept, at::tensor(std::vector<float>{1, 2, 3, 4}).reshape({2, 2})));
}

TEST_CASE("scalars, empty tensors and tensors that are not aligned") {
  const Folder folder;
  const Weights weights = open(folder,
                               {{"odd", DType::U8, {1}},
                                {"b", DType::F32, {2}, bytes_of<float>({1, 2})},
                                {"scalar", DType::F32, {}, bytes_of<float>({3})},
                                {"empty", DType::F32, {0, 4}}},
                               at::kFloat);
  CHECK(at::equal(weights.get("b"), at::tensor(std::vector<float>{1, 2})));
  CHECK(reinterpret_cast<std::uintptr_t>(weights.get("b").data_ptr()) % 4 == 0);
  CHECK(weights.get("scalar").dim() == 0);
  CHECK(weights.get("scalar").item<float>() == 3.0f);
  CHECK((weights.get("empty").sizes() == at::IntArrayRef({0, 4})));
}

TEST_CASE("prefixes, layers and optional biases") {
  const Folder folder;
  const std::vector<Entry> entries{{"p.q.l.weight", DType::F32, {1, 2}, bytes_of<float>({1, 2})},
                                   {"p.q.l.bias", DType::F32, {1}, bytes_of<float>({5})},
                                   {"p.q.n.weight", DType::F32, {1}, bytes_of<float>({7})},
                                   {"p.q.c.weight", DType::F16, {1, 1, 1, 1}},
                                   {"p.q.c.bias", DType::F16, {1}}};
  for (const char* prefix : {"p", "p."}) {
    const Weights weights = open(folder, entries, at::kBFloat16, prefix);
    CHECK(weights.prefix() == "p.");
    for (const char* deeper : {"q", "q."}) {
      const Weights q = weights.at(deeper);
      CHECK(q.prefix() == "p.q.");
      CHECK(q.has("l.weight"));
      CHECK_FALSE(q.has("p.q.l.weight"));
      CHECK(q.shape("l.weight") == std::vector<std::int64_t>{1, 2});
      const Linear l = q.linear("l");
      CHECK(l.weight.is_plain(at::kBFloat16));
      CHECK(l.bias.item<float>() == 5.0f);
      CHECK_FALSE(q.linear("n").bias.defined());
      CHECK(q.norm("n").weight.item<float>() == 7.0f);
      CHECK_FALSE(q.norm("n").bias.defined());
      CHECK(q.norm("l").bias.defined());
      CHECK(q.conv("c").weight.dim() == 4);
    }
  }
}

TEST_CASE("a missing tensor is named with the nearest") {
  const Folder folder;
  const Weights weights = open(folder, {{"p.img_in.weight", DType::F32, {1}}}, at::kFloat, "p");
  CHECK(message_of([&] { weights.get("img_in.wieght"); }) ==
        "tensor \"p.img_in.wieght\" is missing | the nearest name in the file is \"p.img_in.weight\"");
  CHECK(message_of([&] { weights.shape("final_layer.adaLN_modulation.1.weight"); }) ==
        "tensor \"p.final_layer.adaLN_modulation.1.weight\" is missing");
  CHECK(message_of([&] { weights.conv("img_in"); }).starts_with("tensor \"p.img_in.bias\" is missing"));
}

TEST_CASE("scaled fp8 in either spelling") {
  const std::vector<float> values{1.0f, -3.5f, 448.0f};
  for (const char* spelling : {"scale_weight", "weight_scale"}) {
    for (const auto& shape : {std::vector<std::int64_t>{}, {1}, {1, 1}}) {
      const Folder folder;
      std::vector<Entry> entries{f8("l.weight", values),
                                 {std::string("l.") + spelling, DType::F32, shape, bytes_of<float>({0.3f})}};
      if (std::string_view(spelling) == "weight_scale") {
        const std::string mark = R"({"format": "float8_e4m3fn"})";
        entries.push_back({"l.comfy_quant", DType::U8, {static_cast<std::int64_t>(mark.size())}, mark});
        entries.push_back({"l.input_scale", DType::F32, {}, bytes_of<float>({2.0f})});
      } else {
        entries.push_back({"scaled_fp8", DType::F8_E4M3, {0}});
      }
      const Weights weights = open(folder, entries, at::kBFloat16);
      const Linear linear = weights.linear("l");
      CHECK((linear.weight.payload.scalar_type() == at::kFloat8_e4m3fn));
      CHECK(linear.weight.scale == 0.3f);
      CHECK(linear.weight.scales.empty());
      const at::Tensor expected = (at::tensor(values) * 0.3f).to(at::kBFloat16).reshape({3, 1});
      CHECK(at::equal(weights.get("l.weight"), expected));
      CHECK(at::equal(linear.weight.widened(at::kBFloat16), expected));
      CHECK(at::equal(linear.weight.unscaled(at::kFloat), at::tensor(values).reshape({3, 1})));
    }
  }
}

TEST_CASE("8-bit weights without a scale, and wide ones with one") {
  const Folder folder;
  const Weights weights = open(folder,
                               {f8("plain.weight", {2.0f}),
                                {"wide.weight", DType::F32, {1, 1}, bytes_of<float>({2.0f})},
                                {"wide.scale_weight", DType::F32, {}, bytes_of<float>({0.5f})},
                                {"weight", DType::F8_E5M2, {1, 1}, std::string(1, '\x3c')},
                                {"scale_weight", DType::F32, {}, bytes_of<float>({4.0f})}},
                               at::kFloat);
  CHECK((weights.linear("plain").weight.payload.scalar_type() == at::kFloat8_e4m3fn));
  CHECK(weights.linear("plain").weight.scale == 1.0);
  CHECK(weights.get("plain.weight").item<float>() == 2.0f);
  CHECK(weights.linear("wide").weight.is_plain(at::kFloat));  // the scale is spent: none is left to apply
  CHECK(weights.linear("wide").weight.plain().item<float>() == 1.0f);
  CHECK(weights.get("weight").item<float>() == 4.0f);
}

TEST_CASE("other quantisations are refused by name") {
  const auto marked = [](const std::string& mark) {
    const Folder folder;
    const Weights weights = open(
        folder,
        {{"l.weight", DType::U8, {2, 2}}, {"l.comfy_quant", DType::U8, {static_cast<std::int64_t>(mark.size())}, mark}},
        at::kFloat);
    return message_of([&] { weights.linear("l"); });
  };
  CHECK(marked(R"({"format": "nvfp4"})") ==
        "tensor \"l.weight\" is quantised as \"nvfp4\", which is not supported yet | use the model's fp8 or bf16 "
        "release");
  for (const char* mark : {"{", "[]", "{}", R"({"format": 4})"})
    CHECK(marked(mark) == "tensor \"l.comfy_quant\" is not a quantisation's description");
  const Folder folder;
  for (const auto& [shape, text] :
       {std::pair(std::vector<std::int64_t>{3}, "[3]"), {{1, 2}, "[1, 2]"}, {{2, 2}, "[2, 2]"}}) {
    const Weights blocks = open(folder, {f8("l.weight", {1, 2}), {"l.weight_scale", DType::F32, shape}}, at::kFloat);
    CHECK(
        message_of([&] { blocks.linear("l"); }) ==
        fmt::format("tensor \"l.weight_scale\" has shape {}: one scale per weight or per row (2) is supported", text));
  }
}

TEST_CASE("fp8 with one scale per row, described by a tensor, by the file's metadata or not at all") {
  const std::vector<float> values{1.0f, -3.5f, 448.0f, 0.8125f, 208.0f, -0.001953125f};
  const std::vector<float> factors{0.3f, 1.7f, 0.011f};
  const at::Tensor stored = at::tensor(values).view({3, 2});
  const at::Tensor exact = stored * at::tensor(factors).view({3, 1});
  const std::string mark = R"({"format": "float8_e4m3fn"})";
  const std::string metadata = R"({"_quantization_metadata":"{\"layers\":{\"l\":{\"format\":\"float8_e4m3fn\"}}}"})";
  const Entry weight{"l.weight", DType::F8_E4M3, {3, 2}, bytes_of_tensor(stored.to(at::kFloat8_e4m3fn))};
  for (const auto& shape : {std::vector<std::int64_t>{3}, {3, 1}}) {
    for (const char* described : {"", "by a tensor", "by metadata", "scale_weight"}) {
      CAPTURE(described);
      const Folder folder;
      const bool is_old = described == std::string_view("scale_weight");
      std::vector<Entry> entries{
          weight, {is_old ? "l.scale_weight" : "l.weight_scale", DType::F32, shape, bytes_of<float>(factors)}};
      if (described == std::string_view("by a tensor"))
        entries.push_back({"l.comfy_quant", DType::U8, {static_cast<std::int64_t>(mark.size())}, mark});
      const std::string path = folder.write(
          "m.safetensors",
          test::safetensors(entries, described == std::string_view("by metadata") ? metadata : std::string()));
      const Weights weights(TensorFile::open(path), "", at::kBFloat16, at::kCPU);
      Linear linear = weights.linear("l");
      CHECK((linear.weight.payload.scalar_type() == at::kFloat8_e4m3fn));
      CHECK(linear.weight.scale == 1.0);
      REQUIRE(linear.weight.scales.size() == 1);
      CHECK(linear.weight.tensors().size() == 2);
      CHECK(linear.weight.size(1) == 2);
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
        CHECK(at::equal(linear.weight.widened(dtype), exact.to(dtype)));
      CHECK(at::equal(linear.weight.rows(1, 2).widened(at::kFloat), exact.narrow(0, 1, 2)));
      CHECK(at::equal(weights.get("l.weight"), exact.to(at::kBFloat16)));
      const at::Tensor x = at::tensor({0.5F, -2.0F}).view({1, 2});
      CHECK(at::equal(LocalOps().linear_row(x, linear), at::linear(x, exact)));
    }
  }
}

TEST_CASE("many rows are scaled piece by piece, with the bits of one product") {
  const auto draw = [](at::IntArrayRef shape) {
    return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{3}));
  };
  Weight weight(draw({5, 1 << 20}).to(at::kFloat8_e5m2));
  weight.packing = &element_packing();
  weight.scales = {draw({5, 1})};
  CHECK(at::equal(weight.widened(at::kBFloat16), (weight.payload.to(at::kFloat) * weight.scales[0]).to(at::kBFloat16)));
  weight.scale = 0.3;
  CHECK(at::equal(weight.widened(at::kBFloat16),
                  (weight.payload.to(at::kFloat) * weight.scales[0] * 0.3).to(at::kBFloat16)));
}

namespace {

/// Two signed 4-bit numbers per byte, the low one first, with one scale per two columns: what a block format looks
/// like.
class Nibbles final : public Packing {
 public:
  std::string_view name() const override { return "nibbles"; }
  std::vector<std::int64_t> shape(const Weight& weight) const override {
    return {weight.payload.size(0), 2 * weight.payload.size(1)};
  }
  at::Tensor unpacked(const Weight& weight, at::ScalarType dtype) const override {
    const at::Tensor bytes = weight.payload.to(at::kInt);
    const at::Tensor numbers = at::stack({bytes.bitwise_and(15), at::bitwise_right_shift(bytes, 4)}, -1) - 8;
    return (numbers.to(at::kFloat) * weight.scales.at(0).unsqueeze(-1)).flatten(1).to(dtype);
  }
  Weight rows(const Weight& weight, std::int64_t first, std::int64_t count) const override {
    Weight out = weight;
    for (at::Tensor* tensor : out.tensors()) *tensor = tensor->narrow(0, first, count);
    return out;
  }
};

}  // namespace

TEST_CASE("a packing of another shape is multiplied, cut into rows and listed for the stream") {
  const Nibbles packing;
  Weight weight(at::tensor({0x98, 0x7f, 0x10, 0xa5}, at::kByte).view({2, 2}));
  weight.packing = &packing;
  weight.scale = 0.5;
  weight.scales = {at::tensor({1.0F, 2.0F, 4.0F, 8.0F}).view({2, 2})};
  const at::Tensor values = at::tensor({0.0F, 0.5F, 7.0F, -1.0F, -16.0F, -14.0F, -12.0F, 8.0F}).view({2, 4});
  CHECK(weight.size(0) == 2);
  CHECK(weight.size(1) == 4);
  CHECK_FALSE(weight.is_plain(at::kByte));
  CHECK(at::equal(weight.widened(at::kFloat), values));
  CHECK(at::equal(weight.as_matrix().rows(1, 1).widened(at::kFloat), values.narrow(0, 1, 1)));
  CHECK(weight.tensors() == std::vector<at::Tensor*>{&weight.payload, &weight.scales[0]});
  const at::Tensor x = at::arange(4, at::kFloat).view({1, 4});
  CHECK(at::equal(LocalOps().linear_row(x, {weight, {}}), at::linear(x, values)));
  CHECK_THROWS_WITH(weight.plain(), doctest::Contains("a weight packed as nibbles is read as if it were plain"));
}

TEST_CASE("rows of a linear layer share its memory and its scale") {
  Linear whole{at::arange(12, at::kFloat).view({6, 2}), at::arange(6, at::kFloat)};
  whole.weight.scale = 0.5;
  const Linear part = rows(whole, 2, 2);
  CHECK(at::equal(part.weight.payload, at::arange(4, 8, at::kFloat).view({2, 2})));
  CHECK(at::equal(part.bias, at::tensor({2.0F, 3.0F})));
  CHECK(part.weight.scale == 0.5);
  CHECK(part.weight.payload.data_ptr() == whole.weight.payload[2].data_ptr());
  CHECK_FALSE(rows({whole.weight, {}}, 0, 1).bias.defined());
}

TEST_CASE("a linear layer under names of its own keeps 8-bit weights") {
  const Folder folder;
  const Weights weights = open(folder, {f8("qkv_weight", {1.0F, 2.0F}), {"qkv_bias", DType::F16, {2}}}, at::kFloat, "");
  const Linear linear = weights.linear("qkv_weight", "qkv_bias");
  CHECK((linear.weight.payload.scalar_type() == at::kFloat8_e4m3fn));
  CHECK(linear.weight.scale == 1.0);
  CHECK((linear.bias.scalar_type() == at::kFloat));
  CHECK_FALSE(weights.linear("qkv_weight", "none").bias.defined());
}

TEST_SUITE_END();
