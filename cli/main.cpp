#include <ATen/ATen.h>

#include <cstdio>
int main() {
  std::puts(at::rand({2}).sizes() == at::IntArrayRef({2}) ? "ok" : "no");
}
