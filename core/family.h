#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/latent_rgb.h"
#include "core/tensor_file.h"
#include "core/text/recipe.h"

namespace mgpu {

class PartShapes;

/// Sizes of a Flux.1 transformer, read from its tensors.
struct FluxSizes {
  int hidden = 0;         ///< width of the residual stream
  int heads = 0;          ///< hidden / 128, the rotary axes being 16 + 56 + 56
  int mlp = 0;            ///< width of the MLPs' hidden layer
  int depth = 0;          ///< double blocks
  int depth_single = 0;   ///< single blocks
  int context = 0;        ///< width of T5's hidden states that it takes
  int vector = 0;         ///< width of CLIP-L's pooled output that it takes
  int channels = 0;       ///< of the latent: img_in takes 2x2 patches of them
  bool guidance = false;  ///< distilled guidance is an input (dev); schnell has none
};

/// One block of a UNet's ways down and up: a residual block and the transformer behind it, or a change of resolution.
struct UNetBlockSizes {
  int in = 0;              ///< channels that its residual block takes; on the way up without the skip's
  int out = 0;             ///< channels that it gives
  int skip = 0;            ///< way up: channels of the skip, behind `in`
  int depth = 0;           ///< transformer blocks behind the residual block
  bool resamples = false;  ///< way down: nothing but a strided convolution; way up: the image doubles at the end
};

/// Sizes of a Stable Diffusion UNet (original LDM names), block by block, so that distilled models, which left some
/// out, are described too. Block 0 of the way down is the input convolution; the up block j takes the skip of the down
/// block skip_of(j).
struct UNetSizes {
  int channels_in = 0;               ///< 4; 9 where the latent comes with a mask and the masked picture's latent
  int channels_out = 0;              ///< of the latent
  int model_channels = 0;            ///< of the first level, and the timestep's sinusoid
  std::vector<UNetBlockSizes> down;  ///< input_blocks
  std::vector<UNetBlockSizes> up;    ///< output_blocks, as many
  int middle_residuals = 0;          ///< of middle_block: 2; distilled models have 1 or none
  int depth_middle = 0;              ///< transformer blocks between them
  int context = 0;                   ///< width of the text's hidden states
  int vector = 0;                    ///< width of label_emb's input (pooled text and picture size), or 0
  bool linear_projections = false;   ///< the transformers' proj_in and proj_out are matrices, not 1x1 convolutions

  /// Attention heads over `channels`: 8 at any width in SD 1.x, which has convolutions for projections, later 64 wide.
  int heads(int channels) const { return linear_projections ? channels / 64 : 8; }
  /// The down block whose result the up block `up` takes: the last first.
  int skip_of(int up_block) const { return static_cast<int>(down.size()) - 1 - up_block; }
};

/// Sizes of a CLIP text model, in transformers' layout or OpenCLIP's.
struct ClipSizes {
  int hidden = 0;
  int heads = 0;  ///< hidden / 64
  int mlp = 0;
  int layers = 0;  ///< that the file holds and the architecture has
  int depth = 0;   ///< layers of the architecture: a file may leave out the last, where nothing uses them
  int vocabulary = 0;
  int positions = 0;        ///< tokens per chunk
  bool final_norm = false;  ///< the norm behind the last layer is there
  bool projection = false;  ///< the text projection is there (most families do not use it)
  std::string layer_norm;   ///< "layer_norm1": the first tensor of a layer, less ".weight"; in OpenCLIP's layout "ln_1"
  std::string norm_name;    ///< "text_model.final_layer_norm"; "ln_final"
  std::string projection_name;  ///< "text_projection.weight" [out, hidden]; "text_projection" [hidden, out]
  std::string layers_prefix;    ///< "text_model.encoder.layers."; "transformer.resblocks." in OpenCLIP's layout
};

/// Sizes of a T5 v1.1 encoder (transformers' names).
struct T5Sizes {
  int hidden = 0;  ///< d_model
  int heads = 0;
  int head_dim = 0;  ///< d_kv: heads * head_dim need not be hidden
  int mlp = 0;       ///< d_ff
  int layers = 0;
  int vocabulary = 0;
  int buckets = 0;        ///< of the relative position bias
  std::string embedding;  ///< name of the token embedding: "shared.weight" or "encoder.embed_tokens.weight"
};

/// Sizes of a convolutional autoencoder (original names).
struct VaeSizes {
  int latent_channels = 0;
  std::vector<int> channels;  ///< of each level, the full resolution first
  int residual_blocks = 0;    ///< a level of the encoder; the decoder has one more
  bool encoder = false;       ///< the file holds the encoder too
  bool quant = false;         ///< 1x1 convolutions between latent and coders (Stable Diffusion 1, 2 and XL)

  /// Pixels a side that one latent value stands for.
  std::int64_t factor() const { return std::int64_t{1} << (channels.size() - 1); }
};

/// Sizes of a tiny autoencoder: TAESD and its relatives, plain convolutions without norms or attention.
struct TinyVaeSizes {
  /// One of its two coders, whose layers are numbered as they run (core/tiny_layers.h).
  struct Coder {
    std::string layers;       ///< what their names begin with: "decoder.layers.", or "" in a file of one coder
    int first = 0;            ///< number of the first layer that has tensors
    int channels = 0;         ///< of every layer but the outermost
    std::vector<int> blocks;  ///< residual blocks of each level, in the order in which they run; empty: no such coder
  };
  int latent_channels = 0;
  Coder decoder;
  Coder encoder;  ///< as many levels

  /// Pixels a side that one latent value stands for.
  std::int64_t factor() const { return std::int64_t{1} << (decoder.blocks.size() - 1); }
};

/// What is asked of an autoencoder of any kind.
struct AutoencoderFacts {
  int latent_channels = 0;
  std::int64_t factor = 0;  ///< pixels a side that one latent value stands for
  int levels = 0;
  bool encoder = false;  ///< the file holds the encoder too
};

using Sizes = std::variant<std::monostate, FluxSizes, UNetSizes, ClipSizes, T5Sizes, VaeSizes, TinyVaeSizes>;

/// What a part of a model does. `Other` is what no job can use yet as a whole: adapters, upscalers, foreign
/// quantisations.
enum class Role : std::uint8_t { Diffusion, ClipL, ClipG, ClipH, T5, Vae, Other };

/// Something that a tensor's name or shape says; in one case, its values.
struct Sign {
  enum class Test : std::uint8_t { Has, Lacks, Dim, OtherDim, AnyEndsWith, InFile, NotInFile, Spread, Blocks };
  Test test = Test::Has;
  std::string_view name;  ///< under the part's prefix; AnyEndsWith: the end of any name; (Not)InFile: a whole name
  std::size_t axis = 0;   ///< Dim, OtherDim: this axis of the shape ...
  std::int64_t size = 0;  ///< ... has (has not) this size
  double bound = 0.0;     ///< Spread: the values' standard deviation is above this
  std::int64_t most = 0;  ///< Blocks: `name` is a level ("encoder.block.") that has `size` to `most` blocks
};

/// What a diffusion model predicts.
enum class Prediction : std::uint8_t {
  Velocity,  ///< flow: noise - latent, so denoised = x - sigma * v
  Epsilon,   ///< the noise, of x / sqrt(sigma^2 + 1)
  V,         ///< Salimans & Ho 2022 (arXiv:2202.00512), of x / sqrt(sigma^2 + 1)
};

/// How a family of diffusion models scales the autoencoder's latents: (encoded - shift) * scale is what it samples. The
/// autoencoder's file does not tell: SD 1's and SDXL's have the same tensors.
struct LatentFormat {
  std::int64_t channels = 0;
  std::int64_t factor = 8;  ///< pixels a side that one latent value stands for
  double scale = 1.0;
  double shift = 0.0;
  const LatentRgb* rgb = nullptr;  ///< roughly its colours
};

/// What a diffusion model was trained with and its sampling needs.
struct Training {
  Prediction prediction = Prediction::Velocity;
  int levels = 0;  ///< noise levels in its table
  double mu = 0;   ///< of flow models: ComfyUI's constant time shift (log), 0 for none
  LatentFormat latent;
  int size_multiple = 0;       ///< widths and heights are multiples of this
  bool zero_terminal = false;  ///< betas rescaled so that the last level has no signal (Lin et al., arXiv:2305.08891)
};

/// One kind of part: how it is known and, when it is supported, how its sizes are read. Adding a family is adding a
/// row.
struct FamilyRow {
  Role role = Role::Other;
  std::string_view what = {};    ///< completes "is ...": "a Stable Diffusion 3 checkpoint"
  std::vector<Sign> signs = {};  ///< all must hold; rows are tried in order, the first that fits is it
  std::string_view hint = {};    ///< of an unsupported row: what to use instead
  /// Reads the sizes of the part and asks for every tensor that it reads. Null: known, but not supported yet.
  Sizes (*read)(PartShapes& shapes) = nullptr;
  // The rest is of supported diffusion models.
  std::string_view name = {};  ///< "flux1-dev"
  std::optional<Training> training = {};
  const TextRecipe* text = nullptr;  ///< the text encoders that it takes, and what it takes from them
  int size_values = 0;               ///< numbers behind the pooled text in SDXL's vector, 256 wide each: 6; refiner 5
  bool aesthetic = false;            ///< the last of them is an aesthetic score: the refiner's
  /// Of a row of Role::Other: what it names shares a supported part's names, and says why that part cannot be read.
  bool explains = false;
};

/// All rows, in the order in which they are tried.
std::span<const FamilyRow> family_rows();

/// One part of a model, found in a file.
struct Part {
  std::shared_ptr<const TensorFile> file;
  const FamilyRow* row = nullptr;
  std::string prefix;  ///< of its tensors' names: "" or "model.diffusion_model." and the like
  Sizes sizes;
  /// What a supported part reads, with its weights' scales, by full names; null where that is not known.
  std::shared_ptr<const TensorMap> reads = {};

  /// `reads`, else all of the file's: those of the part begin with `prefix`.
  const TensorMap& tensors() const { return reads ? *reads : file->tensors(); }
  const FluxSizes& flux() const { return std::get<FluxSizes>(sizes); }
  const UNetSizes& unet() const { return std::get<UNetSizes>(sizes); }
  const ClipSizes& clip() const { return std::get<ClipSizes>(sizes); }
  const T5Sizes& t5() const { return std::get<T5Sizes>(sizes); }
  const VaeSizes& vae() const { return std::get<VaeSizes>(sizes); }
  const TinyVaeSizes& tiny_vae() const { return std::get<TinyVaeSizes>(sizes); }
  bool is_tiny_vae() const { return std::holds_alternative<TinyVaeSizes>(sizes); }
  /// Of a part that is an autoencoder, tiny or not.
  AutoencoderFacts autoencoder() const;
};

/// Every part that the names in `file` show, supported or not; of an unsupported one the sizes stay empty. Throws Error
/// naming the tensor where a supported part's tensors do not fit together, and when there is nothing that we know
/// (saying what was looked for).
std::vector<Part> recognise(const std::shared_ptr<const TensorFile>& file);

/// The part of that role in a file that was named for it. Throws Error that says what the file is instead, or that the
/// part is not supported.
Part find_part(const std::shared_ptr<const TensorFile>& file, Role role);

/// The part of that role in a checkpoint, for a job that names no file for it. Throws Error that says what to name,
/// when there is none.
Part find_own_part(const std::shared_ptr<const TensorFile>& checkpoint, Role role);

/// The file's tensors that none of its parts reads, without those that files commonly hold beside a model (buffers,
/// training's tables, averaged weights, towers for pictures). Of a part that is not supported all are its own.
std::vector<std::string> left_over(const std::shared_ptr<const TensorFile>& file);

/// What a job file calls a part of that role: "encoders.clip_l", "vae". CLIP-H goes by CLIP-L's key.
std::string_view key_of(Role role);
/// "a CLIP-L text encoder"
std::string_view what_is(Role role);

/// What `inspect` tells of a part.
struct PartSummary {
  std::string what;  ///< "a Flux.1 dev transformer"
  bool supported = false;
  std::string prefix;
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
  std::map<std::string, std::uint64_t> dtypes;      ///< bytes a type, by safetensors' names
  std::vector<std::pair<std::string, int>> blocks;  ///< ("double", 19), ("single", 38); ("down", 9), ...
  std::string quantisation;                         ///< "none", "fp8 (F8_E4M3)" or "fp8 (F8_E4M3), scaled"
};

PartSummary summarise(const Part& part);

}  // namespace mgpu
