// Times decodes on GPUs. scripts/vae_bench.py makes the autoencoder, calls this and prints the table.
//   mgpu-vae-bench AUTOENCODER SIDExWAYxGPUS...    e.g. 1024xwholex1 4096xwholex4; ways: whole, slabs (level by level),
//                                                  thin (slabs of both levels at once), tiled
// One line of JSON each: milliseconds (median), GiB that the fullest GPU's tensors took, relative L2 error against
// fp32.

#include <ATen/ATen.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <future>
#include <map>

#include "core/arithmetic.h"
#include "core/clock.h"
#include "core/exchange.h"
#include "core/memory.h"
#include "core/part_shapes.h"
#include "shard/worker.h"
#include "vae/slabs.h"
#include "vae/tiled.h"
#include "vae/vae_sizes.h"

using namespace mgpu;

namespace {

struct Case {
  std::int64_t side = 0;
  std::string way;
  int gpus = 1;
};

Case parse_case(const std::string& text) {
  const std::size_t first = text.find('x'), second = text.rfind('x');
  return {std::stoll(text.substr(0, first)), text.substr(first + 1, second - first - 1),
          std::stoi(text.substr(second + 1))};
}

/// A worker each, that keeps its thread: libraries have handles a thread.
class Gpus {
 public:
  explicit Gpus(int count) {
    for (int i = 0; i < count; ++i)
      workers_.push_back(std::make_unique<Worker>(DeviceId::cuda(i), Worker::Runs::InThread));
  }
  Team team() {
    const auto begin = [this](std::size_t rank, std::function<void()> part) {
      return workers_[rank]->begin(std::move(part));
    };
    return {std::vector<double>(workers_.size(), 1.0),
            [this, begin](JointWork& together, std::size_t ranks, const auto& work) {
              workers_[0]->call([&] { together.run(ranks, begin, work); });
            }};
  }

 private:
  std::vector<std::unique_ptr<Worker>> workers_;
};

class Bench {
 public:
  explicit Bench(const std::string& path) : file_(TensorFile::open(path)) {
    const Weights weights(file_, "", at::kFloat, at::kCUDA);
    PartShapes shapes(*file_, "");
    sizes_ = read_vae_sizes(shapes);
  }

  void run(const Case& c) {
    const at::Tensor z = latent(c.side);
    std::vector<Decoder> decoders;
    for (int i = 0; i < c.gpus; ++i)
      decoders.emplace_back(sizes_,
                            Weights(file_, "", at::kBFloat16, at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(i))));
    Gpus gpus(c.gpus);
    const Team team = gpus.team();
    const auto decode = [&] {
      if (c.way == "tiled") return decode_in_tiles(decoders, team, z, {});
      if (c.way == "slabs") return decode_in_slabs(decoders, team, z, {});
      if (c.way == "thin") return decode_in_slabs(decoders, team, z, {.together = true});
      return decode_in_bands(decoders, team, z);
    };
    at::Tensor image = decode();
    const bool repeats = at::equal(image, decode());
    for (int i = 0; i < c.gpus; ++i) reset_peak_bytes(DeviceId::cuda(i));
    std::vector<double> times;
    image.reset();
    for (int i = 0; i < (c.side > 2048 ? 3 : 9); ++i) {
      const Clock::time_point start = Clock::now();
      image = decode();
      for (int gpu = 0; gpu < c.gpus; ++gpu) synchronize(torch_device(DeviceId::cuda(gpu)));
      times.push_back(1e3 * seconds_since(start));
    }
    std::ranges::sort(times);
    const Peak peak = fullest(c.gpus);
    const at::Tensor reference = exact(c.side).to(at::kCUDA);
    const double error = (image.to(at::kFloat).sub_(reference).norm() / reference.norm()).item<double>();
    fmt::print(
        "{{\"side\": {}, \"way\": \"{}\", \"gpus\": {}, \"ms\": {:.2f}, \"gib\": {:.2f}, \"error\": {:.4e}, "
        "\"repeats\": {}, \"sum\": \"{}\"}}\n",
        c.side, c.way, c.gpus, times[times.size() / 2], peak.gib, error, repeats, digest(image));
    std::fflush(stdout);
  }

 private:
  struct Peak {
    double gib = 0;
  };

  static Peak fullest(int gpus) {
    Peak out;
    for (int i = 0; i < gpus; ++i) {
      const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(i));
      out.gib = std::max(out.gib, static_cast<double>(stats.allocated_bytes[0].peak) / (1 << 30));
    }
    return out;
  }

  static std::string digest(const at::Tensor& image) {
    const at::Tensor bits = image.to(at::kBFloat16).contiguous().view(at::kShort).to(at::kLong);
    const at::Tensor places = at::arange(bits.numel(), bits.options()).view(bits.sizes()).remainder(65521) + 1;
    return fmt::format("{:x}", static_cast<std::uint64_t>((bits * places).sum().item<std::int64_t>()));
  }

  at::Tensor latent(std::int64_t side) const {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
    return at::randn({1, sizes_.latent_channels, side / 8, side / 8}, generator).to(at::kCUDA);
  }

  const at::Tensor& exact(std::int64_t side) {
    at::Tensor& out = exact_[side];
    if (!out.defined()) out = Decoder(sizes_, Weights(file_, "", at::kFloat, at::kCUDA)).forward(latent(side)).cpu();
    return out;
  }

  std::shared_ptr<const TensorFile> file_;
  VaeSizes sizes_;
  std::map<std::int64_t, at::Tensor> exact_;
};

}  // namespace

int main(int count, char** arguments) try {
  prefer_expandable_segments();
  set_exact_arithmetic();
  Bench bench(arguments[1]);
  for (int i = 2; i < count; ++i) bench.run(parse_case(arguments[i]));
  return 0;
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
