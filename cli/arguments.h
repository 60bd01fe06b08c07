#pragma once

#include <string>
#include <vector>

#include "cli/job/settings.h"
#include "cli/render/render.h"

namespace mgpu {

/// What the command line asks for.
struct Arguments {
  enum class Command : std::uint8_t { Help, Run, Plan, Validate, Inspect, Devices, Sigmas, Compare, Schema };
  Command command = Command::Help;
  std::string text;                ///< Help: what to print on stdout
  std::vector<std::string> files;  ///< jobs, or what the command is about
  std::vector<Setting> settings;
  RenderOptions render;
  bool json = false;   ///< data as JSON on stdout
  bool quiet = false;  ///< failures alone on stderr
  bool verbose = false;
  bool markdown = false;   ///< schema: the reference page
  std::string log;         ///< --log FILE
  std::string devices;     ///< plan: the devices to suppose; empty: this machine's
  std::string difference;  ///< compare: where to write the picture of differences
};

/// Reads argv. Order does not matter; a first word that is no command is a job to run. Throws Error (exit 2) for what
/// it does not understand.
Arguments parse_arguments(int argc, const char* const* argv);

}  // namespace mgpu
