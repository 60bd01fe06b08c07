#include "tests/gpu/trap.h"

namespace mgpu::test {
namespace {

__global__ void trap() {
  __trap();
}

}  // namespace

void lose_gpu() {
  trap<<<1, 1>>>();
}

}  // namespace mgpu::test
