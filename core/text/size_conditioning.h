#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mgpu {

// What SDXL is told besides the prompt: pooled text [1, P], then sinusoids of 256 for each number of the picture's
// sizes. Crops are 0. Reference: ComfyUI (comfy/model_base.py, SDXL and SDXLRefiner).

/// Sizes in pixels: height, width, 0, 0, height, width -> [1, P + 1536] fp32: 2816 for the published model.
at::Tensor sdxl_vector(const at::Tensor& pooled, std::int64_t height, std::int64_t width);

constexpr double kPositiveAesthetic = 6.0;
constexpr double kNegativeAesthetic = 2.5;

/// The refiner's: height, width, 0, 0, aesthetic score -> [1, P + 1280] fp32: 2560 for the published model.
at::Tensor sdxl_refiner_vector(const at::Tensor& pooled, std::int64_t height, std::int64_t width, double aesthetic);

}  // namespace mgpu
