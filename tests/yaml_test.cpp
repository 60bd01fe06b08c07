#include <doctest/doctest.h>
#include <fmt/format.h>

#include <ctime>

#include "cli/job/job.h"
#include "cli/job/read_job.h"
#include "cli/job/yaml_errors.h"

using namespace mgpu;

namespace {

/// The whole of what the user would see.
std::string fault_of(const std::string& text, const std::vector<Setting>& settings = {}) {
  try {
    read_job(text, "job.yaml", "", settings);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::Usage);
    return e.what();
  }
  return "no error";
}

/// A job whose third line holds a prompt as somebody typed it, and lines below.
std::string prompted(const std::string& prompt, const std::string& below = "    width: 64\n") {
  return "checkpoint: x\nimages:\n  - prompt: " + prompt + "\n" + below;
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

std::string last_line(const std::string& text) {
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

TEST_SUITE_BEGIN("yaml");

TEST_CASE("a text without its closing quote is named, whatever comes behind it") {
  const std::string unclosed = "job.yaml:3:13: the text that begins at job.yaml:3:13 has no closing quote";
  for (const char quote : {'"', '\''}) {
    CAPTURE(quote);
    const std::string open = quote + std::string("a fox in the snow");
    for (const std::string& below : {
             std::string("    width: 64\n    seed: 7\n"),
             std::string("    width: 64"),
             std::string(""),
             fmt::format("  - prompt: {}a cat{}\n    seed: 7\n", quote, quote),  // swallowed up to the next quote
             fmt::format("    negative: {}blurry{}\n", quote, quote),            // likewise
             fmt::format("    width: 64  # 5{}\n", quote),                       // YAML, but not what was meant
             fmt::format("    negative: {}\n", quote),                           // likewise
             fmt::format("output: {{directory: {}out{}, name: {}a.png{}}}\n", quote, quote, quote, quote),
         }) {
      CAPTURE(below);
      CHECK(first_line(fault_of(prompted(open, below))) == unclosed);
    }
  }
  CHECK(last_line(fault_of(prompted("\"a fox"))) == "  put a \" at its end");
  CHECK(last_line(fault_of(prompted("'a fox\n    seed: 3 # 5'"))) ==
        "  line 4 reads as a key, and would be a part of the text; where it shall be, write the text as a block: |");
  const std::string flow = "checkpoint: x\nimages: [{prompt: \"a fox, width: 64}, {prompt: \"a cat\", seed: 1}]\n";
  CHECK(first_line(fault_of(flow)) == "job.yaml:2:19: the text that begins at job.yaml:2:19 has no closing quote");
  const std::string json = "{\"checkpoint\": \"x\", \"images\": [{\"prompt\": \"a fox,\n \"width\": 64}]}";
  CHECK(first_line(fault_of(json)) == "job.yaml:1:43: the text that begins at job.yaml:1:43 has no closing quote");
  CHECK(first_line(fault_of("checkpoint: &a 'x\nimages: [{prompt: x}]")) ==
        "job.yaml:1:16: the text that begins at job.yaml:1:16 has no closing quote");
}

TEST_CASE("text in quotes may lie over several lines and hold whatever it likes") {
  for (const char* prompt : {"\"a fox\n      in the snow\"", "'it''s a fox\n      name: Bob'", "\"a \\\"red\\\" fox\"",
                             "|\n      steps: 20\n      a \"fox", ">-\n      seed: 3", "a fox's tail, 5\" long",
                             "fox # 5\" of it", "\"#1 fox: [red]\"", "'a fox: \"red\"'"}) {
    CAPTURE(prompt);
    CHECK(fault_of(prompted(prompt)) == "no error");
  }
}

TEST_CASE("a prompt that has to be in quotes is shown in them") {
  const auto hint = [](const std::string& prompt) {
    const std::string fault = fault_of(prompted(prompt));
    CHECK(fault.starts_with("job.yaml:3:"));
    return last_line(fault);
  };
  CHECK(hint("[fox:cat:0.5], forest") == "  put the text in quotes: \"[fox:cat:0.5], forest\"");
  CHECK(hint("{red|blue} fox") == "  put the text in quotes: \"{red|blue} fox\"");
  CHECK(hint("\"fox\" in snow") == "  put the text in quotes: '\"fox\" in snow'");
  CHECK(hint("*fox*") == "  put the text in quotes: \"*fox*\"");
  CHECK(hint("%fox") == "  put the text in quotes: \"%fox\"");
  CHECK(hint("@fox") == "  put the text in quotes: \"@fox\"");
  CHECK(hint("`fox`") == "  put the text in quotes: \"`fox`\"");
  CHECK(hint("!fox red") == "  put the text in quotes: \"!fox red\"");
  CHECK(hint("- fox") == "  put the text in quotes: \"- fox\"");
  CHECK(hint("> fox") == "  put the text in quotes: \"> fox\"");
  CHECK(hint(", fox") == "  put the text in quotes: \", fox\"");
  CHECK(hint("[fox]") == "  put the text in quotes: \"[fox]\"");
  CHECK(hint("{fox}") == "  put the text in quotes: \"{fox}\"");
  CHECK(hint("a fox: red") == "  put text that holds a colon in quotes: \"a fox: red\"");
  CHECK(hint("#1 fox") == "  # begins a comment: put the text in quotes");
  CHECK(hint("'a fox's tail'") == "  an apostrophe in single quotes is written twice: put the text in double quotes");
  CHECK(hint("\"a \\(red\\) fox\"") ==
        "  \\ in double quotes begins an escape, and \"\\(\" is none: put the text in single quotes, or write \\\\");
  CHECK(hint("\"\\ud83e\\udd8a\"").starts_with("  \\u and four digits are one character each: write a character"));
  CHECK(last_line(fault_of(prompted("\n      - fox"))) == "  put the text in quotes");
  CHECK(last_line(fault_of("checkpoint: \"C:\\models\\m.safetensors\"\nimages: [{prompt: x}]")) ==
        "  \\ in double quotes begins an escape, and \"\\m\" is none: put the text in single quotes, or write \\\\");
  CHECK(last_line(fault_of("checkpoint: x\nimages: [{prompt: a fox, in the snow, width: 64}]")) ==
        "  the comma ends the text before it: put that text in quotes");
  const auto flow = [](const std::string& prompt) {
    return last_line(fault_of("checkpoint: x\nimages: [{prompt: " + prompt + ", width: 64}]"));
  };
  CHECK(flow("[a, fox]") == "  put the text in quotes: \"[a, fox]\"");
  CHECK(flow("*fox") == "  put the text in quotes: \"*fox\"");
  CHECK(flow("\"a\" fox") == "  put the text in quotes: '\"a\" fox'");
  CHECK(flow("a fox?").starts_with("  inside [ ] and { }, put text that holds any of , : # ? [ ] { } in quotes"));
}

TEST_CASE("a bracket that is not closed is named") {
  const auto fault = [](const std::string& images) { return fault_of("checkpoint: x\nimages: " + images); };
  CHECK(fault("[{prompt: x}\n") ==
        "job.yaml:2:9: nothing closes this \"[\"\n   2 | images: [{prompt: x}\n     |         ^\n"
        "  put a ] at its end");
  CHECK(last_line(fault("[{prompt: a #1 fox}]\n")) == "  # begins a comment: put the text in quotes");
  CHECK(last_line(fault("[{prompt: x]\n")) ==
        "  the \"{\" at job.yaml:2:10 is open here; inside [ ] and { }, put text that holds any of , : # ? [ ] { } in "
        "quotes");
}

TEST_CASE("what nests too deep is no bad file") {
  const std::string deep = fault_of("a: " + std::string(5000, '['));
  CHECK(first_line(deep).ends_with(": maps and lists nest deeper here than a job's"));
  CHECK(deep.size() < 2000);
}

TEST_CASE("text of other systems, tags and tabs") {
  const auto fault = [](const std::string& text) { return fault_of(text); };
  CHECK(fault("checkpoint: x\rimages: [{prompt: x}]\r") ==
        "job.yaml:1:14: a carriage return (CR) that no line feed (LF) follows\n  lines end in LF, or in CR LF");
  CHECK(fault("checkpoint: x\r\nimages: [{prompt: x}]\r\n") == "no error");
  CHECK(last_line(fault("checkpoint: x\nimages:\n  -\tprompt: x\n    width: 64\n")) ==
        "  YAML indents with spaces, not tabs");
  CHECK(first_line(fault(prompted("!!binary aGVsbG8="))) == "job.yaml:3:13: unknown tag \"tag:yaml.org,2002:binary\"");
  CHECK(fault(prompted("!!str 5")) == "no error");
}

TEST_CASE("a key of another place is sent there") {
  const auto hint = [](const std::string& more) {
    return last_line(fault_of("checkpoint: x\nimages: [{prompt: x}]\n" + more));
  };
  CHECK(hint("steps: 20") == "  \"steps\" belongs under sampler");
  CHECK(hint("cfg: 7") == "  \"cfg\" belongs under sampler");
  CHECK(hint("seed: 5") == "  \"seed\" belongs under images");
  CHECK(hint("prompt: x") == "  \"prompt\" belongs under images");
  CHECK(hint("width: 512") == "  \"width\" belongs under images");
  CHECK(hint("clip_l: x") == "  \"clip_l\" belongs under encoders");
  CHECK(hint("directory: x") == "  \"directory\" belongs under output");
  CHECK(hint("model: x") == "  did you mean \"checkpoint\"?");
  CHECK(hint("negative_prompt: x") == "  did you mean \"negative\", under images?");
  CHECK(hint("cfg_scale: 7") == "  did you mean \"cfg\", under sampler?");

  CHECK(hint("<<: {}") == "  merge keys are of an older YAML: write the keys out");
  CHECK(hint("dtype: {text: fp32}") == "  known are unet, clip, vae");
  CHECK(hint("sampler: {seed: 5}") == "  \"seed\" belongs under images");
  CHECK(hint("sampler: {cfg_scale: 5}") == "  did you mean \"cfg\"?");
  CHECK(hint("output: {vae: x}") == "  \"vae\" belongs to the job itself, not under output");
  const auto in_image = [](const std::string& more) {
    return last_line(fault_of("checkpoint: x\nimages: [{prompt: x, " + more + "}]"));
  };
  CHECK(in_image("steps: 20") == "  \"steps\" belongs under images.sampler");
  CHECK(in_image("denoise: 0.5") == "  \"denoise\" belongs under images.sampler");
  CHECK(in_image("start: 0.5") == "  \"start\" belongs under images.conditions");
  CHECK(in_image("negative_prompt: x") == "  did you mean \"negative\"?");
  CHECK(in_image("width:64") == "  a blank follows the colon: \"width: 64\"");
  CHECK(in_image("sedd: 4") == "  did you mean \"seed\"?");
  CHECK(first_line(fault_of("checkpoint: x\nimages:\n  - prompt:\n    width: 64\n")) ==
        "job.yaml:3:5: \"images.0.prompt\" has no value");
}

TEST_CASE("of a long line an error shows a window around its place, and never more than 2000 bytes") {
  std::string long_prompt;
  for (int i = 0; i < 5000; ++i) long_prompt += "\xE7\x8B\x90";
  for (const int at : {0, 1, 40, 299}) {
    std::string job = "{\"checkpoint\": \"x\", \"images\": [";
    for (int i = 0; i < 300; ++i)
      job += fmt::format("{}{{\"prompt\": \"a fox number {}\", \"width\": 64, \"{}\": {}}}", i ? ", " : "", i,
                         i == at ? "sede" : "seed", i);
    const std::string fault = fault_of(job + "]}");
    CHECK(fault.size() < 600);
    CHECK(fault.find("unknown key \"sede\" in images." + std::to_string(at)) != std::string::npos);
    // The caret stands below the key.
    const std::string shown = fault.substr(fault.find('\n') + 1), caret = shown.substr(shown.find('\n') + 1);
    CHECK(shown.substr(caret.find('^'), 6) == "\"sede\"");
    CHECK(shown.starts_with("   1 | ..."));
  }
  for (const std::string& job : {
           "checkpoint: x\n" + long_prompt + ": 3\nimages: [{prompt: x}]",
           "checkpoint: x\n'" + long_prompt,
           "checkpoint: x\nimages: [{prompt: x}]\nsampler: {name: " + long_prompt + "}",
           "checkpoint: x\nsampler: {steps: \"" + long_prompt + "\"}",
           "checkpoint: x\nimages: !" + long_prompt + " 3",
           "checkpoint: [" + long_prompt + "\n",
           "checkpoint: x\nimages: [{prompt: x}]\nmode: " + long_prompt,
           "checkpoint: x\nimages: [{prompt: x}]\noutput: {name: \"{" + long_prompt + "}.png\"}",
           "checkpoint: x\nimages: [{prompt: x}]\nallocation: {unet: \"" + long_prompt + "\"}",
           "checkpoint: x\nspeed: {" + long_prompt + ": 3}",
           "checkpoint: *" + long_prompt,
       }) {
    const std::string fault = fault_of(job);
    CAPTURE(fault.substr(0, 100));
    CHECK(fault != "no error");
    CHECK(fault.size() <= 2000);
  }
  CHECK(fault_of("checkpoint: x\nimages: [{prompt: x}]", {{"sampler.steps", long_prompt}}).size() <= 2000);
  CHECK(fault_of("checkpoint: x\nimages: [{prompt: x}]", {{long_prompt, "1"}}).size() <= 2000);
  CHECK(without_middle(long_prompt, 100).size() <= 100);
  CHECK(without_middle("short", 100) == "short");
}

TEST_CASE("places of a text in any order") {
  const Source source("a", "x\r\n\xC3\xBC\xE7\x8B\x90y\n\nlast");
  CHECK(source.mark_at(0).to_string() == "a:1:1");
  CHECK(source.mark_at(3).to_string() == "a:2:1");
  CHECK(source.mark_at(5).to_string() == "a:2:2");
  CHECK(source.mark_at(8).to_string() == "a:2:3");
  CHECK(source.mark_at(10).to_string() == "a:3:1");
  CHECK(source.mark_at(11).to_string() == "a:4:1");
  CHECK(source.mark_at(1000).to_string() == "a:4:5");
  for (const std::size_t at : {0U, 3U, 5U, 8U, 10U, 14U}) CHECK(source.offset_of(source.mark_at(at)) == at);
  CHECK(source.offset_of({"b", 1, 1}) == std::string::npos);
  std::string wide;
  for (int i = 0; i < 2000; ++i) wide += i % 3 == 0 ? "\xE7\x8B\x90" : "a";
  const Source line("w", wide);
  int column = 1;
  for (std::size_t at = 0; at < wide.size(); ++at) {
    if ((static_cast<unsigned char>(wide[at]) & 0xC0) == 0x80) continue;
    REQUIRE(line.mark_at(at).column == column++);
    REQUIRE(line.offset_of(line.mark_at(at)) == at);
  }
}

TEST_CASE("reading takes time in proportion to the job's length") {
  std::string job = "{\"checkpoint\": \"x\", \"images\": [";
  constexpr int kImages = 10000;
  for (int i = 0; i < kImages; ++i)
    job += fmt::format("{}{{\"prompt\": \"number {} \\ud83e\\udd8a\", \"width\": 64, \"height\": 64, \"seed\": {}}}",
                       i ? ", " : "", i, i);
  std::string keys = "{checkpoint: x";
  for (int i = 0; i < kImages; ++i) keys += fmt::format(", key{}: 1", i);
  const std::clock_t start = std::clock();
  CHECK(read_job(job + "]}", "job.json", "").images.size() == kImages);
  CHECK(first_line(fault_of(keys + "}")) == "job.yaml:1:17: unknown key \"key0\"");
  // Of the processor's time, so that a busy machine does not count. With the square of the length it was 40 s or more.
  CHECK((std::clock() - start) / CLOCKS_PER_SEC < 30);
}

TEST_CASE("control characters are refused where programs would cut the text at them") {
  CHECK(fault_of(prompted("\"fox\\0nul\"")) ==
        "job.yaml:3:13: \"images.0.prompt\" holds the control character U+0000\n"
        "   3 |   - prompt: \"fox\\0nul\"\n     |             ^\n"
        "  \\ in double quotes begins an escape: put the text in single quotes, or write \\\\");
  for (const char* escape : {"\\a", "\\b", "\\e", "\\x1b", "\\x7f", "\\x9b", "\\v", "\\f"}) {
    CAPTURE(escape);
    CHECK(fault_of(prompted(fmt::format("\"a{}b\"", escape))).find("holds the control character U+00") !=
          std::string::npos);
  }
  for (const char* fine : {"\\t", "\\n", "\\r", "\\N", "\\_", "\\u00e9", "\\U0001f98a"}) {
    CAPTURE(fine);
    CHECK(fault_of(prompted(fmt::format("\"a{}b\"", fine))) == "no error");
  }
  CHECK(first_line(fault_of("checkpoint: \"C:\\new.safetensors\"\nimages: [{prompt: x}]")) ==
        "job.yaml:1:13: \"checkpoint\" holds the control character U+000A");
  // yaml-cpp takes U+0004 for the end of the text.
  CHECK(first_line(fault_of(prompted("a fox\x04 in snow"))) == "job.yaml:3:18: the control character U+0004");
}

TEST_SUITE_END();
