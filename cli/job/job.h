#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/files/file_identity.h"
#include "core/devices.h"
#include "core/error.h"
#include "samplers/schedule.h"
#include "shard/allocation.h"

namespace mgpu {

class Source;  // cli/job/source.h: the text of a job file, for excerpts

/// A value and where the user wrote it, for errors that come up later. `given` is false for a default.
template <class T>
struct Marked {
  T value{};
  Mark mark;
  bool given = false;

  const T& operator*() const { return value; }
  const T* operator->() const { return &value; }
};

/// A file that the job names. `path` is where it was found (resolve_files); empty `text` means that the key is absent.
struct FileReference {
  std::string text;
  std::string path;
  Mark mark;
  bool from_option = false;  ///< written with --set: relative to the working directory, not to the job file

  explicit operator bool() const { return !text.empty(); }
};

/// A job's weight files and the data that its tokenizers need. Absent ones: the checkpoint's own; the installed ones.
struct ModelFiles {
  FileReference checkpoint;
  std::map<std::string, FileReference, std::less<>> encoders;  ///< by the encoders' keys
  FileReference vae;
  std::map<std::string, FileReference, std::less<>> tokenizers;  ///< by the tokenizers' keys
  std::vector<FileReference> model_paths;
};

struct LoraOptions {
  FileReference file;
  double strength = 1.0;
  std::optional<double> clip_strength;  ///< absent: as strength
};

/// Compute type of a component. Auto: fp16 SD/SDXL, bf16 Flux and VAE (fp32 where a GPU has no bf16), fp32 on CPU.
enum class ComputeType : std::uint8_t { Auto, Fp32, Bf16, Fp16, Fp8 };

/// Whether the picture is independent of the placement; portable: of the CPU as well. False is read and refused: no
/// mode that it would open is there yet.
enum class Exact : std::uint8_t { True, False, Portable };

struct ComputeTypes {
  Marked<ComputeType> unet;
  Marked<ComputeType> clip;
  Marked<ComputeType> vae;
};

/// How one copy of the model is spread over devices.
enum class Mode : std::uint8_t { Auto, Single, Shard, Tensor, Sequence, Patch, Replicate, SplitCfg };

enum class AutoBool : std::uint8_t { Auto, True, False };

/// A string of the allocation grammar (shard/allocation.h), parsed when the job is read. `text` and `mark` say where
/// its columns stand in the job, for errors that come up later.
struct WrittenAllocation {
  AllocationString value;
  std::string text;
  Mark mark;
};

/// Where one component's bytes lie. `expert` wins over the others.
struct ComponentAllocation {
  std::optional<WrittenAllocation> expert;
  std::vector<DeviceId> compute;  ///< one device; several for a VAE that is decoded in parallel
  double virtual_vram_gb = 0.0;   ///< GiB moved from the compute device to the donors
  std::vector<DeviceId> donors;
};

struct Allocation {
  Marked<ComponentAllocation> unet;
  Marked<ComponentAllocation> clip;                                          ///< all encoders; those below override it
  std::map<std::string, Marked<ComponentAllocation>, std::less<>> encoders;  ///< by the encoders' keys
  Marked<ComponentAllocation> vae;

  /// All of them, with the job's words for them.
  std::vector<std::pair<std::string, const Marked<ComponentAllocation>*>> all() const;
};

/// A memory limit in bytes, for every device or for each; below 0 what is to stay free.
struct VramLimit {
  std::optional<std::int64_t> each;
  std::map<DeviceId, std::int64_t> device;
};

struct PlacementOptions {
  Marked<std::vector<DeviceId>> gpu_ids;  ///< not given: all GPUs, else the CPU
  Marked<VramLimit> vram_limit;           ///< not given: what is free
  Marked<Mode> mode;
  Marked<int> replicas;  ///< 0: auto
  Marked<AutoBool> split_cfg;
  Marked<std::map<DeviceId, double>> speed;  ///< empty: probed
  Marked<bool> drop_missing_devices;
  Allocation allocation;
};

enum class DecodeSetting : std::uint8_t { Auto, Whole, Parallel, Tiled };

struct DecodeOptions {
  Marked<DecodeSetting> mode;
  Marked<int> tile{.value = 1024, .mark = {}};    ///< pixels
  Marked<int> overlap{.value = 128, .mark = {}};  ///< likewise
};

/// Shift of a flow model's schedule: ComfyUI's constant, a constant, or one that grows with the resolution.
struct Shift {
  enum class Kind : std::uint8_t { Auto, Constant, ByResolution };
  Kind kind = Kind::Auto;
  double value = 0.0;  ///< Constant
  double base = 0.5;   ///< ByResolution: mu at 256 image tokens
  double max = 1.15;   ///< ByResolution: mu at 4096 image tokens

  auto operator<=>(const Shift&) const = default;
};

struct SamplerOptions {
  Marked<std::string> name{"euler", {}, false};        ///< a name of samplers(), in its canonical spelling
  Marked<std::string> scheduler{"simple", {}, false};  ///< a name of schedules()
  Marked<int> steps{20, {}, false};
  Marked<double> cfg{1.0, {}, false};
  Marked<double> guidance{3.5, {}, false};  ///< the embedded one; models without it ignore it
  Marked<double> denoise{1.0, {}, false};
  Marked<Shift> shift;
  Marked<int> clip_skip;  ///< 0: auto
  Marked<StepNoiseKind> step_noise;
};

/// A further positive conditioning.
struct ConditionOptions {
  std::string prompt;
  Mark prompt_mark;
  FileReference mask;
  double strength = 1.0;
  double start = 0.0;
  double end = 1.0;
};

/// One entry of `images`; stands for count x batch pictures.
struct ImageJob {
  Mark mark;  ///< of the entry
  std::string prompt;
  Mark prompt_mark;
  std::string negative;
  Mark negative_mark;
  Marked<int> width{1024, {}, false};
  Marked<int> height{1024, {}, false};
  Marked<std::uint64_t> seed;  ///< drawn already when the job says `random`
  bool random_seed = false;
  Marked<int> count{1, {}, false};  ///< runs with seeds seed, seed + 1, ...
  Marked<int> batch{1, {}, false};  ///< pictures from one draw of one seed
  SamplerOptions sampler;           ///< merged over the job's
  Marked<std::vector<ConditionOptions>> conditions;
  FileReference init_image;
  FileReference mask;
};

struct OutputOptions {
  FileReference directory;  ///< path: resolved, may not exist yet
  Marked<std::string> name{
      "{job}-{index:04}-{seed}.png", {}, false};         ///< cli/job/picture_list.h says what may stand in it
  Marked<std::string> report{"report.json", {}, false};  ///< in the directory; empty: none
};

/// A job file, read and checked: nothing in it has been looked up yet but its own keys (load_job also finds the files).
struct Job {
  std::string name;       ///< {job} of the output names: the file's stem, "job" for standard input
  std::string file;       ///< as the user named it
  std::string directory;  ///< what relative paths are relative to
  ModelFiles files;
  std::vector<LoraOptions> loras;
  Mark loras_mark;
  ComputeTypes dtype;
  Marked<Exact> exact;
  PlacementOptions placement;
  DecodeOptions decode;
  SamplerOptions sampler;
  std::vector<ImageJob> images;
  OutputOptions output;
  bool takes_guidance = false;                 ///< the model has an input for the embedded guidance (open_job)
  std::vector<std::string> embedding_folders;  ///< where textual inversions lie, in order (resolve_files)
  /// Set by `run picture.png`: the one picture of its batch to write, and the files that the original was made with.
  std::optional<int> only_in_batch;
  std::vector<FileIdentity> expected_files;
  std::shared_ptr<const Source> source;

  /// An error (exit 2) at `mark`, with the line of the job file that it points at.
  Error error(const Mark& mark, std::string message, std::string hint = {}) const;
  /// The place in the job of a column of an allocation string.
  Mark place_in(const WrittenAllocation& allocation, std::size_t column) const;
};

/// The texts of an entry: its prompt, its negative prompt and its conditions' prompts.
std::vector<std::string_view> prompts_of(const ImageJob& image);

/// The pictures that an entry names: its init image, its mask and its conditions' masks, as far as there are any.
std::vector<const FileReference*> picture_files(const ImageJob& image);

/// Names as the job file spells them.
std::string_view name_of(ComputeType type);
std::string_view name_of(Mode mode);

}  // namespace mgpu
