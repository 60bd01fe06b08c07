#pragma once

namespace mgpu::test {

/// Queues a kernel that traps on the current GPU's default stream: from some moment on the process has lost the GPU.
void lose_gpu();

}  // namespace mgpu::test
