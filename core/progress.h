#pragma once

#include <string>

namespace mgpu {

/// What the engine tells while it works, from several threads. The command line draws it; tests pass their own.
class Progress {
 public:
  virtual ~Progress() = default;
  /// A picture's phase begins: "load", "encode", "sample", "decode", "write".
  virtual void phase(const std::string& picture, const std::string& name) = 0;
  /// `step` of `steps` sampling steps done, from 1.
  virtual void step(const std::string& picture, int step, int steps) = 0;
  /// A picture is finished: status "ok", "kept", "failed" or "skipped" and, for a failure, why.
  virtual void finished(const std::string& picture, const std::string& status, double seconds,
                        const std::string& error) = 0;
  /// Anything else a user should know.
  virtual void note(const std::string& text) = 0;
};

}  // namespace mgpu
