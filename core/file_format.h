#pragma once

#include <string>
#include <string_view>

namespace mgpu {

/// What a file that is not safetensors is, told by its first bytes. Completes the sentence "FILE: ..."; never empty.
struct ForeignFormat {
  std::string what;  ///< "is a GGUF file, which is not supported yet"
  std::string hint;  ///< what to do instead
};

/// What a folder is that was named in the place of a file.
ForeignFormat foreign_folder(const std::string& path);

/// `head` is the file's beginning (64 bytes tell all that we know).
ForeignFormat foreign_format(std::string_view head);

}  // namespace mgpu
