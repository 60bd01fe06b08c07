#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "cli/job/checks/checks.h"
#include "cli/job/notes.h"
#include "cli/plan/plan_job.h"
#include "cli/plan/prompt_lengths.h"
#include "core/text/clip_tokenizer.h"
#include "core/text/prompt.h"
#include "core/text/t5_tokenizer.h"
#include "tests/prepare_cases.h"

// What limits a job: the memory that it may use, the length of its prompts, and what would fit instead.

using namespace mgpu;
using namespace mgpu::test;

TEST_SUITE_BEGIN("prepare_limits");

TEST_CASE("a limit with a minus leaves that much free, and no limit is more than a device has") {
  const auto limits = [](const char* limit) {
    std::vector<std::uint64_t> out;
    Job job = job_with(std::string("gpu_ids: [0, 1]\nvram_limit: ") + limit);
    for (const DeviceRoom& room : job_devices(job, {survey_of({gpu(0, 8, 6), gpu(1, 8, 6)})}).rooms)
      out.push_back(room.limit_bytes >> 20);
    return out;
  };
  CHECK(limits("-1GB") == std::vector<std::uint64_t>{23 * 1024, 23 * 1024});
  CHECK(limits("{cuda:0: -512MB, cuda:1: 8GB}") == std::vector<std::uint64_t>{24 * 1024 - 512, 8 * 1024});
  CHECK(limits("32GB") == std::vector<std::uint64_t>{24 * 1024, 24 * 1024});
  const auto fault = [&](const char* limit) -> std::string {
    try {
      limits(limit);
    } catch (const Error& error) {
      return error.message();
    }
    return "no error";
  };
  CHECK(fault("-24GB") == "\"vram_limit\" leaves 24.0 GB free on cuda:0, which has 24.0 GB");
  CHECK(fault("{cuda:1: 25GB}") == "\"vram_limit\" is 25.0 GB on cuda:1, which has 24.0 GB");
  CHECK(fault("-0GB") == "\"vram_limit\" must be a size such as 8GB, not \"-0GB\"");
  CHECK(fault("--1GB") == "\"vram_limit\" must be a size such as 8GB, not \"--1GB\"");
  CHECK(fault("-8") == "\"vram_limit\" must be a size such as 8GB, not \"-8\"");
}

TEST_CASE("a limit or a speed of a device that the machine has not is said") {
  Job job = job_with("vram_limit: {cuda:0: 8GB, cuda:1: 8GB}\nspeed: {cuda:2: 0.5, cpu: 1.0}");
  JobModels models = open_job(job);
  const ChosenDevices devices = job_devices(job, {survey_of({gpu(0, 8, 6)})});
  CHECK(plan_job(job, std::move(models), devices).plan.mode_reason ==
        "one device; vram_limit names cuda:1, which the job does not use; speed names cuda:2, which the job does not "
        "use");

  // Of a job that names its devices a note says it (job_notes), and the plan does not say it again.
  Job named = job_with("gpu_ids: [0]\nvram_limit: {cuda:0: 8GB, cuda:1: 8GB}\nspeed: {cuda:2: 0.5, cpu: 1.0}");
  JobModels models_of_named = open_job(named);
  const std::vector<std::string> notes = job_notes(named, models_of_named);
  CHECK(std::ranges::count_if(notes, [](const std::string& note) { return note.find("is not used") != note.npos; }) ==
        2);
  const ChosenDevices two = job_devices(named, {survey_of({gpu(0, 8, 6), gpu(1, 8, 6)})});
  CHECK(plan_job(named, std::move(models_of_named), two).plan.mode_reason == "one device");
}

TEST_CASE("virtual devices without limits of their own share main memory") {
  const auto limits = [](const char* lines) {
    std::vector<std::uint64_t> out;
    const Job job = job_with(lines);
    for (const DeviceRoom& room : job_devices(job, {survey_of({gpu(0, 8, 6)})}).rooms)
      out.push_back(room.limit_bytes >> 30);
    return out;
  };
  CHECK(limits("gpu_ids: [cpu:0, cpu:1]") == std::vector<std::uint64_t>{32, 32});
  CHECK(limits("gpu_ids: [cpu:0, 0, cpu:1, cpu:2]\nvram_limit: {cpu:1: 4GB}") ==
        std::vector<std::uint64_t>{30, 24, 4, 30});
  CHECK(limits("gpu_ids: [cpu:0, cpu:1]\nvram_limit: 48GB") == std::vector<std::uint64_t>{48, 48});
  CHECK(limits("gpu_ids: [0, cpu]") == std::vector<std::uint64_t>{24, 64});
}

TEST_CASE("main memory lends also where it computes, and the GPUs' limit is not its own") {
  Job job = job_with("gpu_ids: [0, cpu]\nvram_limit: 8GB");
  const ChosenDevices devices = job_devices(job, {survey_of({gpu(0, 8, 6)})});
  CHECK(devices.rooms[0].limit_bytes == std::uint64_t{8} << 30);
  CHECK(devices.rooms[1].limit_bytes == std::uint64_t{64} << 30);
  REQUIRE(devices.donors.size() == 1);
  CHECK(devices.donors[0].id == DeviceId::cpu());
}

TEST_CASE("what a job lacks of main memory names the limit of the system that it is short of") {
  DeviceSurvey survey = survey_of({});
  survey.host_free_bytes = std::uint64_t{1} << 20;
  survey.host_free_limit = "memory.max of cgroup /pod";
  const auto refusal = [&](const std::string& lines) -> std::string {
    Job job = job_with("gpu_ids: [cpu]\n" + lines);
    try {
      JobModels models = open_job(job);
      prepare(job, std::move(models), job_devices(job, {survey}));
    } catch (const Error& error) {
      return error.message() + " | " + error.hint();
    }
    return "no error";
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(has(refusal(""), " and may use 1.0 MB (memory.max of cgroup /pod): "));
  CHECK(has(refusal(""), " | memory.max of cgroup /pod has to leave "));
  // A limit above what the system leaves changes nothing; one below it is the job's own.
  CHECK(refusal("vram_limit: 32GB") == refusal(""));
  CHECK(has(refusal("vram_limit: 512KB"), " and may use 512 KB: "));
  CHECK(has(refusal("vram_limit: 512KB"), " | it takes a device or a vram_limit of "));
}

TEST_CASE("the text that memory is planned for is as long as the longest prompt is encoded") {
  Job job = job_with("gpu_ids: [cpu]");
  const JobModels models = open_job(job);
  const T5Tokenizer t5(models.set.tokenizer("t5xxl"));
  const ClipTokenizer clip(models.set.tokenizer("clip"));
  const auto tokens = [](const std::vector<Chunk>& chunks) {
    std::size_t out = 0;
    for (const Chunk& chunk : chunks) out += chunk.size();
    return static_cast<std::int64_t>(out);
  };
  const std::vector<std::string> pieces = {"a ",
                                           "boat",
                                           "!",
                                           "(",
                                           ")",
                                           "(x:1.3)",
                                           " BREAK ",
                                           "7",
                                           "\xef\xb7\xba",
                                           "...",
                                           "\xe2\x82\xac",
                                           " the quick brown fox ",
                                           "#",
                                           "((",
                                           "))",
                                           ","};
  std::mt19937_64 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string prompt;
    for (std::uint64_t length = random() % 400; prompt.size() < length;) {
      const std::string& piece = pieces[random() % pieces.size()];
      for (std::uint64_t n = random() % 8; n > 0; --n) prompt += piece;
    }
    CAPTURE(prompt);
    for (ImageJob& image : job.images) image.prompt = prompt;
    const std::int64_t of_t5 = tokens(tokenize(
        prompt, [&](std::string_view text) { return t5.encode(text); }, t5.chunks(256)));
    const std::int64_t of_clip = tokens(tokenize(
        prompt, [&](std::string_view text) { return clip.encode(text); }, clip.chunks(clip.end())));
    const PromptLengths lengths = text_lengths(job, models.set);
    CHECK(lengths.whole == std::max<std::int64_t>(256, of_t5));
    CHECK(lengths.in_chunks == std::max<std::int64_t>(77, of_clip));
  }
}

TEST_CASE("what would fit instead fits") {
  std::mt19937_64 random(11);
  int tried = 0;
  for (int round = 0; round < 60; ++round) {
    const std::uint64_t mib = random() % 24 + 1;
    const std::string devices = round % 3 == 0 ? "gpu_ids: [cpu:0, cpu:1]\n" : "gpu_ids: [cpu:0]\n";
    const std::string dtype = round % 2 == 0 ? "dtype: bf16\n" : "";
    const auto planned = [&](const std::string& lines, std::int64_t width, std::int64_t height) {
      Job job = job_with(lines);
      for (ImageJob& image : job.images)
        if (width > 0) image.width.value = static_cast<int>(width), image.height.value = static_cast<int>(height);
      JobModels models = open_job(job);
      return plan_job(job, std::move(models), job_devices(job, {survey_of({})}));
    };
    const std::int64_t width = 16 * (random() % 60 + 20), height = 16 * (random() % 60 + 20);
    const std::string limit = fmt::format("vram_limit: {}MB", mib);
    const PreparedJob refused = planned(devices + dtype + limit, width, height);
    if (refused.plan.fits()) continue;
    ++tried;
    const NearestFit& hint = refused.nearest_fit;
    CAPTURE(hint.text());
    switch (hint.kind) {
      case NearestFit::Kind::Narrow:
        CHECK(planned(devices + "dtype: bf16\n" + limit, width, height).plan.fits());
        break;
      case NearestFit::Kind::SmallerSize:
        CHECK(planned(devices + dtype + limit, hint.width, hint.height).plan.fits());
        break;
      case NearestFit::Kind::MoreMemory:
        CHECK(planned(devices + dtype + fmt::format("vram_limit: {}MB", mib + hint.mebibytes), width, height)
                  .plan.fits());
        break;
      case NearestFit::Kind::Device:
        CHECK(planned(devices + dtype + fmt::format("vram_limit: {}MB", hint.mebibytes), width, height).plan.fits());
        break;
      case NearestFit::Kind::None:
        CHECK_MESSAGE(false, "no hint");
    }
  }
  CHECK(tried > 10);
}

TEST_SUITE_END();
