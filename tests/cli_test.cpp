#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "cli/arguments.h"
#include "cli/files/png.h"
#include "cli/files/write_file.h"
#include "cli/job/checks/output_checks.h"
#include "cli/job/picture_list.h"
#include "cli/job/read_job.h"
#include "cli/job/suggest.h"
#include "cli/render/existing_picture.h"
#include "cli/version.h"
#include "core/devices.h"
#include "core/edit_distance.h"

using namespace mgpu;
namespace fs = std::filesystem;

namespace {

/// A folder that goes with the test.
struct Scratch {
  explicit Scratch(const std::string& name) : path(fs::temp_directory_path() / name) {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Scratch() { fs::remove_all(path); }
  fs::path path;
};

std::string read_text(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "mgpu-render");
  return parse_arguments(static_cast<int>(words.size()), words.data());
}

GpuInfo gpu(int major, int minor, double free_share) {
  GpuInfo info;
  info.id = DeviceId::cuda(0);
  info.name = "NVIDIA X";
  info.major = major;
  info.minor = minor;
  info.total_bytes = std::uint64_t(80) << 30;
  info.free_bytes = static_cast<std::uint64_t>(free_share * static_cast<double>(info.total_bytes));
  return info;
}

DeviceSurvey machine(std::vector<GpuInfo> gpus) {
  DeviceSurvey survey;
  survey.driver_version = 13000;
  survey.runtime_version = 13000;
  survey.gpus = std::move(gpus);
  return survey;
}

}  // namespace

TEST_SUITE_BEGIN("cli");

TEST_CASE("names of devices") {
  CHECK(parse_device("cuda:3") == DeviceId::cuda(3));
  CHECK(parse_device("3") == DeviceId::cuda(3));
  CHECK(parse_device("cpu") == DeviceId::cpu());
  CHECK(parse_device("cpu:0") == DeviceId::cpu(0));
  for (const char* bad : {"", "cuda", "cuda:", "cuda:-1", "cuda:1x", "cpu:99999", "mps", " cpu"})
    CHECK_FALSE(parse_device(bad));
  for (const char* name : {"cuda:3", "cpu", "cpu:7"}) CHECK(parse_device(name)->to_string() == name);
}

TEST_CASE("devices in plain words") {
  const auto words = [](const DeviceSurvey& survey) {
    const std::vector<std::string> all = device_warnings(survey);
    return all.size() == 1 ? all[0] : std::to_string(all.size());
  };
  CHECK(words(machine({gpu(9, 0, 0.99)})) == "0");
  CHECK(words(machine({gpu(7, 5, 0.99)})) == "0");
  CHECK(words(machine({gpu(7, 0, 0.99)})) ==
        "cuda:0 (NVIDIA X) cannot be used: too old: compute capability 7.0, and our kernels need 7.5");
  CHECK(words(machine({gpu(9, 0, 0.5)})) ==
        "cuda:0 is busy: other programs hold 40.0 of its 80.0 GiB; nvidia-smi names them");
  CHECK(words(machine({})) == "no GPU: jobs run on the CPU");
  DeviceSurvey survey = machine({});
  survey.driver_version = 12080;
  CHECK(words(survey) ==
        "the NVIDIA driver is too old: it serves CUDA 12.8, and this program needs 13.0: update the driver");
  survey.driver_version = 0;
  CHECK(words(survey) == "no NVIDIA driver: jobs run on the CPU");
  survey = machine({});
  survey.hidden = true;
  CHECK(words(survey) == "CUDA_VISIBLE_DEVICES hides every GPU: jobs run on the CPU");
  survey = machine({});
  survey.failure = "system not yet initialized";
  CHECK(words(survey) == "the NVIDIA driver does not answer: system not yet initialized");
  CHECK(device_list(machine({gpu(9, 0, 1.0)})) == "cuda:0, cpu");
}

TEST_CASE("distances and suggestions") {
  CHECK(edit_distance("stpes", "steps") == 1);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("", "abc") == 3);
  const std::string_view names[] = {"steps", "cfg"};
  CHECK(did_you_mean("Step", names) == "did you mean \"steps\"?");
  CHECK(did_you_mean("prompt", names) == "");
}

TEST_CASE("arguments in any order") {
  const Arguments a = parse({"job.yaml", "--set", "sampler.steps=3", "--only", "0,3-5", "--overwrite"});
  CHECK(a.command == Arguments::Command::Run);
  CHECK(a.files == std::vector<std::string>{"job.yaml"});
  CHECK(a.settings[0].path == "sampler.steps");
  CHECK(a.render.only->has(4));
  CHECK(a.render.overwrite);
  const Arguments b = parse({"--quiet", "--set", "a=1", "run", "a.yaml", "b.yaml", "--set", "b=2"});
  CHECK(b.files.size() == 2);
  CHECK(b.settings.size() == 2);
  CHECK(b.quiet);
  CHECK(parse({"-"}).files == std::vector<std::string>{"-"});
  CHECK(parse({"--version"}).text == "mgpu-render 0.1.0\n");
  CHECK_THROWS_WITH_AS(parse({"rnu"}), "unknown command \"rnu\"\n  did you mean \"run\"?", Error);
  CHECK_THROWS_WITH_AS(parse({"run", "a.yaml", "--resume", "--overwrite"}),
                       "--resume and --overwrite exclude each other\n  --overwrite renders everything again", Error);
}

TEST_CASE("the version is the project's") {
  CHECK(read_text(fs::path(MGPU_SOURCE) / "CMakeLists.txt").find("VERSION " + std::string(program_version) + " ") !=
        std::string::npos);
}

TEST_CASE("a file is written whole or not at all") {
  const Scratch scratch("mgpu_output_test");
  const std::string path = (scratch.path / "deep/a.png").string();
  write_file(path, "old");
  CHECK(read_text(path) == "old");

  struct rlimit before {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 1000, before.rlim_max };
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  Exit code = Exit::Ok;
  try {
    write_file(path, std::string(5000, 'x'));
  } catch (const Error& e) {
    message = e.what();
    code = e.code();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(code == Exit::ImageFailed);
  CHECK(message ==
        path +
            ": cannot be written: File too large\n  raise the limit on the size of files (ulimit -f) and run again "
            "with --resume");
  CHECK(read_text(path) == "old");
  CHECK_FALSE(fs::exists(path + ".tmp"));
}

TEST_CASE("an output directory that cannot be written") {
  const Scratch scratch("mgpu_directory_test");
  std::ofstream(scratch.path / "file") << "x";
  const std::string below = (scratch.path / "file/out").string();
  Job job = read_job("checkpoint: a\nimages: [{prompt: x}]\noutput: {directory: " + below + "}", "job.yaml", "");
  job.output.directory.path = below;
  CHECK_THROWS_WITH_AS(check_output_directory(job),
                       ("job.yaml:3:21: cannot write to the output directory \"" + below +
                        "\": Not a directory\n   3 | output: {directory: " + below +
                        "}\n     |                     ^\n  name another with output.directory")
                           .c_str(),
                       Error);
  job.output.directory.path = (scratch.path / "new/deep").string();
  check_output_directory(job);
  CHECK(fs::is_empty(scratch.path / "new/deep"));
}

TEST_CASE("existing pictures are kept, unless asked otherwise") {
  const Scratch scratch("mgpu_existing_test");
  const std::string path = (scratch.path / "a.png").string();
  CHECK(existing_picture(path, "{}", false, false) == Existing::Render);
  write_file(path, encode_png({1, 1, {1, 2, 3}}, {{"mgpu_job", "{}"}}));
  CHECK(existing_picture(path, "{}", false, false) == Existing::Keep);
  CHECK(existing_picture(path, "{}", true, false) == Existing::Render);
  CHECK(existing_picture(path, "{}", false, true) == Existing::Keep);
  CHECK(existing_picture(path, "{\"seed\":1}", false, true) == Existing::Render);
  write_file(path, "half a file");
  CHECK(existing_picture(path, "{}", false, true) == Existing::Render);
}

TEST_CASE("reports of jobs that share a directory do not overwrite each other") {
  std::vector<Job> jobs;
  for (const char* name : {"a.yaml", "b.yaml", "c.yaml"}) {
    jobs.push_back(read_job("checkpoint: a\nimages: [{prompt: x}]", name, ""));
    jobs.back().output.directory.path = "out";
  }
  jobs[2].output.report.value = "";
  CHECK(report_paths(jobs, std::nullopt) == std::vector<std::string>{"out/report.json", "out/report-b.json", ""});
  CHECK(report_paths(jobs, PartOfRun{0, 2})[0] == "out/report-0-of-2.json");
}

TEST_SUITE_END();
