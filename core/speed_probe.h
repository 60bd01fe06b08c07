#pragma once

#include <ATen/core/Tensor.h>

namespace mgpu {

/// Floating-point operations a second of a device, in matrix products and attention of a large transformer's shapes in
/// `dtype`; a CPU is given fewer tokens. Takes about 0.2 s and up to 0.5 GB, which it gives back.
double probe_rate(at::Device device, at::ScalarType dtype);

}  // namespace mgpu
