#pragma once

#include <string>
#include <vector>

#include "cli/png.h"
#include "cli/render.h"

namespace mgpu::test {

/// render() without a word on the terminal.
RenderResult render_all(const std::vector<Job>& jobs, const RenderOptions& options = {});

/// The bytes of a file.
std::string read_all(const std::string& path);

Rgb8 pixels_of(const std::string& png);

/// The greatest difference in any channel; 256 where the sizes differ.
int difference(const Rgb8& a, const Rgb8& b);

}  // namespace mgpu::test
