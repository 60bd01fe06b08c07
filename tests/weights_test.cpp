#include "core/weights.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/error.h"
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
      CHECK((l.weight.scalar_type() == at::kBFloat16));
      CHECK(l.bias.item<float>() == 5.0f);
      CHECK(l.scale == 1.0);
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
      CHECK((linear.weight.scalar_type() == at::kFloat8_e4m3fn));
      CHECK(linear.scale == 0.3f);
      const at::Tensor expected = (at::tensor(values) * 0.3f).to(at::kBFloat16).reshape({3, 1});
      CHECK(at::equal(weights.get("l.weight"), expected));
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
  CHECK((weights.linear("plain").weight.scalar_type() == at::kFloat8_e4m3fn));
  CHECK(weights.linear("plain").scale == 1.0);
  CHECK(weights.get("plain.weight").item<float>() == 2.0f);
  CHECK(weights.linear("wide").weight.item<float>() == 1.0f);  // the scale is spent: none is left to apply
  CHECK(weights.linear("wide").scale == 1.0);
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
  const Weights rows = open(folder, {f8("l.weight", {1, 2}), {"l.weight_scale", DType::F32, {2, 1}}}, at::kFloat);
  CHECK(message_of([&] { rows.linear("l"); }) ==
        "tensor \"l.weight_scale\" has shape [2, 1]: only one scale a weight is supported yet");
}

TEST_CASE("rows of a linear layer share its memory and its scale") {
  const Linear whole{at::arange(12, at::kFloat).view({6, 2}), at::arange(6, at::kFloat), 0.5};
  const Linear part = rows(whole, 2, 2);
  CHECK(at::equal(part.weight, at::arange(4, 8, at::kFloat).view({2, 2})));
  CHECK(at::equal(part.bias, at::tensor({2.0F, 3.0F})));
  CHECK(part.scale == 0.5);
  CHECK(part.weight.data_ptr() == whole.weight[2].data_ptr());
  CHECK_FALSE(rows({whole.weight, {}, 1.0}, 0, 1).bias.defined());
}

TEST_CASE("a linear layer under names of its own keeps 8-bit weights") {
  const Folder folder;
  const Weights weights = open(folder, {f8("qkv_weight", {1.0F, 2.0F}), {"qkv_bias", DType::F16, {2}}}, at::kFloat, "");
  const Linear linear = weights.linear("qkv_weight", "qkv_bias");
  CHECK((linear.weight.scalar_type() == at::kFloat8_e4m3fn));
  CHECK(linear.scale == 1.0);
  CHECK((linear.bias.scalar_type() == at::kFloat));
  CHECK_FALSE(weights.linear("qkv_weight", "none").bias.defined());
}

TEST_SUITE_END();
