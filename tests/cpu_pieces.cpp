#include "tests/cpu_pieces.h"

#include <algorithm>
#include <numeric>

#include "shard/worker.h"

namespace mgpu::test {

std::vector<EncoderPiece> cpu_pieces(const std::vector<int>& blocks) {
  const auto runs = blocks.size() == 1 ? Worker::Runs::InCaller : Worker::Runs::InThread;
  const auto count = static_cast<std::size_t>(std::accumulate(blocks.begin(), blocks.end(), 0));
  std::vector<EncoderPiece> out;
  std::ptrdiff_t first = 0;
  for (const int own : blocks) {
    std::vector<bool> held(count, false);
    std::fill_n(held.begin() + first, own, true);
    first += own;
    const auto worker = std::make_shared<Worker>(DeviceId::cpu(), runs);
    out.push_back({at::kCPU, HeldBlocks(std::move(held)),
                   [worker](std::function<void()> work) { return worker->begin(std::move(work)); }});
  }
  return out;
}

}  // namespace mgpu::test
