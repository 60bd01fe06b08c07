#include "shard/chain.h"

#include <algorithm>

#include "core/error.h"

namespace mgpu {
namespace {

struct Unit {
  std::uint64_t bytes = 0, of_pass = 0, of_text = 0;
  double time = 0.0;
};

void add(Unit& unit, const BlockNeed& kind, int block) {
  const auto i = static_cast<std::size_t>(block);
  unit.bytes += kind.bytes_of(block);
  unit.time += kind.time_of(block);
  if (!kind.of_pass.empty()) unit.of_pass += kind.of_pass[i];
  if (!kind.of_text.empty()) unit.of_text += kind.of_text[i];
}

std::vector<Unit> units_of(const ComponentNeed& need) {
  if (need.whole || need.blocks.empty()) {
    Unit all;
    for (const BlockNeed& kind : need.blocks)
      for (int i = 0; i < kind.count; ++i) add(all, kind, i);
    return {all};
  }
  std::vector<Unit> units;
  if (!need.mirrored) {
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

Chain::Chain(const ComponentNeed& need) : need_(&need) {
  std::vector<Unit> units = units_of(need);
  std::uint64_t in_blocks = need.head;
  for (const Unit& unit : units) in_blocks += unit.bytes;
  MGPU_CHECK(in_blocks <= need.bytes, "the blocks and head of {} weigh {} of its {} bytes", need.name, in_blocks,
             need.bytes);
  units.front().bytes += need.bytes - in_blocks;
  (need.mirrored ? units.front() : units.back()).bytes += need.head;
  for (const Unit& unit : units) {
    bytes_.push_back(bytes_.back() + unit.bytes);
    of_pass_.push_back(of_pass_.back() + unit.of_pass);
    of_text_.push_back(of_text_.back() + unit.of_text);
    times_.push_back(times_.back() + unit.time);
  }
}

Run Chain::blocks_of(std::size_t kind, Run run) const {
  const int count = need_->blocks[kind].count;
  if (need_->whole) return {0, count};
  if (need_->mirrored) {
    if (kind == 0) return run;
    if (kind + 1 == need_->blocks.size()) return {count - run.last, count - run.first};
    return {0, run.last == units() ? count : 0};
  }
  int before = 0;
  for (std::size_t i = 0; i < kind; ++i) before += need_->blocks[i].count;
  const int first = std::clamp(run.first - before, 0, count);
  return {first, std::clamp(run.last - before, first, count)};
}

std::vector<Assignment> Chain::assignments(Run run) const {
  std::vector<Assignment> out;
  if (run.empty()) return out;
  for (std::size_t kind = 0; kind < need_->blocks.size(); ++kind) {
    const Run blocks = blocks_of(kind, run);
    if (blocks.empty()) continue;
    std::uint64_t bytes = 0;
    for (int i = blocks.first; i < blocks.last; ++i) bytes += need_->blocks[kind].bytes_of(i);
    out.push_back({need_->name,
                   need_->blocks[kind].kind,
                   blocks.first,
                   blocks.last - 1,
                   blocks.last - blocks.first,
                   bytes,
                   false,
                   {}});
  }
  return out;
}

}  // namespace mgpu
