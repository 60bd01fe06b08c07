#include "cli/job/settings.h"

#include <doctest/doctest.h>

#include <cstdlib>

#include "cli/files/expand_path.h"
#include "cli/job/job.h"
#include "cli/job/key_hints.h"
#include "cli/job/read_job.h"

using namespace mgpu;

namespace {

const std::string start = "checkpoint: a.safetensors\nimages: [{prompt: x}]\n";

Job with(const std::string& path, const std::string& value) {
  return read_job(start, "job.yaml", "", {{path, value}});
}

std::string fault_of(const std::string& path, const std::string& value) {
  try {
    with(path, value);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::Usage);
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_SUITE_BEGIN("settings");

TEST_CASE("what stands behind = is the text, whole") {
  for (const char* text : {"fox #1 in the snow",
                           "a fox: red",
                           "[fox], snow",
                           "{red|blue} fox",
                           "\"fox\" in snow",
                           "'fox' and 'cat'",
                           "*fox*",
                           "&fox",
                           "- fox",
                           "# fox",
                           "null",
                           "~",
                           "true",
                           "0x10",
                           " blanks around ",
                           "a\nb",
                           "C:\\models",
                           "\"",
                           "a fox's tail",
                           "'",
                           "%",
                           "<<",
                           "key=value",
                           "",
                           "?",
                           "\xE7\x8B\x90"}) {
    CAPTURE(text);
    CHECK(with("images.0.prompt", text).images[0].prompt == text);
    CHECK(with("images.0.negative", text).images[0].negative == text);
  }
  // Quotes around all of it are YAML's, as they always were.
  CHECK(with("images.0.prompt", "\"\"").images[0].prompt == "");
  CHECK(with("images.0.prompt", "\"a: \\u72d0\"").images[0].prompt == "a: \xE7\x8B\x90");
  CHECK(with("images.0.prompt", "'it''s'").images[0].prompt == "it's");
  CHECK(*with("output.report", "\"\"").output.report == "");
  CHECK(*with("output.report", "").output.report == "");
  CHECK(with("checkpoint", "models/x #1, [a].safetensors").files.checkpoint.text == "models/x #1, [a].safetensors");
  CHECK(with("model_paths", "[a, b]").files.model_paths.size() == 2);
  CHECK(with("output.directory", "out: 3").output.directory.text == "out: 3");
}

TEST_CASE("other keys take YAML") {
  CHECK(*with("sampler.steps", "7 # seven").sampler.steps == 7);
  CHECK(with("images", "[{prompt: a}, {prompt: 'b: c'}]").images[1].prompt == "b: c");
  CHECK(with("gpu_ids", "[0, 1]").placement.gpu_ids->size() == 2);
  CHECK(fault_of("sampler.steps", "[") == "--set sampler.steps=[: nothing closes this \"[\"\n  put a ] at its end");
  CHECK(fault_of("images.0.prompt", "a\xff") ==
        "--set images.0.prompt=a\xff: byte 1 is not UTF-8 text\n  write it in UTF-8");
  CHECK(fault_of("checkpoint", "") ==
        "--set checkpoint=: \"checkpoint\" must be the name of a file, not the text \"\"");
}

TEST_CASE("keys that take text") {
  for (const char* path : {"images.0.prompt", "images.12.conditions.3.prompt", "checkpoint", "encoders.clip_l",
                           "model_paths.0", "output.name", "images.0.init_image", "allocation.unet.expert"}) {
    CAPTURE(path);
    CHECK(is_text_key(path));
  }
  for (const char* path : {"images", "images.0", "sampler.steps", "sampler.name", "sampler.shift", "gpu_ids.0", "dtype",
                           "allocation.unet", "model_paths", "nothing", "", "."}) {
    CAPTURE(path);
    CHECK_FALSE(is_text_key(path));
  }
}

TEST_CASE("paths name the home directory and environment variables as Python's do") {
  const char* home = std::getenv("HOME");
  const std::string before = home ? home : "";
  ::setenv("HOME", "/home/someone/", 1);
  ::setenv("MGPU_TEST_FOLDER", "models", 1);
  CHECK(expand_path("~") == "/home/someone");
  CHECK(expand_path("~/a") == "/home/someone/a");
  CHECK(expand_path("a/~/b") == "a/~/b");
  CHECK(expand_path("~nobody-of-that-name/a") == "~nobody-of-that-name/a");
  CHECK(expand_path("/x/$MGPU_TEST_FOLDER/y") == "/x/models/y");
  CHECK(expand_path("${MGPU_TEST_FOLDER}s$MGPU_TEST_FOLDER") == "modelssmodels");
  CHECK(expand_path("$MGPU_TEST_NONE/$/${/$$ ${}") == "$MGPU_TEST_NONE/$/${/$$ ${}");
  CHECK(expand_path("~/$MGPU_TEST_FOLDER") == "/home/someone/models");
  CHECK(expand_home("~/$MGPU_TEST_FOLDER") == "/home/someone/$MGPU_TEST_FOLDER");
  CHECK(expand_home("~x/a") == "~x/a");
  ::unsetenv("MGPU_TEST_FOLDER");
  if (home) ::setenv("HOME", before.c_str(), 1);
}

TEST_SUITE_END();
