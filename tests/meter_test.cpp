#include "shard/meter.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

using namespace mgpu;

TEST_SUITE_BEGIN("meter");

TEST_CASE("what a device is at: its phase, and work that has not ended counts") {
  Meter meter(DeviceId::cpu());
  CHECK(meter.status().doing == "");
  CHECK(meter.status().busy_seconds == 0.0);
  CHECK(meter.status().bytes_in_use > 0);
  {
    const Meter::PhaseScope phase(meter, Phase::Sample);
    CHECK(meter.status().doing == "sample");
    const Meter::Busy busy(meter);
    const DeviceStatus first = meter.status();
    {
      const Meter::Busy within(meter);  // counts nothing more
      while (meter.status().busy_seconds <= first.busy_seconds) std::this_thread::yield();
    }
    const DeviceStatus second = meter.status();
    CHECK(second.busy_seconds > first.busy_seconds);
    CHECK(second.clock_seconds > first.clock_seconds);
  }
  CHECK(meter.status().doing == "");
  const double done = meter.busy_seconds();
  CHECK(done > 0.0);
  CHECK(meter.busy_seconds() == done);
}

TEST_CASE("a device is watched from another thread while it works") {
  Meter meter(DeviceId::cpu());
  std::atomic<bool> stop = false;
  std::thread works([&] {
    while (!stop) {
      const Meter::PhaseScope phase(meter, Phase::Decode);
      const Meter::Busy busy(meter);
    }
  });
  double before = 0.0;
  for (int i = 0; i < 200; ++i) {
    const DeviceStatus status = meter.status();
    CHECK((status.doing == "decode" || status.doing == ""));
    CHECK(status.busy_seconds >= before);
    before = status.busy_seconds;
  }
  stop = true;
  works.join();
}

TEST_SUITE_END();
