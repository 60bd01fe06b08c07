#include "core/weight_patches.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include <algorithm>

#include "core/model_set.h"
#include "core/need_parts.h"
#include "core/sha256.h"
#include "shard/engine.h"
#include "shard/make_plan.h"
#include "shard/needs.h"
#include "tests/model_sets.h"
#include "tests/tensor_writer.h"
#include "tests/testing.h"

using namespace mgpu;
using mgpu::test::Entry;
using mgpu::test::Folder;

namespace {

at::Tensor drawn_by(const std::string& name, at::IntArrayRef shape) {
  return at::randn(shape,
                   at::make_generator<at::CPUGeneratorImpl>(std::stoull(sha256_hex(name).substr(0, 12), nullptr, 16)));
}

/// Adds a product of rank 2 to matrices and convolutions, and one column of that to vectors, of the tensors whose names
/// end so.
class LowRank final : public WeightPatches {
 public:
  explicit LowRank(std::vector<std::string> ends) : ends_(std::move(ends)) {}

  bool touches(std::string_view name) const override {
    return std::ranges::any_of(ends_, [&](const std::string& end) { return name.ends_with(end); });
  }
  void apply(std::string_view name, std::int64_t first, const at::Tensor& values) const override {
    CHECK((values.scalar_type() == at::kFloat));
    CHECK(values.is_contiguous());
    const std::int64_t columns = values.numel() / values.size(0);
    const at::Tensor up = drawn_by(fmt::format("{}.up", name), {std::int64_t{1} << 12, 2}) * 0.05;
    const at::Tensor down = drawn_by(fmt::format("{}.down", name), {2, columns}) * 0.05;
    values.view({values.size(0), columns}).add_(at::mm(up.narrow(0, first, values.size(0)), down));
  }

 private:
  std::vector<std::string> ends_;
};

DType type_of(at::ScalarType dtype) {
  return dtype == at::kFloat ? DType::F32 : dtype == at::kHalf ? DType::F16 : DType::BF16;
}

/// The part as a file whose weights are changed already, its own part found by its role. `dtype`: what changed weights
/// are kept in.
Part changed_by_hand(const Folder& folder, const std::string& name, const Part& part, const WeightPatches& patches,
                     at::ScalarType dtype) {
  std::vector<Entry> entries;
  int changed = 0;
  for (const auto& [tensor, info] : part.file->tensors()) {
    at::Tensor values = mapped_tensor(part.file, info).clone();
    DType kept = info.dtype;
    if (patches.touches(tensor)) {
      ++changed;
      values = values.to(at::kFloat);
      patches.apply(tensor, 0, values);
      values = values.to(dtype);
      kept = type_of(dtype);
    }
    entries.push_back(
        {tensor, kept, info.shape, std::string(static_cast<const char*>(values.const_data_ptr()), values.nbytes())});
  }
  CHECK(changed > 0);
  const auto file = TensorFile::open(folder.write(name + ".safetensors", test::safetensors(entries)));
  return find_part(file, *part.row->role);
}

DeviceRoom cpu_room(int index) {
  DeviceRoom out;
  out.id = DeviceId::cpu(index);
  out.total_bytes = out.limit_bytes = std::uint64_t{64} << 30;
  return out;
}

/// Where the diffusion model and the encoders lie; "" where the plan decides.
struct Placing {
  int devices = 1;
  std::string unet = {}, encoders = {};
  bool keeps_precomputed = true;
};

/// EncodedInputs of two prompts, predictions of two steps and a decoded latent, all of it by one engine.
std::vector<at::Tensor> results(const ModelSet& models, const Placing& placing) {
  std::vector<DeviceRoom> rooms;
  for (int i = 0; i < placing.devices; ++i) rooms.push_back(cpu_room(i));
  PlacementRequest request{.mode = PlacementRequest::Mode::Auto,
                           .evaluations = 4,
                           .passes_a_run = 4,
                           .texts_a_run = 2,
                           .donors = {cpu_room(-1), cpu_room(7)}};
  if (!placing.unet.empty()) request.allocation["unet"] = parse_allocation(placing.unet);
  for (const Part& encoder : models.encoders)
    if (!placing.encoders.empty())
      request.allocation[std::string(text_encoder(encoder).key())] = parse_allocation(placing.encoders);
  Plan plan = make_plan(component_needs(models, {}, {64, 64, 256}), rooms, request);
  plan.keeps_precomputed = placing.keeps_precomputed;
  int streamed = 0;
  for (const PlannedDevice& device : plan.devices)
    for (const Assignment& a : device.assignments) streamed += a.streamed ? a.blocks : 0;
  CHECK((streamed > 0) == (placing.unet.find("cpu,") != std::string::npos));
  Engine engine(models, ComputeDtypes{}, plan);
  const std::vector<Conditioning> told = engine.encode(std::vector<PromptText>{{"a boat at night"}, {"bright sun"}});
  std::vector<at::Tensor> out;
  for (const Conditioning& one : told) {
    out.push_back(one.context);
    if (one.pooled.defined()) out.push_back(one.pooled);
  }
  engine.load_diffusion();
  const std::vector<RunConditioning> texts = {{&told[0]}, {&told[1], true}};
  const std::vector<double> timesteps = {0.75, 0.25};
  const Engine::Run run = engine.begin_run(timesteps, texts, {.width = 64, .height = 64});
  const std::int64_t channels = models.training().latent.channels;
  const at::Tensor x = at::randn({1, channels, 8, 8}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t{5}));
  const std::vector<std::size_t> both = {0, 1};
  for (const double timestep : timesteps)
    for (at::Tensor& prediction : engine.evaluate(run, x, timestep, both)) out.push_back(std::move(prediction));
  return out;
}

bool same(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::ranges::equal(a, b, [](const at::Tensor& x, const at::Tensor& y) { return x.equal(y); });
}

/// The patched set gives, wherever its weights lie, the bytes of files whose weights are changed.
void check_patched(const Folder& folder, const ModelSet& models, const std::vector<std::string>& ends) {
  const auto patches = std::make_shared<const LowRank>(ends);
  ModelSet patched = models, by_hand = models;
  patched.diffusion.patches = patched.vae.patches = patches;
  for (Part& encoder : patched.encoders) encoder.patches = patches;
  by_hand.diffusion = changed_by_hand(folder, "diffusion", models.diffusion, *patches, at::kFloat);
  by_hand.vae = changed_by_hand(folder, "vae", models.vae, *patches, at::kFloat);
  for (std::size_t i = 0; i < models.encoders.size(); ++i)
    by_hand.encoders[i] = changed_by_hand(folder, fmt::format("encoder{}", i), models.encoders[i], *patches,
                                          stored_type(models.encoders[i]));
  const std::vector<at::Tensor> expected = results(by_hand, {});
  const std::vector<at::Tensor> unchanged = results(models, {});
  CHECK_FALSE(same(unchanged, expected));
  for (const Placing& placing :
       {Placing{}, Placing{.keeps_precomputed = false}, Placing{.unet = "cpu:0,40%;cpu,30%;cpu:7,30%"},
        Placing{.devices = 3, .unet = "cpu:0,34%;cpu:1,33%;cpu:2,33%", .encoders = "cpu:0,50%;cpu:1,50%"},
        Placing{.devices = 3,
        .unet = "cpu:0,25%;cpu,25%;cpu:1,25%;cpu:2,25%",
        .encoders = "cpu:0,50%;cpu,50%",
        .keeps_precomputed = false}}) {
    CAPTURE(placing.devices);
    CAPTURE(placing.unet);
    CAPTURE(placing.keeps_precomputed);
    CHECK(same(results(patched, placing), expected));
  }
  // The autoencoder's weights, which no prediction shows.
  const Part &own = patched.vae, &hand = by_hand.vae;
  int changed = 0;
  for (const auto& [name, info] : own.file->tensors()) {
    if (!name.starts_with(own.prefix) || !patches->touches(name)) continue;
    const std::string bare = name.substr(own.prefix.size());
    changed += weights_of(own, at::kFloat, at::kCPU).get(bare).equal(weights_of(hand, at::kFloat, at::kCPU).get(bare));
  }
  CHECK(changed > 0);
}

std::string bytes_of_tensor(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// Remembers the rows that it is given, and adds 1 to each.
class AddsOne final : public WeightPatches {
 public:
  explicit AddsOne(bool all_rows = false) : all_rows_(all_rows) {}
  bool touches(std::string_view name) const override { return !name.starts_with("same."); }
  void apply(std::string_view name, std::int64_t first, const at::Tensor& values) const override {
    seen.emplace_back(fmt::format("{} {}+{}", name, first, values.size(0)));
    values.add_(1);
  }
  bool needs_all_rows(std::string_view) const override { return all_rows_; }

  mutable std::vector<std::string> seen;

 private:
  bool all_rows_;
};

}  // namespace

TEST_SUITE_BEGIN("weight_patches");

TEST_CASE("a patched Flux has the bytes of files that are changed, wherever its weights lie") {
  const Folder folder;
  check_patched(
      folder, test::deeper_flux_set(folder, 3, 5),
      {"img_attn.qkv.weight", "txt_mlp.2.bias", "img_mod.lin.weight", "modulation.lin.weight", "linear1.weight",
       "key_norm.scale", "img_in.weight", "final_layer.linear.weight", "time_in.in_layer.weight",
       "self_attn.q_proj.weight", "layer_norm2.bias", "position_embedding.weight", "SelfAttention.q.weight",
       "DenseReluDense.wo.weight", "decoder.mid.block_1.conv1.weight", "decoder.mid.attn_1.q.weight"});
}

TEST_CASE("a patched UNet has the bytes of files that are changed, wherever its weights lie") {
  const Folder folder;
  check_patched(
      folder, test::unet_set(folder),
      {"attn1.to_q.weight", "attn2.to_k.weight", "attn2.to_v.weight", "in_layers.2.weight", "emb_layers.1.weight",
       "proj_in.weight", "out_layers.0.bias", "skip_connection.weight", "time_embed.0.weight", "mlp.fc1.weight",
       "final_layer_norm.weight", "decoder.mid.block_1.conv1.weight"});
}

TEST_CASE("a patched weight is widened, changed in fp32 and rounded once; others stay the mapping") {
  const Folder folder;
  const at::Tensor stored = at::tensor({1.0F, -3.5F, 0.40625F, 448.0F}).view({2, 2});
  const std::string eight = bytes_of_tensor(stored.to(at::kFloat8_e4m3fn));
  const auto scales = test::bytes_of<float>({0.3F, 1.7F});
  const auto file = TensorFile::open(folder.write(
      "m.safetensors", test::safetensors({{"same.weight", DType::BF16, {2}, std::string("\x80\x3f\x80\x3f")},
                                          {"row.weight", DType::F8_E4M3, {2, 2}, eight},
                                          {"row.weight_scale", DType::F32, {2, 1}, scales},
                                          {"one.weight", DType::F8_E4M3, {2, 2}, eight},
                                          {"one.scale_weight", DType::F32, {}, scales.substr(0, 4)},
                                          {"scalar", DType::F32, {}, test::bytes_of<float>({4.0F})},
                                          {"empty", DType::F32, {0, 3}}})));
  const auto patches = std::make_shared<AddsOne>();
  const Weights weights(file, "", at::kBFloat16, at::kCPU, patches);
  CHECK((weights.get("same.weight").const_data_ptr() == file->bytes(*file->find("same.weight")).data()));
  const Linear by_row = weights.linear("row"), by_one = weights.linear("one");
  const at::Tensor factors = at::tensor({0.3F, 1.7F}).view({2, 1});
  CHECK(by_row.weight.is_plain(at::kBFloat16));
  CHECK(by_row.weight.plain().equal((stored * factors + 1).to(at::kBFloat16)));
  CHECK(by_one.weight.plain().equal((stored * 0.3F + 1).to(at::kBFloat16)));
  CHECK(weights.get("scalar").item<float>() == 5.0F);
  CHECK(weights.get("scalar").dim() == 0);
  CHECK(weights.get("empty").sizes() == at::IntArrayRef({0, 3}));
  CHECK(patches->seen == std::vector<std::string>{"row.weight 0+2", "one.weight 0+2", "scalar 0+1", "scalar 0+1"});
  // In main memory, on another device and deeper they stay.
  CHECK(weights.in_main_memory().linear("row").weight.plain().equal(by_row.weight.plain()));
  CHECK(weights.on(at::kCPU).at("row").get("weight").equal(by_row.weight.plain()));
}

TEST_CASE("a large tensor is patched in ranges of rows that its shape decides, or at once when that is needed") {
  const Folder folder;
  const std::string path = folder.write(
      "m.safetensors", test::safetensors({{"a", DType::F16, {5, 1 << 20}, std::string(std::size_t{10} << 20, '\0')}}));
  for (const bool all_rows : {false, true}) {
    const auto patches = std::make_shared<AddsOne>(all_rows);
    const Weights weights(TensorFile::open(path), "", at::kHalf, at::kCPU, patches);
    CHECK(weights.get("a").equal(at::ones({5, 1 << 20}, at::kHalf)));
    CHECK(patches->seen == (all_rows ? std::vector<std::string>{"a 0+5"} : std::vector<std::string>{"a 0+4", "a 4+1"}));
    CHECK(weights.get("a").equal(at::ones({5, 1 << 20}, at::kHalf)));  // the file is as it was
  }
}

TEST_CASE("memory is planned for what patched weights become") {
  const Folder folder;
  const ModelSet models = test::deeper_flux_set(folder, 3, 5);
  Part part = models.diffusion;
  const std::uint64_t narrow = loaded_bytes(part, at::kBFloat16);
  part.patches = std::make_shared<const LowRank>(std::vector<std::string>{"linear1.weight"});
  CHECK(loaded_bytes(part, at::kBFloat16) == narrow);  // fp32 in the file, bf16 either way
  CHECK(loading_bytes(part, at::kBFloat16) > loading_bytes(models.diffusion, at::kBFloat16));
  const std::string name = "single_blocks.0.linear1.weight";
  TensorInfo info = *part.file->find(name);
  info.dtype = DType::F8_E4M3;
  info.end = info.begin + static_cast<std::uint64_t>(info.count());
  CHECK(loaded_bytes(models.diffusion, name, info, at::kBFloat16) == info.bytes());
  CHECK(loaded_bytes(part, name, info, at::kBFloat16) == 2 * info.bytes());
  // One scale per row stays fp32, one per weight is counted as a number of the computing type.
  const TensorInfo scales{DType::F32, {64, 1}, 0, 256};
  CHECK(loaded_bytes(part, "single_blocks.0.linear1.weight_scale", scales, at::kBFloat16) == 256);
}

TEST_SUITE_END();
