#include "cli/job/job.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "cli/job/checks/model_checks.h"
#include "cli/job/checks/unsupported.h"
#include "cli/job/read_job.h"
#include "cli/job/yaml_reader.h"

using namespace mgpu;

namespace {

/// The whole of what the user would see.
std::string fault_of(const std::string& text, const std::vector<Setting>& settings = {}) {
  try {
    refuse_unsupported(read_job(text, "job.yaml", "", settings));
  } catch (const Error& e) {
    CHECK(e.code() == Exit::Usage);
    return e.what();
  }
  return "no error";
}

const std::string start = "checkpoint: a.safetensors\nimages: [{prompt: x}]\n";

Job job_of(const std::string& more, const std::vector<Setting>& settings = {}) {
  return read_job(start + more, "job.yaml", "", settings);
}

}  // namespace

TEST_SUITE_BEGIN("job");

TEST_CASE("defaults") {
  const Job job = job_of("");
  CHECK(job.name == "job");
  CHECK(job.files.checkpoint.text == "a.safetensors");
  CHECK(job.files.checkpoint.mark.to_string() == "job.yaml:1:13");
  CHECK(*job.sampler.name == "euler");
  CHECK(*job.images[0].width == 1024);
  CHECK(*job.images[0].seed == 0);
  CHECK(*job.images[0].count == 1);
  CHECK(job.output.directory.text == "out");
  CHECK(*job.placement.replicas == 0);
  CHECK_FALSE(job.placement.gpu_ids.given);
  CHECK(*job.exact == Exact::True);
}

TEST_CASE("an unknown key is named with its place, its line and what was meant") {
  CHECK(fault_of(start + "sampler:\n  stpes: 20\n") ==
        "job.yaml:4:3: unknown key \"stpes\" in sampler\n"
        "   4 |   stpes: 20\n"
        "     |   ^\n"
        "  did you mean \"steps\"?");
  CHECK(fault_of("chekpoint: a\nimages: [{prompt: x}]") ==
        "job.yaml:1:1: unknown key \"chekpoint\"\n"
        "   1 | chekpoint: a\n"
        "     | ^\n"
        "  did you mean \"checkpoint\"?");
  CHECK(fault_of(start + "output: {qqqqq: 1}\n") ==
        "job.yaml:3:10: unknown key \"qqqqq\" in output\n"
        "   3 | output: {qqqqq: 1}\n"
        "     |          ^\n"
        "  known are directory, name, report");
}

TEST_CASE("a repeated key is refused, with both places") {
  CHECK(fault_of(start + "exact: true\nexact: false\n") ==
        "job.yaml:4:1: key \"exact\" is given twice\n"
        "   4 | exact: false\n"
        "     | ^\n"
        "  the first is at job.yaml:3:1");
}

TEST_CASE("a missing key is named") {
  CHECK(fault_of("images: [{prompt: x}]") ==
        "job.yaml:1:1: missing key \"checkpoint\"\n"
        "   1 | images: [{prompt: x}]\n"
        "     | ^");
  CHECK(fault_of("checkpoint: a\nimages:\n  - seed: 3\n") ==
        "job.yaml:3:5: missing key \"prompt\" in images.0\n"
        "   3 |   - seed: 3\n"
        "     |     ^");
  CHECK(fault_of("checkpoint: a\nimages: []\n") ==
        "job.yaml:2:9: \"images\" is empty\n"
        "   2 | images: []\n"
        "     |         ^");
}

TEST_CASE("wrong types and ranges") {
  const auto line = [](const std::string& more) {
    const std::string text = fault_of(start + more);
    return text.substr(0, text.find('\n'));
  };
  CHECK(line("sampler: {steps: abc}") ==
        "job.yaml:3:18: \"sampler.steps\" must be an integer from 1 to 10000, not \"abc\"");
  CHECK(line("sampler: {steps: 0}") ==
        "job.yaml:3:18: \"sampler.steps\" must be an integer from 1 to 10000, not \"0\"");
  CHECK(line("sampler: {steps: 1.5}") ==
        "job.yaml:3:18: \"sampler.steps\" must be an integer from 1 to 10000, not \"1.5\"");
  CHECK(line("sampler: {steps: \"20\"}") ==
        "job.yaml:3:18: \"sampler.steps\" must be an integer from 1 to 10000, not the text \"20\"");
  CHECK(line("sampler: {steps: 99999999999999}") ==
        "job.yaml:3:18: \"sampler.steps\" must be an integer from 1 to 10000, not \"99999999999999\"");
  CHECK(line("sampler: {cfg: nan}") == "job.yaml:3:16: \"sampler.cfg\" must be a number from 0 to 1000, not \"nan\"");
  CHECK(line("sampler: {cfg: [1]}") == "job.yaml:3:16: \"sampler.cfg\" must be a number from 0 to 1000, not a list");
  CHECK(line("sampler: 3") == "job.yaml:3:10: \"sampler\" must be a map, not \"3\"");
  CHECK(line("exact: yes") == "job.yaml:3:8: \"exact\" must be true, false or portable, not \"yes\"");
  CHECK(line("vae:") == "job.yaml:3:1: \"vae\" has no value");
  CHECK(line("vram_limit: 8TB") == "job.yaml:3:13: \"vram_limit\" must be a size such as 8GB, not \"8TB\"");
  CHECK(fault_of(start + "vram_limit: 8") ==
        "job.yaml:3:13: \"vram_limit\" must be a size such as 8GB, not \"8\"\n"
        "   3 | vram_limit: 8\n     |             ^\n  did you mean 8GB?");
  CHECK(fault_of(start + "vram_limit: {cuda:0: 8000}") ==
        "job.yaml:3:22: \"vram_limit.cuda:0\" must be a size such as 8GB, not \"8000\"\n"
        "   3 | vram_limit: {cuda:0: 8000}\n     |                      ^\n  did you mean 8000MB?");
  CHECK(line("gpu_ids: [gpu0]") == "job.yaml:3:11: \"gpu_ids.0\" must be a device: cuda:N, cpu or cpu:N, not \"gpu0\"");
  CHECK(line("replicas: 0") == "job.yaml:3:11: \"replicas\" must be an integer from 1 to 1024, not \"0\"");
  CHECK(line("vram_limit: {cuda:0: 1GB, \"0\": 2GB}") == "job.yaml:3:27: device \"cuda:0\" is given twice");
  CHECK(fault_of(start + "mode: shrad") ==
        "job.yaml:3:7: \"mode\" must be auto, single, shard, tensor, sequence, patch, replicate or split-cfg, not "
        "\"shrad\"\n"
        "   3 | mode: shrad\n     |       ^\n  did you mean \"shard\"?");
}

TEST_CASE("names of samplers and schedulers") {
  CHECK(fault_of(start + "sampler: {name: eulr}") ==
        "job.yaml:3:17: \"sampler.name\" is not the name of a sampler: \"eulr\"\n"
        "   3 | sampler: {name: eulr}\n     |                 ^\n  did you mean \"euler\"?");
  CHECK(*job_of("sampler: {scheduler: karras}").sampler.scheduler == "karras");
}

TEST_CASE("numbers are decimal, sizes are powers of 1024") {
  CHECK(*job_of("sampler: {steps: 012}").sampler.steps == 12);
  CHECK(job_of("vram_limit: 8GB").placement.vram_limit->each == std::uint64_t(8) << 30);
  CHECK(job_of("vram_limit: 9000000B").placement.vram_limit->each == 9000000);
  CHECK(job_of("vram_limit: 8GiB").placement.vram_limit->each == std::uint64_t(8) << 30);
  CHECK(job_of("vram_limit: {cuda:1: .5gb}").placement.vram_limit->device.at(DeviceId::cuda(1)) == std::uint64_t(1)
                                                                                                       << 29);
  CHECK((job_of("gpu_ids: [1, cuda:0, cpu, cpu:3]").placement.gpu_ids.value ==
         std::vector{DeviceId::cuda(1), DeviceId::cuda(0), DeviceId::cpu(), DeviceId::cpu(3)}));
}

TEST_CASE("seeds") {
  const auto seed = [](const std::string& value) {
    return fault_of("checkpoint: a\nimages: [{prompt: x, " + value + "}]").substr(0, 200);
  };
  CHECK(seed("seed: 18446744073709551615") == "no error");
  CHECK(seed("seed: 18446744073709551616")
            .starts_with("job.yaml:2:28: \"images.0.seed\" must be an integer from 0 to 18446744073709551615, or "
                         "random, not \"18446744073709551616\""));
  CHECK(seed("seed: -1").starts_with("job.yaml:2:28: \"images.0.seed\" must be"));
  CHECK(seed("seed: 18446744073709551615, count: 2")
            .starts_with("job.yaml:2:28: \"seed\" 18446744073709551615 and \"count\" 2 pass the largest seed, "
                         "18446744073709551615"));
  const Job a = read_job("checkpoint: a\nimages: [{prompt: x, seed: random}]", "job.yaml", "");
  const Job b = read_job("checkpoint: a\nimages: [{prompt: x, seed: random}]", "job.yaml", "");
  CHECK(a.images[0].random_seed);
  CHECK(*a.images[0].seed != *b.images[0].seed);
}

TEST_CASE("an image's sampler is merged over the job's") {
  const Job job = read_job(
      "checkpoint: a\nsampler: {steps: 28, guidance: 2.5}\nimages: [{prompt: x, sampler: {steps: 4}}, {prompt: y}]",
      "job.yaml", "");
  CHECK(*job.images[0].sampler.steps == 4);
  CHECK(*job.images[0].sampler.guidance == 2.5);
  CHECK(*job.images[1].sampler.steps == 28);
}

TEST_CASE("--set wins over the file and marks what it gave") {
  const Job job =
      job_of("sampler: {steps: 5}", {{"sampler.steps", "7"}, {"images.0.seed", "9"}, {"output.directory", "there"}});
  CHECK(*job.sampler.steps == 7);
  CHECK(job.sampler.steps.mark.to_string() == "--set sampler.steps=7");
  CHECK(*job.images[0].seed == 9);
  CHECK(job.output.directory.from_option);
  CHECK(fault_of(start, {{"sampler.stpes", "7"}}) ==
        "--set sampler.stpes=7: unknown key \"stpes\" in sampler\n  did you mean \"steps\"?");
  CHECK(fault_of(start, {{"images.1.seed", "7"}}) ==
        "--set images.1.seed=7: \"images\" has no entry \"1\"\n  it has 1, counted from 0");
  CHECK(fault_of(start, {{"checkpoint.x", "7"}}) ==
        "--set checkpoint.x=7: \"checkpoint\" is one value in the job, \"a.safetensors\"\n  set it as a whole: --set "
        "checkpoint=...");
  CHECK(fault_of(start, {{"sampler", "{"}}) == "--set sampler={: nothing closes this \"{\"\n  put a } at its end");
  CHECK_THROWS_WITH_AS(parse_setting("steps"), "--set steps: a setting is path=value\n  as in --set sampler.steps=20",
                       Error);
}

TEST_CASE("a job in JSON may escape a character as a surrogate pair") {
  const auto prompt = [](const std::string& text) {
    const std::string job = R"({"checkpoint": "a", "images": [{"prompt": ")" + text + R"("}]})";
    return read_job(job, "job.json", "", {}).images[0].prompt;
  };
  CHECK(prompt(R"(a \ud83e\udd8a, \uD834\uDD1E)") == "a \xF0\x9F\xA6\x8A, \xF0\x9D\x84\x9E");
  CHECK(prompt(R"(\u72d0 \\ud83e\\udd8a)") == "\xE7\x8B\x90 \\ud83e\\udd8a");  // escaped backslashes are no pair
  CHECK(prompt(R"(\"\ud83e\udd8a)") == "\"\xF0\x9F\xA6\x8A");
  // Columns are the file's, behind one pair and behind two.
  CHECK(fault_of("{\"checkpoint\": \"\\ud83e\\udd8a\", \"exact\": 3,\n \"images\": [{\"prompt\": \"x\"}]}")
            .starts_with("job.yaml:1:41: \"exact\" must be true, false or portable, not \"3\"\n"));
  CHECK(
      fault_of("{\"checkpoint\": \"\\ud83e\\udd8a\\ud83e\\udd8a\", \"exact\": 3,\n \"images\": [{\"prompt\": \"x\"}]}")
          .starts_with("job.yaml:1:53: "));
  CHECK(fault_of("{\"checkpoint\": \"\\ud83e\\udd8a\",\n \"exact\": 3, \"images\": [{\"prompt\": \"x\"}]}")
            .starts_with("job.yaml:2:11: "));
  // Half a pair is no character, and YAML in block style has no pairs.
  CHECK(fault_of(R"({"checkpoint": "\ud83e"})").starts_with("job.yaml:1:"));
  CHECK(fault_of("checkpoint: \"\\ud83e\\udd8a\"").find("not valid YAML") != std::string::npos);
}

TEST_CASE("what is not YAML") {
  CHECK(fault_of("checkpoint: [a\nimages: x").starts_with("job.yaml:1:13: nothing closes this \"[\"\n"));
  CHECK(fault_of(std::string("a: \xff")) == "job.yaml:1:4: byte 3 is not UTF-8 text\n  write it in UTF-8");
  CHECK(fault_of("") ==
        "job.yaml:1:1: a job is a map of keys\n   1 | \n     | ^\n  as in \"checkpoint: flux1-dev.safetensors\"");
  CHECK(fault_of(start + "---\n" + start).find("a second document\n") != std::string::npos);
  CHECK(fault_of("a: !odd 3").starts_with("job.yaml:1:4: unknown tag \"!odd\""));
  std::string bomb = "a0: &a0 x\n";
  for (int i = 1; i < 30; ++i) {
    bomb += fmt::format("a{}: &a{} [*a{}, *a{}, *a{}]\n", i, i, i - 1, i - 1, i - 1);
  }
  CHECK(fault_of(bomb).find("more than 1000000 values") != std::string::npos);
}

TEST_CASE("columns count characters, and the caret stands below") {
  CHECK(fault_of("checkpoint: a\nimages: [{prompt: \"\xC3\xBC\xE7\x8B\x90\", sedd: 1}]") ==
        "job.yaml:2:25: unknown key \"sedd\" in images.0\n"
        "   2 | images: [{prompt: \"\xC3\xBC\xE7\x8B\x90\", sedd: 1}]\n"
        "     |                         ^\n"
        "  did you mean \"seed\"?");
}

TEST_CASE("samplers by A1111's names") {
  CHECK(*read_job(start + "sampler: {name: Euler a}", "job.yaml", "").sampler.name == "euler_ancestral");
  CHECK(*read_job(start + "sampler: {name: DPM++ 2M}", "job.yaml", "").sampler.name == "dpmpp_2m");
  CHECK(*job_of("sampler: {name: UniPC}").sampler.name == "uni_pc");
  CHECK(*job_of("sampler: {name: DDIM}").sampler.scheduler == "simple");
}

TEST_CASE("a sampler's name may say the scheduler and the step noise") {
  const auto said = [](const SamplerOptions& o) {
    return fmt::format("{} {} {}", *o.name, *o.scheduler, *o.step_noise == StepNoiseKind::Philox ? "philox" : "cpu");
  };
  CHECK(said(job_of("sampler: {name: DPM++ 2M Karras}").sampler) == "dpmpp_2m karras cpu");
  CHECK(said(job_of("sampler: {name: dpm++ sde karras}").sampler) == "dpmpp_sde karras cpu");
  CHECK(said(job_of("sampler: {name: DPM++ 2M SDE Exponential}").sampler) == "dpmpp_2m_sde exponential cpu");
  CHECK(said(job_of("sampler: {name: dpmpp_sde_gpu}").sampler) == "dpmpp_sde simple philox");
  CHECK(said(job_of("sampler: {scheduler: karras, name: DPM++ 2M Karras}").sampler) == "dpmpp_2m karras cpu");
  CHECK(fault_of(start + "sampler: {scheduler: simple, name: DPM++ 2M Karras}") ==
        "job.yaml:3:22: the sampler \"DPM++ 2M Karras\" means \"scheduler: karras\", and the job says \"simple\"\n"
        "   3 | sampler: {scheduler: simple, name: DPM++ 2M Karras}\n"
        "     |                      ^\n"
        "  write name: dpmpp_2m to choose the scheduler apart");
  CHECK(fault_of(start + "sampler: {name: dpmpp_sde_gpu, step_noise: cpu}") ==
        "job.yaml:3:44: the sampler \"dpmpp_sde_gpu\" means \"step_noise: philox\", and the job says \"cpu\"\n"
        "   3 | sampler: {name: dpmpp_sde_gpu, step_noise: cpu}\n"
        "     |                                            ^\n"
        "  write name: dpmpp_sde to choose the step_noise apart");
  // Between the job's sampler and an image's, the image's wins.
  const auto image = [&](const std::string& whole, const std::string& own) {
    const std::string text = "checkpoint: a\nsampler: {" + whole + "}\nimages: [{prompt: x, sampler: {" + own + "}}]";
    return said(read_job(text, "job.yaml", "").images[0].sampler);
  };
  CHECK(image("scheduler: simple", "name: DPM++ 2M Karras") == "dpmpp_2m karras cpu");
  CHECK(image("name: DPM++ 2M Karras", "scheduler: beta") == "dpmpp_2m beta cpu");
  CHECK(image("name: DPM++ 2M Karras", "name: Euler a") == "euler_ancestral karras cpu");
}

TEST_CASE("pictures to start from, masks and further conditionings") {
  const Job job = read_job(
      "checkpoint: a\nimages: [{prompt: x, init_image: b.png, mask: m.png, sampler: {denoise: 0.6}, conditions: "
      "[{prompt: y}, {prompt: z, mask: n.png, strength: 0.5, start: 0.25, end: 0.75}]}]",
      "job.yaml", "");
  const ImageJob& image = job.images[0];
  std::vector<std::string> names;
  for (const FileReference* file : picture_files(image)) names.push_back(file->text);
  CHECK(names == std::vector<std::string>{"b.png", "m.png", "n.png"});
  CHECK(*image.sampler.denoise == 0.6);
  REQUIRE(image.conditions->size() == 2);
  CHECK_FALSE(image.conditions.value[0].mask);
  CHECK(image.conditions.value[0].strength == 1);
  CHECK(image.conditions.value[1].end == 0.75);
  const auto line = [](const std::string& more) {
    const std::string text = fault_of("checkpoint: a\nimages: [{prompt: x, " + more + "}]");
    return text.substr(0, text.find('\n'));
  };
  CHECK(line("mask: m.png") == "job.yaml:2:28: \"mask\" without \"init_image\"");
  CHECK(line("sampler: {denoise: 0}") ==
        "job.yaml:2:41: \"images.0.sampler.denoise\" must be a number from 0.0001 to 1, not \"0\"");
  CHECK(line("conditions: [{prompt: y, start: 0.6, end: 0.5}]") ==
        "job.yaml:2:34: a condition that starts at 0.6 and ends at 0.5");
}

TEST_CASE("what is not supported yet says so at its place") {
  const auto line = [](const std::string& more) {
    const std::string text = fault_of(start + more);
    return text.substr(0, text.find('\n'));
  };
  CHECK(line("loras: [{file: x}]") == "job.yaml:3:8: \"loras\" is not supported yet");
  CHECK(line("mode: tensor") == "job.yaml:3:7: \"mode: tensor\" is not supported yet");
  CHECK(line("replicas: 2") == "job.yaml:3:11: \"replicas: 2\" is not supported yet");
  CHECK(line("split_cfg: true") == "job.yaml:3:12: \"split_cfg: true\" is not supported yet");
  CHECK(line("allocation: {unet: {compute: [0, 1]}}") ==
        "job.yaml:3:20: a list of devices for one component is not supported yet");
  CHECK(line("allocation: {vae: [0, 1]}") == "no error");
  CHECK(line("decode: {way: tiled, tile: 512, overlap: 170}") == "no error");
  CHECK(line("decode: {tile: 300}") == "no error");  // its overlap is a quarter
  CHECK(line("decode: {tile: 512, overlap: 171}") == "job.yaml:3:30: tiles of 512 pixels cannot overlap by 171");
  CHECK(line("gpu_ids: [cpu]\nallocation: {unet: cpu, vae: [cpu]}") == "no error");
}

TEST_CASE("an allocation string that is wrong is refused at its column") {
  const auto line = [](const std::string& more) {
    const std::string text = fault_of(start + more);
    return text.substr(0, text.find('\n'));
  };
  CHECK(line("allocation: {unet: \"cuda:0,4tb;cpu,*\"}") == "job.yaml:3:29: \"allocation.unet\": \"tb\" is no unit");
  CHECK(line("allocation:\n  clip: {expert: 'cuda:0,60%;x,40%'}") ==
        "job.yaml:4:30: \"allocation.clip.expert\": \"x\" is no device");
  CHECK(line("allocation:\n  t5xxl: cuda:0,60%;cuda:0,40%") ==
        "job.yaml:4:21: \"allocation.t5xxl\": cuda:0 is given twice");
  // Where the text does not stand as it reads, its beginning is all that can be shown.
  CHECK(line("allocation:\n  unet: \"cuda:0,\\u0034tb\"") == "job.yaml:4:9: \"allocation.unet\": \"tb\" is no unit");
  CHECK(line("gpu_ids: [0, 1, cuda:0]") == "job.yaml:3:10: device \"cuda:0\" is listed twice");
}

TEST_CASE("sizes that do not suit the model") {
  const Job job = read_job("checkpoint: a\nimages: [{prompt: x, width: 1000, height: 520}]", "job.yaml", "");
  CHECK_THROWS_WITH_AS(check_sizes(job, 16, "flux1-dev"),
                       "job.yaml:2:29: \"width\" 1000 is not a multiple of 16, as flux1-dev needs\n"
                       "   2 | images: [{prompt: x, width: 1000, height: 520}]\n"
                       "     |                             ^\n"
                       "  the nearest is 1008",
                       Error);
  CHECK_NOTHROW(check_sizes(job, 8, "sd15"));
}

TEST_CASE("a shift is refused where there is no flow") {
  const Job job = read_job("checkpoint: a\nsampler: {shift: 3}\nimages: [{prompt: x}]", "job.yaml", "");
  CHECK_THROWS_WITH_AS(check_shift(job, Prediction::Epsilon, "sd1"),
                       "job.yaml:2:18: \"shift\" is for flow models such as Flux, and sd1 is none\n"
                       "   2 | sampler: {shift: 3}\n"
                       "     |                  ^\n"
                       "  leave \"shift\" out",
                       Error);
  CHECK_NOTHROW(check_shift(job, Prediction::Velocity, "flux1-dev"));
  const Job automatic = read_job("checkpoint: a\nsampler: {shift: auto}\nimages: [{prompt: x}]", "job.yaml", "");
  CHECK_NOTHROW(check_shift(automatic, Prediction::V, "sd2-v"));
}

TEST_SUITE_END();
