#include "vae/autoencoder.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "vae/autoencoder_steps.h"
#include "vae/team.h"

namespace mgpu {
namespace {

constexpr std::int64_t kImageChannels = 3;

/// The middle of both coders: residual block, attention, residual block.
void add_middle(std::vector<AutoencoderStep>& out, const Weights& weights, const std::string& coder,
                std::int64_t channels) {
  out.push_back(steps::residual(weights, coder + ".mid.block_1", channels, channels));
  out.push_back(steps::attention(weights, coder + ".mid.attn_1", channels));
  out.push_back(steps::residual(weights, coder + ".mid.block_2", channels, channels));
}

}  // namespace

Decoder::Decoder(const VaeSizes& sizes, const Weights& weights)
    : sizes_(sizes), dtype_(weights.dtype()), device_(weights.device()) {
  if (sizes.quant)
    steps_.push_back(steps::conv1x1(weights, "post_quant_conv", sizes.latent_channels, sizes.latent_channels));
  std::int64_t channels = sizes.channels.back();
  steps_.push_back(steps::conv3x3(weights, "decoder.conv_in", sizes.latent_channels, channels));
  add_middle(steps_, weights, "decoder", channels);
  for (std::size_t level = sizes.channels.size(); level-- > 0;) {
    const std::string name = fmt::format("decoder.up.{}", level);
    for (int block = 0; block <= sizes.residual_blocks; ++block) {
      steps_.push_back(
          steps::residual(weights, fmt::format("{}.block.{}", name, block), channels, sizes.channels[level]));
      channels = sizes.channels[level];
    }
    if (level > 0) steps_.push_back(steps::upsample(weights, name + ".upsample", channels));
  }
  steps_.push_back(steps::head(weights, "decoder", channels, kImageChannels));
}

std::size_t Decoder::first_step_of_last(int levels) const {
  MGPU_CHECK(levels > 0 && levels < static_cast<int>(sizes_.channels.size()), "{} of {} levels", levels,
             sizes_.channels.size());
  // Each has an enlargement and its residual blocks; the head is behind them.
  return steps_.size() - static_cast<std::size_t>(1 + levels * (sizes_.residual_blocks + 2));
}

std::vector<std::span<const AutoencoderStep>> Decoder::last_levels(int levels) const {
  std::vector<std::span<const AutoencoderStep>> out;
  for (int last = levels; last > 0; --last) {
    const std::size_t first = first_step_of_last(last), end = last > 1 ? first_step_of_last(last - 1) : steps_.size();
    out.push_back(std::span(steps_).subspan(first, end - first));
  }
  return out;
}

at::Tensor Decoder::forward(const at::Tensor& z) const {
  std::vector<at::Tensor> out;
  for (const at::Tensor& one : z.split(1)) out.push_back(decode_in_bands({this, 1}, Team::alone(), one));
  return at::cat(out);
}

Encoder::Encoder(const VaeSizes& sizes, const Weights& weights)
    : sizes_(sizes), dtype_(weights.dtype()), device_(weights.device()) {
  std::int64_t channels = sizes.channels.front();
  steps_.push_back(steps::conv3x3(weights, "encoder.conv_in", kImageChannels, channels));
  for (std::size_t level = 0; level < sizes.channels.size(); ++level) {
    const std::string name = fmt::format("encoder.down.{}", level);
    for (int block = 0; block < sizes.residual_blocks; ++block) {
      steps_.push_back(
          steps::residual(weights, fmt::format("{}.block.{}", name, block), channels, sizes.channels[level]));
      channels = sizes.channels[level];
    }
    if (level + 1 < sizes.channels.size()) steps_.push_back(steps::downsample(weights, name + ".downsample", channels));
  }
  add_middle(steps_, weights, "encoder", channels);
  const std::int64_t moments = 2 * sizes.latent_channels;
  steps_.push_back(steps::head(weights, "encoder", channels, moments));
  if (sizes.quant) steps_.push_back(steps::conv1x1(weights, "quant_conv", moments, moments));
}

std::size_t Encoder::first_step_behind(int levels) const {
  MGPU_CHECK(levels > 0 && levels < static_cast<int>(sizes_.channels.size()), "{} of {} levels", levels,
             sizes_.channels.size());
  return static_cast<std::size_t>(1 + levels * (sizes_.residual_blocks + 1));
}

std::vector<std::span<const AutoencoderStep>> Encoder::first_levels(int levels) const {
  std::vector<std::span<const AutoencoderStep>> out;
  for (int level = 1; level <= levels; ++level) {
    const std::size_t first = level > 1 ? first_step_behind(level - 1) : 0;
    out.push_back(std::span(steps_).subspan(first, first_step_behind(level) - first));
  }
  return out;
}

LatentDistribution Encoder::forward(const at::Tensor& image) const {
  std::vector<at::Tensor> means, logvars;
  for (const at::Tensor& one : image.split(1)) {
    LatentDistribution of_one = encode_in_bands({this, 1}, Team::alone(), one);
    means.push_back(std::move(of_one.mean));
    logvars.push_back(std::move(of_one.logvar));
  }
  return {at::cat(means), at::cat(logvars)};
}

LatentDistribution distribution_of(const at::Tensor& moments) {
  const std::int64_t channels = moments.size(1) / 2;
  return {moments.narrow(1, 0, channels), moments.narrow(1, channels, channels).clamp(-30.0, 20.0)};
}

ImageRows run_steps(std::span<const AutoencoderStep> steps, ImageRows x, const BandOps& ops) {
  for (const AutoencoderStep& step : steps) x = step.run(std::move(x), ops);
  return x;
}

ImageRows rows_of(const at::Tensor& image, const RowRange& rows, at::Device device, at::ScalarType dtype) {
  const at::Tensor part = image.squeeze(0).narrow(1, rows.first, rows.size());
  return {part.to(device, dtype).permute({1, 2, 0}).contiguous(), {}};
}

at::Tensor image_of(const ImageRows& rows) {
  return rows.values.permute({2, 0, 1}).unsqueeze(0);
}

}  // namespace mgpu
