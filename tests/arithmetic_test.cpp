#include "core/arithmetic.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <functional>

#include "core/elementwise.h"
#include "core/nn.h"
#include "core/ops.h"
#include "core/sha256.h"
#include "samplers/schedule.h"
#include "tests/testing.h"

using namespace mgpu;

namespace {

at::Tensor draw(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::kFloat);
}

/// The same values, `bytes` behind a multiple of 64.
at::Tensor moved(const at::Tensor& x, std::size_t bytes) {
  const at::Tensor room = at::empty({static_cast<std::int64_t>(x.nbytes() + bytes + 64)}, at::kByte);
  auto* place = room.mutable_data_ptr<std::uint8_t>();
  place += (64 - reinterpret_cast<std::uintptr_t>(place) % 64) % 64 + bytes;
  std::memcpy(place, x.const_data_ptr(), x.nbytes());
  return at::from_blob(
      place, x.sizes(), [room](void*) {}, x.options());
}

/// Whether a result has the same bits with every number of threads.
bool same_with_threads(const std::function<at::Tensor()>& compute) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor alone = compute();
  bool same = true;
  for (const int threads : {2, 3, 4, 7}) {
    at::set_num_threads(threads);
    same = same && at::equal(compute(), alone);
  }
  at::set_num_threads(before);
  return same;
}

}  // namespace

TEST_SUITE_BEGIN("arithmetic");

TEST_CASE("OpenMP's threads wait without spinning, unless the environment says otherwise") {
  CHECK((std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr));
  CHECK(std::getenv("MKL_CBWR") != nullptr);
}

TEST_CASE("a product's bits do not depend on where its factors lie") {
  for (const auto& [rows, in, out] : {std::array<std::int64_t, 3>{1, 256, 64},
                                      {1, 768, 3072},
                                      {77, 768, 768},
                                      {64, 96, 288},
                                      {300, 128, 130},
                                      {5, 33, 17}}) {
    const at::Tensor x = draw({rows, in}, 1), weight = draw({out, in}, 2), bias = draw({out}, 3);
    const at::Tensor y = at::linear(moved(x, 0), moved(weight, 0), moved(bias, 0));
    for (const std::size_t bytes : {4, 8, 16, 20, 32, 36, 60}) {
      CAPTURE(rows);
      CAPTURE(in);
      CAPTURE(bytes);
      CHECK(at::equal(at::linear(x, moved(weight, bytes), moved(bias, bytes)), y));
      CHECK(at::equal(at::linear(moved(x, bytes), weight, bias), y));
    }
  }
}

TEST_CASE("no operation's bits depend on the number of threads") {
  const LocalOps ops;
  const auto check = [](const char* name, const std::function<at::Tensor()>& compute) {
    CAPTURE(name);
    CHECK(same_with_threads(compute));
  };
  const at::Tensor x = draw({1, 333, 1031}, 1), weight = draw({517, 1031}, 2), bias = draw({517}, 3);
  const at::Tensor image = draw({1, 64, 61, 67}, 4), kernel = draw({96, 64, 3, 3}, 5), offset = draw({96}, 6);
  const at::Tensor planes = image.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor q = draw({1, 4, 333, 64}, 7), k = draw({1, 4, 333, 64}, 8), v = draw({1, 4, 333, 64}, 9);
  const Norm norm{draw({64}, 10), draw({64}, 11)};
  const Linear linear{weight, bias};
  check("linear", [&] { return ops.linear_col(x, linear); });
  check("linear of one row", [&] { return ops.linear_col(x.narrow(1, 0, 1), linear); });
  check("attention", [&] { return ops.attention(q, k, v, {}); });
  check("attention with a bias", [&] { return ops.attention(q, k, v, {.bias = draw({1, 4, 333, 333}, 12)}); });
  check("gelu", [&] { return elementwise::gelu_tanh(x); });
  check("geglu", [&] { return geglu(x.narrow(2, 0, 1030)); });
  check("silu", [&] { return elementwise::silu(x); });
  check("quick gelu", [&] { return elementwise::sigmoid(x); });
  check("layer norm", [&] { return layer_norm_modulate(x, x.narrow(1, 0, 1), x.narrow(1, 1, 1)); });
  check("group norm", [&] { return ops.group_norm(image, norm, 1e-6); });
  check("group norm, channels last", [&] { return ops.group_norm(planes, norm, 1e-6); });
  check("convolution", [&] { return ops.conv3x3(image, {kernel, offset}, 1); });
  check("convolution, channels last", [&] { return ops.conv3x3(planes, {kernel, offset}, 2); });
  check("rms norm", [&] { return x * at::rsqrt(x.square().mean(-1, true) + 1e-6); });
  check("softmax", [&] { return at::softmax(x, -1); });
}

TEST_CASE("constants have the same bits on every CPU") {
  const auto hash = [](const at::Tensor& x) {
    return sha256_hex(std::string_view(static_cast<const char*>(x.const_data_ptr()), x.nbytes()));
  };
  std::vector<double> numbers;
  for (int i = 0; i < 1024; ++i) numbers.push_back(i * 1.25);
  CHECK(hash(sinusoidal_embedding(numbers, 256)) == "f163ee57851884e71677fe33633aa37612bee3c37d5b21f99b6983a7a6b7e2be");
  CHECK(hash(sinusoidal_embedding(numbers, 320)) == "ab19ecf3db23f3eeac7fc621d9cd74895a5fc8797c3dafe965e50e524370338c");
  const RotaryTable table = rotary_table(at::arange(3 * 4096, at::kLong).view({-1, 3}), {16, 56, 56}, 10000.0);
  CHECK(hash(table.cos) == "7da6ec93d01bbf59eb86f2c70c81cef4bf6912b4868a8864ceddbf32a29db46b");
  CHECK(hash(table.sin) == "2b55a8a596b84b4ce236a74d472c9a7b455261874ea155d824c6457fdbbf7779");
}

TEST_SUITE_END();
