#include "core/hand_over.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "core/devices.h"
#include "core/memory.h"
#include "shard/meter.h"

using namespace mgpu;

namespace {

/// Work that a GPU is at for some time, and what it gives: 2^32 everywhere.
at::Tensor slow_sum(at::Device gpu) {
  at::Tensor x = at::ones({4096, 4096}, at::TensorOptions(at::kFloat).device(gpu));
  for (int i = 0; i < 32; ++i) x = x + x;
  return x;
}

}  // namespace

TEST_SUITE_BEGIN("hand_over");

TEST_CASE("what one GPU is still computing comes to another whole, with and without peer access") {
  const std::size_t gpus = survey_devices().gpus.size();
  if (gpus < 2) {
    MESSAGE("this machine has one GPU");
    return;
  }
  const at::Device from(at::kCUDA, 0), to(at::kCUDA, 1);
  for (const HandOver::Path kind : {HandOver::Path::Peer, HandOver::Path::MainMemory}) {
    for (int i = 0; i < 20; ++i) {
      at::Tensor sent;
      {
        const at::Tensor made = slow_sum(from);
        HandOver transfer(from, to, kind);
        sent = transfer.send(made);
        CHECK_FALSE(transfer.send(at::Tensor()).defined());
        if (i % 2 == 0) transfer.wait();
      }  // given up on every other time: the memory is used again at once
      const at::Tensor over = at::full({4096, 4096}, -1.0F, at::TensorOptions(at::kFloat).device(from));
      synchronize(from);
      synchronize(to);
      CHECK(sent.device() == to);
      CHECK(at::all(sent == 4294967296.0F).item<bool>());
    }
  }
  // A tensor with gaps and in another order.
  const at::Tensor odd = at::arange(4 * 6 * 8, at::TensorOptions(at::kFloat).device(from)).view({4, 6, 8});
  const at::Tensor part = odd.transpose(0, 2).narrow(1, 1, 3);
  for (const HandOver::Path kind : {HandOver::Path::Peer, HandOver::Path::MainMemory}) {
    HandOver transfer(from, to, kind);
    const at::Tensor sent = transfer.send(part);
    transfer.wait();
    CHECK(at::equal(sent.cpu(), part.cpu()));
  }
}

TEST_CASE("what a thread does on its side stream does not wait for the device's other work") {
  const at::Device gpu(at::kCUDA, 0);
  const at::Tensor slow = slow_sum(gpu);
  const QueueMark end(gpu);
  const SideStream aside(gpu);
  CHECK(at::full({1}, 3.0F, at::TensorOptions(at::kFloat).device(gpu)).item<float>() == 3.0F);
  end.precede_current_stream(gpu);
  CHECK(slow.max().item<float>() == 4294967296.0F);
}

TEST_CASE("a GPU is busy for as long as it computes, not for as long as work is queued") {
  const DeviceId id = DeviceId::cuda(0);
  Meter meter(id);
  {
    const Meter::Busy busy(meter);
    slow_sum(torch_device(id));
  }
  synchronize(torch_device(id));
  const double once = meter.busy_seconds();
  CHECK(once > 0.0);
  CHECK(meter.busy_seconds() == once);
  {
    const Meter::Busy busy(meter);
    const Meter::Busy within(meter);
    for (int i = 0; i < 10; ++i) slow_sum(torch_device(id));
  }
  synchronize(torch_device(id));
  CHECK(meter.busy_seconds() > 2 * once);
}

TEST_SUITE_END();
