#include "core/copy_path.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>

#include "core/device_notes.h"
#include "core/error.h"

using namespace mgpu;

TEST_SUITE_BEGIN("copy_path");

namespace {

/// A copy between virtual devices that leaves bytes as they are.
at::Tensor sound(const at::Tensor& bytes) {
  return bytes.clone();
}

/// One that changes so many, from a place on.
SendBytes changing(std::int64_t first, std::int64_t count = 1) {
  return [=](const at::Tensor& bytes) {
    at::Tensor out = bytes.clone();
    out.narrow(0, first, count).bitwise_xor_(0x10);
    return out;
  };
}

}  // namespace

TEST_CASE("the bytes that are sent differ everywhere, and are the same in every process") {
  const at::Tensor bytes = check_bytes();
  CHECK(bytes.numel() == 4 << 20);
  CHECK(at::equal(bytes, check_bytes()));
  const at::Tensor counts = at::bincount(bytes.to(at::kInt));
  CHECK(counts.numel() == 256);
  CHECK(counts.min().item<std::int64_t>() > 15000);  // 16384 on average
  // A page that comes twice, or pages that come in another order, are seen.
  const at::Tensor pages = bytes.view({-1, 4096});
  CHECK_FALSE(at::equal(pages[0], pages[1]));
  CHECK(first_changed_byte([&](const at::Tensor& sent) { return sent.view({2, -1}).flip(0).reshape({-1}); }) == 0);
}

TEST_CASE("a single changed byte is found, wherever it is") {
  CHECK_FALSE(first_changed_byte(sound).has_value());
  for (const std::int64_t place : {0, 1, 4095, 4096, (4 << 20) - 1})
    CHECK(first_changed_byte(changing(place)) == place);
  CHECK(first_changed_byte(changing(70000, 4096)) == 70000);
  CHECK(first_changed_byte([](const at::Tensor& sent) { return at::zeros_like(sent); }).has_value());
}

TEST_CASE("peer access that changes bytes is not used, which the receiver's note says") {
  const DeviceId from = DeviceId::cpu(70), to = DeviceId::cpu(71);
  CHECK(checked_path(from, to, sound, sound) == CopyPath::Peer);
  CHECK(device_notes(to).empty());
  CHECK(checked_path(from, to, changing(4096), sound) == CopyPath::MainMemory);
  CHECK(device_notes(to) == std::vector<std::string>{"peer access from cpu:70 changes bytes (the first at 4096 of "
                                                     "4194304): copies from there pass through main memory"});
  CHECK(device_notes(from).empty());
  // Without peer access main memory is the way, and looked at too.
  CHECK(checked_path(from, to, {}, sound) == CopyPath::MainMemory);
}

TEST_CASE("main memory that changes bytes ends the job") {
  const DeviceId from = DeviceId::cpu(72), to = DeviceId::cpu(73);
  const auto refusal = [&](const SendBytes& by_peer) {
    try {
      checked_path(from, to, by_peer, changing(5));
    } catch (const Error& error) {
      CHECK(error.code() == Exit::Device);
      return error.message();
    }
    return std::string("no error");
  };
  const std::string why = "copies from cpu:72 to cpu:73 through main memory change bytes";
  CHECK(refusal({}) == why);
  CHECK(refusal(changing(1)) == why);
  CHECK(refusal(sound) == "no error");  // the way that is used is sound
}

TEST_CASE("a note is kept and said once, for each device") {
  std::vector<std::string> said;
  const DeviceId device = DeviceId::cpu(74);
  {
    const DeviceNoteListener listener([&](const std::string& text) { said.push_back(text); });
    for (int i = 0; i < 2; ++i) add_device_note(device, "is slow");
    add_device_note(DeviceId::cpu(75), "is slow");
  }
  add_device_note(device, "is slower");
  CHECK(said == std::vector<std::string>{"cpu:74: is slow", "cpu:75: is slow"});
  CHECK(device_notes(device) == std::vector<std::string>{"is slow", "is slower"});
}

TEST_SUITE_END();
