#include "shard/chain.h"

#include <algorithm>

#include "core/error.h"

namespace mgpu {
namespace {

struct Unit {
  std::uint64_t bytes = 0, bytes_per_pass = 0, bytes_per_prompt = 0;
  double time = 0.0;
};

template <class BytesOf>
std::vector<Unit> units_of(const ComponentNeed& need, BytesOf bytes_of) {
  const auto add = [&](Unit& unit, const BlockNeed& kind, int block) {
    unit.bytes += bytes_of(kind, block);
    unit.time += kind.time_of(block);
    const auto i = static_cast<std::size_t>(block);
    if (!kind.bytes_per_pass.empty()) unit.bytes_per_pass += kind.bytes_per_pass[i];
    if (!kind.bytes_per_prompt.empty()) unit.bytes_per_prompt += kind.bytes_per_prompt[i];
  };
  if (need.indivisible || need.blocks.empty()) {
    Unit all;
    for (const BlockNeed& kind : need.blocks)
      for (int i = 0; i < kind.count; ++i) add(all, kind, i);
    return {all};
  }
  std::vector<Unit> units;
  if (!need.skip_paired) {
    for (const BlockNeed& kind : need.blocks)
      for (int i = 0; i < kind.count; ++i) add(units.emplace_back(), kind, i);
    return units;
  }
  const BlockNeed &down = need.blocks.front(), &up = need.blocks.back();
  MGPU_CHECK(down.count == up.count && need.blocks.size() > 1, "{} has no mirrored blocks", need.name);
  for (int i = 0; i < down.count; ++i) {
    add(units.emplace_back(), down, i);
    add(units.back(), up, up.count - 1 - i);
  }
  for (std::size_t kind = 1; kind + 1 < need.blocks.size(); ++kind)
    for (int i = 0; i < need.blocks[kind].count; ++i) add(units.back(), need.blocks[kind], i);
  return units;
}

}  // namespace

Chain::Chain(const ComponentNeed& need, bool keeps_precomputed) : need_(&need), keeps_precomputed_(keeps_precomputed) {
  std::vector<Unit> units = units_of(need, [this](const BlockNeed& kind, int block) { return bytes_of(kind, block); });
  std::uint64_t in_blocks = need.head;
  for (const BlockNeed& kind : need.blocks)
    for (int i = 0; i < kind.count; ++i) {
      in_blocks += kind.bytes_of(i);
      bytes_of_steps_ += kind.bytes_of_step(i);
    }
  MGPU_CHECK(in_blocks <= need.bytes, "the blocks and head of {} weigh {} of its {} bytes", need.name, in_blocks,
             need.bytes);
  units.front().bytes += need.bytes - in_blocks;
  (need.skip_paired ? units.front() : units.back()).bytes += need.head;
  for (const Unit& unit : units) {
    bytes_.push_back(bytes_.back() + unit.bytes);
    bytes_per_pass_.push_back(bytes_per_pass_.back() + unit.bytes_per_pass);
    bytes_per_prompt_.push_back(bytes_per_prompt_.back() + unit.bytes_per_prompt);
    times_.push_back(times_.back() + unit.time);
  }
}

std::uint64_t Chain::bytes_of(const BlockNeed& kind, int block) const {
  return keeps_precomputed_ ? kind.bytes_of(block) : kind.bytes_of_step(block);
}

std::uint64_t Chain::activation_on(const DeviceId& device) const {
  const bool on_gpu = device.is_cuda();
  const std::uint64_t work = on_gpu ? need_->activation : need_->activation_on_cpu.value_or(need_->activation);
  const std::uint64_t precomputed = on_gpu ? need_->precompute_activation
                                           : need_->precompute_activation_on_cpu.value_or(need_->precompute_activation);
  return keeps_precomputed_ ? work : std::max(work, precomputed);
}

ChainRange Chain::blocks_of(std::size_t kind, ChainRange run) const {
  const int count = need_->blocks[kind].count;
  if (need_->indivisible) return {0, count};
  if (need_->skip_paired) {
    if (kind == 0) return run;
    if (kind + 1 == need_->blocks.size()) return {count - run.last, count - run.first};
    return {0, run.last == units() ? count : 0};
  }
  int before = 0;
  for (std::size_t i = 0; i < kind; ++i) before += need_->blocks[i].count;
  const int first = std::clamp(run.first - before, 0, count);
  return {first, std::clamp(run.last - before, first, count)};
}

std::vector<OffloadableBlock> Chain::offloadable(ChainRange run) const {
  std::vector<OffloadableBlock> out;
  if (run.empty()) return out;
  for (std::size_t kind = 0; kind < need_->blocks.size(); ++kind) {
    const ChainRange blocks = blocks_of(kind, run);
    const BlockNeed& need = need_->blocks[kind];
    for (int i = blocks.first; i < blocks.last; ++i) out.push_back({need.bytes_of_step(i), need.time_of(i)});
  }
  return out;
}

std::vector<Assignment> Chain::assignments(ChainRange run, const OffloadedBlocks& offload) const {
  std::vector<Assignment> out;
  if (run.empty()) return out;
  std::size_t block = 0;  // of the run, whatever the kind
  for (std::size_t kind = 0; kind < need_->blocks.size(); ++kind) {
    const BlockNeed& need = need_->blocks[kind];
    const ChainRange blocks = blocks_of(kind, run);
    for (int i = blocks.first; i < blocks.last; ++i, ++block) {
      const std::optional<DeviceId> donor = offload.donor_of(block);
      const std::string from = donor ? donor->to_string() : "";
      if (i == blocks.first || out.back().from != from)
        out.push_back({need_->name, need.kind, i, i, 0, 0, donor.has_value(), from});
      Assignment& range = out.back();
      range.last = i;
      ++range.blocks;
      range.bytes += donor ? need.bytes_of_step(i) : bytes_of(need, i);
    }
  }
  return out;
}

}  // namespace mgpu
