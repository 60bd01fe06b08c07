#include "tests/rendering.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace mgpu::test {
namespace {

class Quiet final : public Progress {
 public:
  void phase(const std::string&, const std::string&) override {}
  void step(const std::string&, int, int) override {}
  void finished(const std::string&, const std::string&, double, const std::string&) override {}
  void note(const std::string&) override {}
};

}  // namespace

RenderResult render_all(const std::vector<Job>& jobs, const RenderOptions& options) {
  Quiet progress;
  return render(jobs, options, progress);
}

std::string read_all(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

Rgb8 pixels_of(const std::string& png) {
  return decode_png(read_all(png), png).picture;
}

int difference(const Rgb8& a, const Rgb8& b) {
  if (a.width != b.width || a.height != b.height || a.pixels.empty()) return 256;
  int most = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) most = std::max(most, std::abs(a.pixels[i] - b.pixels[i]));
  return most;
}

}  // namespace mgpu::test
