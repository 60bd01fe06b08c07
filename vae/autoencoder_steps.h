#pragma once

#include <string>

#include "core/weights.h"
#include "vae/autoencoder.h"

namespace mgpu::steps {

// What coders are made of. Each loads its tensors under `name`, checks their shapes against the channels given (Error
// naming file and tensor), and returns the step that computes with them.

/// A 3x3 convolution.
AutoencoderStep conv3x3(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out);

/// A 1x1 convolution.
AutoencoderStep conv1x1(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out);

/// x + conv2(silu(norm2(conv1(silu(norm1(x)))))); x goes through a 1x1 convolution where the channels change.
AutoencoderStep residual(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out);

/// x + proj(attention(norm(x))): one head over all positions.
AutoencoderStep attention(const Weights& weights, const std::string& name, std::int64_t channels);

/// Twice the size by repeating pixels, then a 3x3 convolution.
AutoencoderStep upsample(const Weights& weights, const std::string& name, std::int64_t channels);

/// Half the size, rounded down: a 3x3 convolution of stride 2, padded by one row below and one column on the right.
AutoencoderStep downsample(const Weights& weights, const std::string& name, std::int64_t channels);

/// conv_out(silu(norm_out(x))), both under `name`.
AutoencoderStep head(const Weights& weights, const std::string& name, std::int64_t in, std::int64_t out);

}  // namespace mgpu::steps
