#pragma once

#include <string>
#include <vector>

#include "cli/files/pixels.h"
#include "cli/render/render.h"
#include "tests/tensor_writer.h"

namespace mgpu::test {

/// render() without a word on the terminal.
RenderResult render_all(const std::vector<Job>& jobs, const RenderOptions& options = {});

/// The bytes of a file.
std::string read_all(const std::string& path);

Rgb8 pixels_of(const std::string& png);

/// A job over the goldens and the folder's own files, which writes below the folder.
inline constexpr const char* kParts =
    "encoders: {clip_l: picture_clip_l.safetensors, t5xxl: picture_t5xxl.safetensors}\nvae: vae_flux.safetensors\n";
Job golden_job(const Folder& folder, const std::string& name, const std::string& checkpoint, const std::string& images,
               const std::string& parts = kParts, const std::string& more = {});

inline constexpr const char* kBoat = "{prompt: a boat, width: 32, height: 32, seed: 5}";
/// The pixels of that picture by a checkpoint.
Rgb8 boat(const Folder& folder, const std::string& name, const std::string& checkpoint,
          const std::string& parts = kParts);

/// A golden's tensors, their names under another prefix.
std::vector<Entry> entries_of(const std::string& golden_file, const std::string& prefix = {});

/// The greatest difference in any channel; 256 where the sizes differ.
int difference(const Rgb8& a, const Rgb8& b);

}  // namespace mgpu::test
