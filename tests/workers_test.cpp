#include <doctest/doctest.h>

#include <numeric>
#include <thread>
#include <vector>

#include "cli/render/run_queue.h"
#include "shard/worker.h"

// The queue of runs and the devices' workers, which threads share.

using namespace mgpu;

TEST_SUITE_BEGIN("workers");

TEST_CASE("the queue begins runs in order, as many as leave a device without work") {
  RunQueue queue({1, 1, 4, 1, 2}, 3);
  auto first = queue.next(), second = queue.next(), third = queue.next();
  CHECK(first->run() == 0);
  CHECK(second->run() == 1);
  CHECK(third->run() == 2);  // six passes are under way: enough
  std::unique_ptr<RunQueue::Slot> fourth;
  {
    const std::jthread waits([&] { fourth = queue.next(); });
    first.reset();  // five
    second.reset();
    third.reset();
  }
  CHECK(fourth->run() == 3);
  {
    const std::jthread waits([&] { CHECK(queue.next()->run() == 4); });
  }
  CHECK(queue.next() == nullptr);

  RunQueue stopped({1, 1}, 1);
  const auto slot = stopped.next();
  {
    const std::jthread waits([&] { CHECK(stopped.next() == nullptr); });
    stopped.stop();
  }
}

TEST_CASE("a worker that goes first does what was posted, and what that posts") {
  std::vector<int> order;
  {
    Worker second(DeviceId::cpu(), Worker::Runs::InThread);
    Worker first(DeviceId::cpu(), Worker::Runs::InThread);
    for (int i = 0; i < 50; ++i) first.post([&, i] { second.post([&, i] { order.push_back(i); }); });
    for (int i = 0; i < 50; ++i) first.post([&] { first.post([] {}); });
  }
  std::vector<int> all(50);
  std::iota(all.begin(), all.end(), 0);
  CHECK(order == all);
}

TEST_CASE("work on several workers is waited for before what it refers to goes, whatever is thrown") {
  for (const bool second_fails : {false, true}) {
    Worker a(DeviceId::cpu(), Worker::Runs::InThread), b(DeviceId::cpu(), Worker::Runs::InThread);
    int done = 0;
    try {
      Together together;
      together.begin(a, [&] {
        std::this_thread::yield();
        ++done;
      });
      if (second_fails) together.begin(b, [] { throw std::runtime_error("second"); });
      if (!second_fails) throw std::runtime_error("between");
      together.finish();
    } catch (const std::runtime_error& error) {
      CHECK(error.what() == std::string(second_fails ? "second" : "between"));
    }
    CHECK(done == 1);
  }
}

TEST_SUITE_END();
