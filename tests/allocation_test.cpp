#include "shard/allocation.h"

#include <doctest/doctest.h>

#include <random>

using namespace mgpu;

namespace {

std::string normal(std::string_view text) {
  return to_string(parse_allocation(text));
}

/// "column: message | hint", the column from 0.
std::string fault(std::string_view text) {
  try {
    parse_allocation(text);
  } catch (const AllocationError& e) {
    CHECK(e.column() <= text.size());
    return std::to_string(e.column()) + ": " + e.what() + (e.hint().empty() ? "" : " | " + e.hint());
  }
  return "no error";
}

}  // namespace

TEST_SUITE_BEGIN("allocation");

TEST_CASE("a string is taken apart") {
  const AllocationString parsed = parse_allocation(" cuda:0 , 1.5gb ; cpu:1 , * # cuda:0 ; 4.0 ; cuda:1 , cpu ");
  REQUIRE(parsed.entries.size() == 2);
  CHECK(parsed.entries[0].device == DeviceId::cuda(0));
  CHECK((parsed.entries[0].amount.kind == AllocationAmount::Kind::Bytes));
  CHECK(parsed.entries[0].amount.bytes == std::uint64_t{3} << 29);
  CHECK(parsed.entries[0].column == 1);
  CHECK(parsed.entries[0].amount_column == 10);
  CHECK(parsed.entries[1].device == DeviceId::cpu(1));
  CHECK((parsed.entries[1].amount.kind == AllocationAmount::Kind::Rest));
  REQUIRE(parsed.tail);
  CHECK(parsed.tail->compute == DeviceId::cuda(0));
  CHECK(parsed.tail->virtual_bytes == std::uint64_t{4} << 30);
  CHECK((parsed.tail->donors == std::vector{DeviceId::cuda(1), DeviceId::cpu()}));
}

TEST_CASE("the normal form") {
  CHECK(normal("cuda:0,60%;cuda:1,40%") == "cuda:0,60%;cuda:1,40%");
  CHECK(normal("0, 33.30 % ;1,066.7%") == "cuda:0,33.3%;cuda:1,66.7%");
  CHECK(normal("cuda:0,.5gb") == "cuda:0,512mb");
  CHECK(normal("cuda:0,4GiB;cpu,*") == "cuda:0,4gb;cpu,*");
  CHECK(normal("cuda:0,4g;cpu,900M") == "cuda:0,4gb;cpu,900mb");
  CHECK(normal("cuda:0,2048kb;cpu,1023b") == "cuda:0,2mb;cpu,1023b");
  CHECK(normal("cuda:0,0.2126;cpu,.0851") == "cuda:0,0.2126;cpu,0.0851");
  CHECK(normal("cuda:0,1") == "cuda:0,1");
  CHECK(normal("cuda:0,0.00001%;cpu,*") == "cuda:0,0.00001%;cpu,*");
  CHECK(normal("#cuda:0") == "#cuda:0");
  CHECK(normal("#cuda:0;0") == "#cuda:0");
  CHECK(normal("# 0 ; 2 ; cpu") == "#cuda:0;2;cpu");
  CHECK(normal("cpu:0,*#cpu:0;.25;cpu:1,cpu") == "cpu:0,*#cpu:0;0.25;cpu:1,cpu");
}

TEST_CASE("what DisTorch2 takes and means something") {
  CHECK(normal("#cuda:0;4.0;cpu") == "#cuda:0;4;cpu");
  CHECK(normal("cuda:0,4gb;cpu,*#cuda:0") == "cuda:0,4gb;cpu,*#cuda:0");
  CHECK(normal("cuda:0,4gb;cpu,*#cuda:0;4.0;cpu") == "cuda:0,4gb;cpu,*#cuda:0;4;cpu");
  CHECK(normal("cuda:0,4gb;cpu,*") == "cuda:0,4gb;cpu,*");
  CHECK(normal("cuda:0,25%;cpu,75%") == "cuda:0,25%;cpu,75%");
  CHECK(normal("cuda:0,8%;cuda:1,8%;cpu,4%") == "cuda:0,8%;cuda:1,8%;cpu,4%");
  CHECK(normal("cuda:0,0.2126;cpu,0.0851") == "cuda:0,0.2126;cpu,0.0851");
  CHECK(normal("cuda:0,4gb;cuda:1,8gb;cpu,*") == "cuda:0,4gb;cuda:1,8gb;cpu,*");
  CHECK(normal("cuda:0,0.95;cuda:1,0.95;cpu,0.50") == "cuda:0,0.95;cuda:1,0.95;cpu,0.5");
  CHECK(normal("#cpu;2.0;cpu") == "#cpu;2;cpu");  // the checkpoint node's default for CLIP
}

TEST_CASE("what DisTorch2 documents and gets wrong") {
  CHECK(normal("cuda:0,50%;cpu,*") == "cuda:0,50%;cpu,*");  // ValueError there
  CHECK(normal("cuda:0,.5gb;cpu,*") == "cuda:0,512mb;cpu,*");
  CHECK(normal("cuda:0,4gb; cpu,*") == "cuda:0,4gb;cpu,*");
  CHECK(fault("cuda:0,4tb;cpu,*") ==
        "8: \"tb\" is no unit | units are %, b, kb, mb and gb; no unit: a fraction of the device");
  CHECK(fault("cuda:0,4tbx") ==
        "8: \"tbx\" is no unit | units are %, b, kb, mb and gb; no unit: a fraction of the device");
  CHECK(fault("cuda:0,5e9") ==
        "8: \"e9\" is no unit | units are %, b, kb, mb and gb; no unit: a fraction of the device");
  CHECK(fault("mps,0.5") == "0: \"mps\" is no device | a device is cuda:N, cpu or cpu:N");
  CHECK(fault("cuda:0,50%;cpu,4gb") ==
        "15: bytes beside percentages | all amounts have one unit; * may stand beside any");
  CHECK(fault("cuda:0,4gb;cpu,0.5") ==
        "15: fractions of a device beside bytes | all amounts have one unit; * may stand beside any");
  CHECK(fault("cuda:0,4gb;cuda:1,*;cuda:0,2gb") == "20: cuda:0 is given twice | a device has one amount");
  CHECK(fault("cuda:0,5gb*") ==
        "8: \"gb*\" is no unit | units are %, b, kb, mb and gb; no unit: a fraction of the device");
}

TEST_CASE("what is wrong, and at which column") {
  const std::string amounts = " | an amount is 60%, 4gb (mb, kb, b), a fraction of the device such as 0.5, or *";
  CHECK(fault("") == "0: the allocation is empty | an example: cuda:0,60%;cuda:1,40%");
  CHECK(fault("   ") == "3: the allocation is empty | an example: cuda:0,60%;cuda:1,40%");
  CHECK(fault("cuda:0") == "6: cuda:0 has no amount" + amounts);
  CHECK(fault("cuda:0,") == "7: cuda:0 has no amount" + amounts);
  CHECK(fault("cuda:0,x") == "7: \"x\" is no amount" + amounts);
  CHECK(fault("cuda:0,1.2.3%") == "7: \"1.2.3%\" is no amount" + amounts);
  CHECK(fault("cuda:0,50%;;cpu,50%") == "11: an entry is empty | an entry is a device and an amount: cuda:0,60%");
  CHECK(fault("cuda:0,50%;") == "11: an entry is empty | an entry is a device and an amount: cuda:0,60%");
  CHECK(fault(";cuda:0,50%") == "0: an entry is empty | an entry is a device and an amount: cuda:0,60%");
  CHECK(fault("cuda:0,0%") == "7: \"0%\" is not above 0 | leave the device out");
  CHECK(fault("cuda:0,1gb;cpu,0.0gb") == "15: \"0.0gb\" is not above 0 | leave the device out");
  CHECK(fault("cuda:0,-4gb") == "7: \"-4gb\" is not above 0 | leave the device out");
  CHECK(fault("cuda:0,0.2b") == "7: \"0.2b\" is less than a byte");
  CHECK(fault("cuda:0,1.5") ==
        "7: \"1.5\" is more than the whole device | a bare number is a fraction of the device's memory, from 0 to 1; "
        "write 1.5gb or 1.5%");
  CHECK(fault("cuda:0,9000000gb") == "7: \"9000000gb\" is too large" + amounts);
  CHECK(fault("cuda:0,9000000%") == "7: \"9000000%\" is too large" + amounts);
  CHECK(fault("cuda:0,60%,cuda:1,40%") == "11: \"cuda:1\" follows the amount of cuda:0 | entries are separated by ;");
  CHECK(fault("cuda:0,60%;cuda:1,40%;cpu,*") ==
        "26: nothing is left for *: the percentages add up to 100 | leave the device out, or lower a percentage");
  CHECK(fault("cuda:x,1gb") == "0: \"cuda:x\" is no device | a device is cuda:N, cpu or cpu:N");
  CHECK(fault("gpu0,1gb") == "0: \"gpu0\" is no device | a device is cuda:N, cpu or cpu:N");
}

TEST_CASE("what is wrong behind #") {
  const std::string end = " | the end is #compute;virtual_gb;donor: #cuda:0;4.0;cpu";
  CHECK(fault("#") == "1: no compute device follows #" + end);
  CHECK(fault("cuda:0,1gb#;4;cpu") == "11: no compute device follows #" + end);
  CHECK(fault("cuda:0,1gb#cuda:0#cpu") == "18: a second # in the allocation");
  CHECK(fault("#cuda:0;four;cpu") == "8: \"four\" is no number of gigabytes" + end);
  CHECK(fault("#cuda:0;;cpu") == "8: \"\" is no number of gigabytes" + end);
  CHECK(fault("#cuda:0;-1;cpu") == "8: \"-1\" is no number of gigabytes" + end);
  CHECK(fault("#cuda:0;4gb;cpu") == "8: \"4gb\" is no number of gigabytes" + end);
  CHECK(fault("#cuda:0;4") == "9: no donor holds the 4 GB | name the device that lends memory: #cuda:0;4.0;cpu");
  CHECK(fault("#cuda:0;4;cpu,cuda:1,cpu") == "21: cpu is given twice | a donor is named once");
  CHECK(fault("#cuda:0;4;cpu;cuda:1") == "14: \"cuda:1\" follows the donors");
  CHECK(fault("#cuda:0;4;ram") == "10: \"ram\" is no device | a device is cuda:N, cpu or cpu:N");
}

TEST_CASE("any value survives its normal form") {
  std::mt19937_64 random(7);
  using Kind = AllocationAmount::Kind;
  for (int round = 0; round < 2000; ++round) {
    AllocationString value;
    const Kind kind = std::array{Kind::Percent, Kind::Bytes, Kind::Fraction}[random() % 3];
    const auto count = random() % 4;
    for (std::uint64_t i = 0; i < count; ++i) {
      AllocationAmount amount{kind, 0.0, 0};
      const double unit = static_cast<double>(random() % 1000000 + 1) / 1000003.0;
      if (kind == Kind::Bytes) amount.bytes = random() % (std::uint64_t{1} << 41) + 1;
      if (kind == Kind::Fraction) amount.value = unit;
      if (kind == Kind::Percent) amount.value = unit * 30.0;
      if (random() % 5 == 0) amount = {};
      value.entries.push_back(
          {random() % 2 ? DeviceId::cuda(static_cast<int>(i)) : DeviceId::cpu(static_cast<int>(i)), amount});
    }
    if (count == 0 || random() % 3 == 0) {
      value.tail = AllocationTail{DeviceId::cuda(0), random() % 64 << 26, {DeviceId::cpu()}};
      if (random() % 2 == 0) value.tail->donors.push_back(DeviceId::cuda(3));
    }
    const std::string text = to_string(value);
    CAPTURE(text);
    CHECK((parse_allocation(text) == value));
    CHECK(normal(text) == text);
  }
}

TEST_CASE("an amount of memory alone") {
  CHECK(parse_memory_amount("8GB") == std::uint64_t{8} << 30);
  CHECK(parse_memory_amount(" 1.5 mb ") == std::uint64_t{3} << 19);
  for (const char* text : {"", "8", "0.5", "50%", "*", "0gb", "-1gb", "8tb", "8gb,9gb", "8gb;cpu,1gb"})
    CHECK_MESSAGE(!parse_memory_amount(text), text);
}

TEST_SUITE_END();
