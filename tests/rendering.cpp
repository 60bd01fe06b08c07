#include "tests/rendering.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cli/files/png.h"
#include "cli/job/load_job.h"
#include "core/error.h"
#include "core/tensor_file.h"
#include "tests/testing.h"

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

Job golden_job(const Folder& folder, const std::string& name, const std::string& checkpoint, const std::string& images,
               const std::string& parts, const std::string& more) {
  const std::string text = "checkpoint: " + checkpoint + "\n" + parts +
                           "tokenizers: {clip: picture_merges.txt, t5xxl: picture_spiece.model}\nmodel_paths: [\"" +
                           MGPU_GOLDENS + "\"]\ngpu_ids: [cpu]\nsampler: {steps: 2}\n" + more + "images: [" + images +
                           "]\noutput: {directory: " + name + "}\n";
  return load_job(folder.write(name + ".yaml", text));
}

Rgb8 boat(const Folder& folder, const std::string& name, const std::string& checkpoint, const std::string& parts) {
  const Job job = golden_job(folder, name, checkpoint, kBoat, parts);
  MGPU_CHECK(render_all({job}).code == Exit::Ok, "{} did not render", name);
  return pixels_of(folder.path(name + "/" + name + "-0000-5.png"));
}

std::vector<Entry> entries_of(const std::string& golden_file, const std::string& prefix) {
  std::vector<Entry> out;
  const auto file = TensorFile::open(golden(golden_file));
  for (const auto& [tensor, info] : file->tensors()) {
    const auto bytes = file->bytes(info);
    out.push_back(
        {prefix + tensor, info.dtype, info.shape, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}});
  }
  return out;
}

int difference(const Rgb8& a, const Rgb8& b) {
  if (a.width != b.width || a.height != b.height || a.pixels.empty()) return 256;
  int most = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) most = std::max(most, std::abs(a.pixels[i] - b.pixels[i]));
  return most;
}

}  // namespace mgpu::test
