#pragma once

#include <any>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor_file.h"
#include "core/training.h"

namespace mgpu {

class PartShapes;
class WeightPatches;
struct TextRecipe;

/// The sizes of a part, a struct of its model's own: FluxSizes, ClipSizes, ...
using Sizes = std::any;

/// The blocks of a part in the order in which they run: ("double", 19), ("single", 38).
using BlockCounts = std::vector<std::pair<std::string, int>>;

/// What a part of a model is for, how it is called, and how programs prefix its tensors' names.
struct Role {
  std::string_view what;              ///< "a CLIP-L text encoder"
  std::string_view key;               ///< what a job file calls it: "encoders.clip_l", "vae"; "": no job names it
  std::vector<std::string> prefixes;  ///< tried in order
};

/// `kOtherRole` is what no job can use as a whole: adapters, upscalers, foreign quantisations. Each text encoder has a
/// role of its own (core/text/text_encoder.h).
extern const Role kDiffusionRole, kVaeRole, kOtherRole;

/// The model text of a supported part: a diffusion model, a text encoder or an autoencoder. One object for each, which
/// the rows of its families point at.
class PartModel {
 public:
  virtual ~PartModel() = default;
  /// What its families have in common, for people: "a Flux.1 transformer".
  virtual std::string_view kind() const = 0;
  /// Reads the sizes of a part and asks for every tensor that the part reads. Throws Error naming file and tensor.
  virtual Sizes read(PartShapes& shapes) const = 0;
  virtual BlockCounts blocks(const Sizes& sizes) const = 0;
};

/// Something that a tensor's name or shape says; in one case, its values. The functions of core/signs.h make them.
struct Sign {
  enum class Test : std::uint8_t { Has, Lacks, Dim, OtherDim, AnyEndsWith, InFile, NotInFile, Spread, Blocks };
  Test test = Test::Has;
  std::string_view name;  ///< under the part's prefix; AnyEndsWith: the end of any name; (Not)InFile: a whole name
  std::size_t axis = 0;   ///< Dim, OtherDim: this axis of the shape ...
  std::int64_t size = 0;  ///< ... has (has not) this size
  double bound = 0.0;     ///< Spread: the values' standard deviation is above this
  std::int64_t most = 0;  ///< Blocks: `name` is a level ("encoder.block.") that has `size` to `most` blocks
};

/// One kind of part: how it is known and, when it is supported, the model that reads and runs it.
struct FamilyRow {
  const Role* role = &kOtherRole;
  std::string_view what = {};        ///< completes "is ...": "a Stable Diffusion 3 checkpoint"
  std::vector<Sign> signs = {};      ///< all must hold; rows are tried in order, the first that fits is it
  std::string_view hint = {};        ///< of an unsupported row: what to use instead
  const PartModel* model = nullptr;  ///< null: known, but not supported yet
  // The rest is of supported diffusion models.
  std::string_view name = {};  ///< "flux1-dev"
  std::optional<Training> training = {};
  const TextRecipe* text = nullptr;  ///< the text encoders that it takes, and what it takes from them
  int size_values = 0;               ///< numbers behind the pooled text in SDXL's vector, 256 wide each: 6; refiner 5
  bool aesthetic = false;            ///< the last of them is an aesthetic score: the refiner's
  /// Of a row of kOtherRole: what it names shares a supported part's names, and says why that part cannot be read.
  bool explains = false;
};

/// Adds rows while it lives: they are tried before those that are there. The program's own are added by
/// register_families() (cli/register_families.h), before the first file is opened.
class AddedFamilies {
 public:
  explicit AddedFamilies(std::vector<FamilyRow> rows);
  ~AddedFamilies();
  AddedFamilies(const AddedFamilies&) = delete;
  AddedFamilies& operator=(const AddedFamilies&) = delete;

 private:
  std::size_t count_;
};
/// All rows, in the order in which they are tried. They stay where they are when others are added.
const std::deque<FamilyRow>& family_rows();

/// One part of a model, found in a file.
struct Part {
  std::shared_ptr<const TensorFile> file;
  const FamilyRow* row = nullptr;
  std::string prefix;  ///< of its tensors' names: "" or "model.diffusion_model." and the like
  Sizes sizes;
  /// What a supported part reads, with its weights' scales, by full names; null where that is not known.
  std::shared_ptr<const TensorMap> reads = {};
  /// What changes its weights on their way in; null: nothing does.
  std::shared_ptr<const WeightPatches> patches = {};

  /// `reads`, else all of the file's: those of the part begin with `prefix`.
  const TensorMap& tensors() const { return reads ? *reads : file->tensors(); }
  /// The sizes of a supported part, by the type that its model reads.
  template <class T>
  const T& as() const {
    return std::any_cast<const T&>(sizes);
  }
  /// The part's blocks; none of a part that is not supported.
  BlockCounts blocks() const { return row->model && sizes.has_value() ? row->model->blocks(sizes) : BlockCounts{}; }
};

/// Every part that the names in `file` show, supported or not; of an unsupported one the sizes stay empty. Throws Error
/// naming the tensor where a supported part's tensors do not fit together, and when there is nothing that we know
/// (saying what was looked for).
std::vector<Part> recognise(const std::shared_ptr<const TensorFile>& file);

/// The part of that role in a file that was named for it. Throws Error that says what the file is instead, or that the
/// part is not supported.
Part find_part(const std::shared_ptr<const TensorFile>& file, const Role& role);

/// The part of that role in a checkpoint, for a job that names no file for it. Throws Error that says what to name,
/// when there is none.
Part find_own_part(const std::shared_ptr<const TensorFile>& checkpoint, const Role& role);

/// The file's tensors that none of its parts reads, without those that files commonly hold beside a model (buffers,
/// training's tables, averaged weights, towers for pictures). Of a part that is not supported all are its own.
std::vector<std::string> left_over(const std::shared_ptr<const TensorFile>& file);

/// What `inspect` tells of a part.
struct PartSummary {
  std::string what;  ///< "a Flux.1 dev transformer"
  bool supported = false;
  std::string prefix;
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
  std::map<std::string, std::uint64_t> dtypes;  ///< bytes a type, by safetensors' names
  BlockCounts blocks;
  std::string quantisation;  ///< "none", "fp8 (F8_E4M3)" or "fp8 (F8_E4M3), scaled"
};

PartSummary summarise(const Part& part);

}  // namespace mgpu
