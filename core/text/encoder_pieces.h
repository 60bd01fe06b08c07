#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <future>
#include <memory>
#include <vector>

#include "core/all_of.h"
#include "core/hand_over.h"
#include "core/models/held_blocks.h"
#include "core/ops.h"
#include "core/stop_point.h"

namespace mgpu {

/// A block whose weights are kept elsewhere, loaded into main memory: its number and the tensors that it reads.
struct StreamedBlock {
  int index = 0;
  std::vector<at::Tensor*> tensors;
};
/// Runs some work of a block, its streamed tensors being on the device meanwhile. Blocks that are not streamed just
/// run.
using RunStreamed = std::function<void(int block, const std::function<void()>& work)>;

/// Blocks of a text encoder that follow each other on one device.
struct EncoderPiece {
  at::Device device = at::kCPU;
  HeldBlocks held;
  /// Has the device do some work, in its turn. The future throws what the work throws.
  std::function<std::future<void>(std::function<void()> work)> run;
  /// Takes over the streamed blocks, in their order, once they are loaded. Needed where there are such.
  std::function<RunStreamed(std::vector<StreamedBlock> blocks)> stream = {};
};

/// A text encoder (ClipEncoder, T5Encoder) in pieces. A pass visits them in their order, its state handed over between
/// devices; the bits are those of one piece.
template <class Encoder>
class EncoderInPieces {
 public:
  /// Loads all pieces at the same time, each by `load(piece)` -> unique_ptr<Encoder>. The pieces hold every block once,
  /// in the blocks' order. Throws what the first of those that failed threw, once all have ended.
  template <class Load>
  EncoderInPieces(std::vector<EncoderPiece> pieces, const Load& load)
      : pieces_(std::move(pieces)), encoders_(pieces_.size()), streams_(pieces_.size()) {
    AllOf loads;
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      loads.add([&] {
        return pieces_[i].run([this, &load, i] {
          encoders_[i] = load(pieces_[i]);
          streams_[i] = streams_of(pieces_[i], *encoders_[i]);
        });
      });
    }
    loads.finish();
  }

  /// One pass: `begin(encoder)` -> its State, by the piece with the stem; all blocks; then what `finish(encoder,
  /// state)` gives, by the piece with the head and on its device. Throws what a piece throws.
  template <class Begin, class Finish>
  auto forward(const Begin& begin, const Finish& finish, const Ops& ops) const {
    typename Encoder::State state;
    decltype(finish(*encoders_.back(), state)) out;
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      const Encoder& encoder = *encoders_[i];
      const HeldBlocks& held = pieces_[i].held;
      const auto work = [&] {
        if (held.stem()) {
          state = begin(encoder);
        } else {
          for (at::Tensor* tensor : state.travelling()) *tensor = hand_over(*tensor, pieces_[i].device);
        }
        for (int block = 0; block < held.count(); ++block) {
          if (!held.has(block)) continue;
          stop_point(pieces_[i].device);
          streams_[i](block, [&] { encoder.block(block, state, ops); });
        }
        if (held.head()) out = finish(encoder, state);
      };
      pieces_[i].run(work).get();
    }
    return out;
  }

  std::int64_t width() const { return encoders_.front()->width(); }

 private:
  static RunStreamed streams_of(const EncoderPiece& piece, Encoder& encoder) {
    std::vector<StreamedBlock> streamed;
    for (int block = 0; block < piece.held.count(); ++block)
      if (piece.held.has(block) && piece.held.streams(block)) streamed.push_back({block, encoder.block_tensors(block)});
    if (!streamed.empty()) return piece.stream(std::move(streamed));
    return [](int, const std::function<void()>& work) { work(); };
  }

  std::vector<EncoderPiece> pieces_;
  std::vector<std::unique_ptr<Encoder>> encoders_;  ///< by piece
  std::vector<RunStreamed> streams_;                ///< likewise
};

}  // namespace mgpu
