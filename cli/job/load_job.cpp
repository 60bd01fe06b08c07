#include "cli/job/load_job.h"

#include <fmt/format.h>

#include <filesystem>
#include <iostream>

#include "cli/files/png.h"
#include "cli/job/checks/checks.h"
#include "cli/job/picture_metadata.h"
#include "cli/job/read_job.h"
#include "core/read_file.h"

// From a job file's name to a job whose files are found.

namespace mgpu {
namespace {

constexpr std::uintmax_t largest_job_bytes = 64 << 20;

std::string read_standard_input() {
  std::string text;
  std::string piece(65536, '\0');
  while (std::cin.read(piece.data(), static_cast<std::streamsize>(piece.size())) || std::cin.gcount() > 0) {
    text.append(piece, 0, static_cast<std::size_t>(std::cin.gcount()));
    if (text.size() > largest_job_bytes) fail_file("standard input", "is no job file: it does not end");
  }
  return text;
}

std::string read_all(const std::string& file) {
  if (file == "-") return read_standard_input();
  std::error_code fault;
  if (const std::string kind = special_kind(file); !kind.empty())
    fail_file(file, fmt::format("is {}, not a job file", kind),
              kind == "a directory" ? "" : "give the job on standard input, as -");
  const auto bytes = std::filesystem::file_size(file, fault);
  if (!fault && bytes > largest_job_bytes)
    fail_file(file, fmt::format("is no job file: {} bytes", bytes),
              "a job is a YAML file, or a picture that mgpu-render made");
  return read_file(file, largest_job_bytes);
}

/// ComfyUI saves workflows as JSON, which is YAML too: its keys would be refused one by one.
void refuse_workflow(const std::string& text, const std::string& file) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || text[first] != '{') return;
  for (const char* mark : {"\"class_type\"", "\"last_node_id\""}) {
    if (text.find(mark) != std::string::npos)
      fail_file(file, "is a ComfyUI workflow, not a job", "write a job file: presets/demo/demo.yaml is one");
  }
}

}  // namespace

Job load_job(const std::string& file, const std::vector<Setting>& settings) {
  const std::string text = read_all(file);
  Job job;
  if (is_png(text)) {
    job = read_picture_job(text, file, settings);
  } else if (refuse_workflow(text, file); file == "-") {
    job = read_job(text, "standard input", "", settings);
    job.name = "job";
  } else {
    job = read_job(text, file, std::filesystem::path(file).parent_path().string(), settings);
  }
  job.file = file;
  check_loaded(job);
  return job;
}

}  // namespace mgpu
