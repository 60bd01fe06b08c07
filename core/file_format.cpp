#include "core/file_format.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

namespace mgpu {
namespace {

struct Row {
  std::string_view begins;  ///< with `text`: in any case, after white space
  bool text;
  std::string_view what;
  std::string_view hint;
};

constexpr std::string_view kPickle = "is a pickled checkpoint, which can run code when it is loaded";
constexpr std::string_view kConvert =
    "convert it to safetensors first, on a machine you can spare: torch.load(file, weights_only=True), then "
    "safetensors.torch.save_file";
constexpr std::string_view kAgain =
    "the download did not give the file itself; fetch it again, logged in where the page asks for it";

const std::vector<Row>& rows() {
  static const std::vector<Row> table{
      {"GGUF", false, "is a GGUF file, which is not supported yet", "use the model's safetensors release"},
      {std::string_view("PK\x03\x04", 4), false, kPickle, kConvert},
      {"\x80\x02", false, kPickle, kConvert},
      {"\x80\x03", false, kPickle, kConvert},
      {"\x80\x04", false, kPickle, kConvert},
      {"\x80\x05", false, kPickle, kConvert},
      {"version https://git-lfs", true, "is a git-lfs pointer, not the weights", "fetch the weights with git lfs pull"},
      {"<!doctype", true, "is a web page, not weights", kAgain},
      {"<html", true, "is a web page, not weights", kAgain},
      {"<?xml", true, "is an XML document, not weights", kAgain},
      {"{", true, "is a JSON text, not weights", "name the .safetensors file beside it"},
      {"\x89PNG", false, "is a picture, not weights", ""},
  };
  return table;
}

char lower(char c) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}

}  // namespace

ForeignFormat foreign_folder(const std::string& path) {
  std::error_code ignored;
  const std::filesystem::path folder(path);
  if (std::filesystem::exists(folder / "model_index.json", ignored))
    return {"is a diffusers folder, which is not supported yet", "use the model's single-file release"};
  return {"is a directory, not a file", ""};
}

ForeignFormat foreign_format(std::string_view head) {
  std::string_view text = head;
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  for (const Row& row : rows()) {
    const std::string_view begin = (row.text ? text : head).substr(0, row.begins.size());
    if (std::equal(begin.begin(), begin.end(), row.begins.begin(), row.begins.end(),
                   [&](char a, char b) { return row.text ? lower(a) == lower(b) : a == b; }))
      return {std::string(row.what), std::string(row.hint)};
  }
  return {"is not a safetensors file", "checkpoints, encoders and autoencoders are read from .safetensors files alone"};
}

}  // namespace mgpu
