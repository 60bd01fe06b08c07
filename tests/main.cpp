#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "core/arithmetic.h"
#ifndef MGPU_NO_FAMILIES  // mgpu-thread-tests, which links core/ alone
#include "cli/register_families.h"
#endif

int main(int argc, char** argv) {
  mgpu::set_exact_arithmetic();
#ifndef MGPU_NO_FAMILIES
  mgpu::register_families();
#endif
  return doctest::Context(argc, argv).run();
}
