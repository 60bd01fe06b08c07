#include "core/weights.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/ops.h"
#include "core/weight_patches.h"
#include "tests/tensor_writer.h"

using namespace mgpu;
using mgpu::test::Folder;

TEST_SUITE_BEGIN("weights");

namespace {

const at::Device kGpu(at::kCUDA, 0);

std::string bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// Adds a product of rank 16, of factors on whatever device the values are on.
class LowRank final : public WeightPatches {
 public:
  bool touches(std::string_view name) const override { return name.starts_with("patched."); }
  void apply(std::string_view, std::int64_t first, const at::Tensor& values) const override {
    CHECK(values.is_cuda());
    const std::int64_t rows = values.size(0), columns = values.size(1);
    const at::Tensor up = at::arange(first * 16, (first + rows) * 16, at::kFloat).sin().view({rows, 16});
    const at::Tensor down = at::arange(16 * columns, at::kFloat).cos().view({16, columns}) * 0.01;
    values.add_(at::mm(up.to(values.device()), down.to(values.device())));
  }
};

}  // namespace

TEST_CASE("a patched weight that is streamed has the bytes of one that is resident") {
  const Folder folder;
  const at::Tensor wide = at::randn({3072, 3072}), eight = (wide * 100).clamp(-448, 448).to(at::kFloat8_e4m3fn);
  const auto file = TensorFile::open(folder.write(
      "m.safetensors",
      test::safetensors({{"patched.wide.weight", DType::BF16, {3072, 3072}, bytes_of(wide.to(at::kBFloat16))},
                         {"patched.eight.weight", DType::F8_E4M3, {3072, 3072}, bytes_of(eight)},
                         {"patched.eight.weight_scale", DType::F32, {3072, 1}, bytes_of(at::rand({3072}) + 0.01)}})));
  const auto patches = std::make_shared<const LowRank>();
  const Weights weights(file, "patched", at::kBFloat16, kGpu, patches);
  const Weights from_cpu(file, "patched", at::kBFloat16, at::kCPU, patches);  // as encoders have them
  for (const char* name : {"wide", "eight"}) {
    const at::Tensor resident = weights.linear(name).weight.plain();
    const at::Tensor streamed = weights.in_main_memory().linear(name).weight.plain();
    CHECK(resident.is_cuda());
    CHECK_FALSE(streamed.is_cuda());
    CHECK(resident.cpu().equal(streamed));
    CHECK(resident.equal(from_cpu.on(kGpu).linear(name).weight.plain()));
  }
}

TEST_CASE("fp8 with one scale per row is widened to the values that the CPU gives") {
  const Folder folder;
  const at::Tensor eight = (at::randn({512, 256}) * 100).clamp(-448, 448).to(at::kFloat8_e4m3fn);
  const auto file = TensorFile::open(
      folder.write("m.safetensors",
                   test::safetensors({{"l.weight", DType::F8_E4M3, {512, 256}, bytes_of(eight)},
                                      {"l.weight_scale", DType::F32, {512, 1}, bytes_of(at::rand({512}) + 0.01)}})));
  const Linear on_gpu = Weights(file, "", at::kBFloat16, kGpu).linear("l");
  const Linear on_cpu = Weights(file, "", at::kBFloat16, at::kCPU).linear("l");
  CHECK(on_gpu.weight.scales.at(0).is_cuda());
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    CHECK(on_gpu.weight.widened(dtype).cpu().equal(on_cpu.weight.widened(dtype)));
}

TEST_SUITE_END();
