#pragma once
namespace mgpu {
struct FluxSizes {
  int hidden = 0, depth = 0, depth_single = 0, mlp = 0, channels = 16;
  bool guidance = false;
};
}  // namespace mgpu
