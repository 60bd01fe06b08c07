#pragma once

#include <string>
#include <string_view>

namespace mgpu {

/// A path whose leading `~` or `~user` is the home directory, and whose $NAME and ${NAME} are environment variables:
/// what Python's os.path.expandvars(os.path.expanduser(path)) gives, as ComfyUI reads base_path. What is not known
/// stays.
std::string expand_path(std::string_view path);

/// The same of a leading `~/` alone.
std::string expand_home(std::string_view path);

}  // namespace mgpu
