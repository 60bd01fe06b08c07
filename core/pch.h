// The one precompiled header, shared by every room: LibTorch's tensors and the standard headers that nearly every file
// uses. Files still include what they use; this only makes those includes cheap.
#pragma once

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
