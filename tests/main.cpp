#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "core/arithmetic.h"

int main(int argc, char** argv) {
  mgpu::set_exact_arithmetic();
  return doctest::Context(argc, argv).run();
}
