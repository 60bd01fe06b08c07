#include "cli/job/schema.h"

#include <fmt/ranges.h>

#include <charconv>
#include <random>

#include "cli/job/placement_schema.h"
#include "cli/job/sampler_names.h"
#include "cli/job/suggest.h"
#include "core/text/text_encoder.h"
#include "shard/allocation.h"

namespace mgpu {
namespace {

// ---- Files ----

Type<ModelFiles> encoders(const ModelFiles& base) {
  return section<ModelFiles>(
      [](Section& s, ModelFiles& files) {
        for (const TextEncoderModel* encoder : text_encoders())
          s.key(encoder->key(), files.encoders[std::string(encoder->key())], file(), encoder->names().label);
      },
      base);
}

Type<ModelFiles> tokenizers(const ModelFiles& base) {
  return section<ModelFiles>(
      [](Section& s, ModelFiles& files) {
        for (const TokenizerData* data : tokenizer_data())
          s.key(data->key, files.tokenizers[std::string(data->key)], file(), data->what);
      },
      base);
}

void state_files(Section& s, ModelFiles& files) {
  s.key("checkpoint", files.checkpoint, file(),
        "safetensors file: an all-in-one checkpoint, or the diffusion model alone", Need::Required);
  s.key("encoders", files, encoders(files), "text encoders; absent: the checkpoint's own");
  s.key("vae", files.vae, file(), "autoencoder; absent: the checkpoint's own");
  s.key("tokenizers", files, tokenizers(files), "tokenizer data; absent: what set-up installed");
  s.key(
      "model_paths", files.model_paths, list(file()),
      "where bare file names are looked for: folders, or a ComfyUI extra_model_paths.yaml; textual inversions in their "
      "folders called embeddings; ~ and $NAME stand for the home directory and an environment variable");
}

Type<LoraOptions> lora() {
  return section<LoraOptions>([](Section& s, LoraOptions& lora) {
    s.key("file", lora.file, file(), "safetensors file", Need::Required);
    s.key("strength", lora.strength, number(-100.0, 100.0), "on the diffusion model");
    double clip_strength = lora.strength;
    if (s.key("clip_strength", clip_strength, number(-100.0, 100.0), "on the text encoders; absent: as strength"))
      lora.clip_strength = clip_strength;
  });
}

// ---- Sampling ----

/// A name of one of the registries, in its canonical spelling.
Type<std::string> registered(std::vector<std::string_view> names, std::string_view (*canonical)(std::string_view),
                             std::string what) {
  return {[names, what] {
            return Shape{what, fields::words_schema(names), names};
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Scalar; },
          [=](const Value& value) {
            if (value.node.kind != YamlNode::Kind::Scalar) value.wrong("the name of " + what);
            const std::string_view name = canonical(value.node.text);
            if (!name.empty()) return std::string(name);
            std::string hint = did_you_mean(value.node.text, names);
            if (hint.empty()) hint = fmt::format("known are {}", fmt::join(names, ", "));
            value.fail(fmt::format("\"{}\" is not the name of {}: \"{}\"", value.path, what, value.node.text), hint);
          },
          [](const std::string& shown) { return shown; }};
}

Type<Shift> shift() {
  const auto automatic = choice<Shift::Kind>({{"auto", Shift::Kind::Auto}});
  const auto by_name = made_from<Shift, Shift::Kind>(
      automatic,
      [](Shift::Kind kind, const Value&) {
        return Shift{kind, 0.0, 0.5, 1.15};
      },
      [](const Shift& shown) {
        return shown.kind == Shift::Kind::Constant ? fmt::format("{}", shown.value) : std::string("auto");
      });
  const auto constant = made_from<Shift, double>(
      number(-10.0, 100.0),
      [](double value, const Value&) {
        return Shift{Shift::Kind::Constant, value, 0.5, 1.15};
      },
      [](const Shift& shown) { return fmt::format("{}", shown.value); });
  const auto by_resolution = section<Shift>([](Section& s, Shift& shift) {
    shift.kind = Shift::Kind::ByResolution;
    s.key("base", shift.base, number(-10.0, 100.0), "mu at 256 image tokens");
    s.key("max", shift.max, number(-10.0, 100.0), "mu at 4096 image tokens");
  });
  return either<Shift>({by_name, constant, by_resolution});
}

/// A sampler's name as the job spells it. To the schema, whatever has a capital is one of A1111's.
Type<std::string> sampler_name() {
  const auto known = registered(sampler_names(), canonical_sampler, "a sampler");
  auto out = made_from<std::string, std::string>(
      known, [](const std::string&, const Value& value) { return value.node.text; }, known.show);
  out.shape = [known] {
    Shape shape = known.shape();
    shape.schema = fields::either_schema({shape.schema, R"({"type":"string","pattern":"[A-Z]|_gpu$"})"});
    return shape;
  };
  return out;
}

/// Takes apart what the name of a sampler says: "DPM++ 2M Karras" a scheduler too, "dpmpp_sde_gpu" the step noise. A
/// key of the same map must not say otherwise; one of the job's sampler gives way to an image's.
void resolve_sampler_name(const Section& s, SamplerOptions& o, bool scheduler_given, bool step_noise_given) {
  const std::string written = *o.name;
  const SamplerName said = parse_sampler_name(written);
  o.name.value = said.sampler;
  const auto contradict = [&](std::string_view key, std::string_view means, std::string_view given) {
    s.fail(key, fmt::format("the sampler \"{}\" means \"{}: {}\", and the job says \"{}\"", written, key, means, given),
           fmt::format("write name: {} to choose the {} apart", said.sampler, key));
  };
  if (!said.scheduler.empty()) {
    if (scheduler_given && *o.scheduler != said.scheduler) contradict("scheduler", said.scheduler, *o.scheduler);
    o.scheduler = {std::string(said.scheduler), o.name.mark, true};
  }
  if (said.philox) {
    if (step_noise_given && *o.step_noise == StepNoiseKind::Cpu) contradict("step_noise", "philox", "cpu");
    o.step_noise = {StepNoiseKind::Philox, o.name.mark, true};
  }
}

Type<SamplerOptions> sampler(const SamplerOptions& base) {
  return section<SamplerOptions>(
      [](Section& s, SamplerOptions& o) {
        const bool named = s.key("name", o.name, sampler_name(),
                                 "as ComfyUI calls it, or as A1111 does: \"DPM++ 2M Karras\" means the scheduler too");
        const bool scheduled =
            s.key("scheduler", o.scheduler, registered(schedule_names(), canonical_schedule, "a scheduler"),
                  "as ComfyUI calls it");
        s.key("steps", o.steps, integer(1, 10000), "sampling steps");
        s.key("cfg", o.cfg, number(0.0, 1000.0), "classifier-free guidance; 1 skips the negative prompt");
        s.key("guidance", o.guidance, number(0.0, 1000.0), "Flux dev's embedded guidance");
        s.key("denoise", o.denoise, number(0.0001, 1.0),
              "share of the schedule that is run: its end; for an init_image");
        s.key("shift", o.shift, shift(), "of a flow schedule; auto: ComfyUI's constant");
        s.key("clip_skip", o.clip_skip, integer_or_auto(1, 12), "last CLIP layers to leave out, counted as A1111 does");
        const bool noised =
            s.key("step_noise", o.step_noise,
                  choice<StepNoiseKind>({{"cpu", StepNoiseKind::Cpu}, {"philox", StepNoiseKind::Philox}}),
                  "generator of the noise that is added at each step");
        if (named) resolve_sampler_name(s, o, scheduled, noised);
      },
      base);
}

struct Seed {
  std::uint64_t value = 0;
  bool random = false;
};

/// 53 bits, so that every JSON reader keeps the number that the report gives.
std::uint64_t random_seed() {
  std::random_device device_entropy;
  return ((static_cast<std::uint64_t>(device_entropy()) << 32) | device_entropy()) >> 11;
}

Type<Seed> seed() {
  const std::string words = "an integer from 0 to 18446744073709551615, or random";
  const auto digits = [](const YamlNode& node) {
    return node.kind == YamlNode::Kind::Scalar && !node.quoted && !node.text.empty() &&
           node.text.find_first_not_of("0123456789") == std::string::npos;
  };
  return {[words] {
            return Shape{
                words,
                R"({"anyOf":[{"type":"integer","minimum":0,"maximum":18446744073709551615},{"enum":["random"]}]})",
                {"random"}};
          },
          [](const YamlNode& node) { return node.kind == YamlNode::Kind::Scalar; },
          [words, digits](const Value& value) {
            if (fields::is_word(value.node, "random")) return Seed{random_seed(), true};
            Seed result;
            const std::string& text = value.node.text;
            if (!digits(value.node) ||
                std::from_chars(text.data(), text.data() + text.size(), result.value).ec != std::errc{})
              fields::wrong(value, Shape{words, {}, {"random"}});
            return result;
          },
          [](const Seed& shown) { return fmt::format("{}", shown.value); }};
}

// ---- Images and output ----

Type<ConditionOptions> condition() {
  return section<ConditionOptions>([](Section& s, ConditionOptions& o) {
    s.key("prompt", o.prompt, text(), "what this conditioning asks for", Need::Required);
    o.prompt_mark = s.mark_of("prompt");
    s.key("mask", o.mask, file(), "PNG whose red channel says where it counts, and how much; absent: everywhere");
    s.key("strength", o.strength, number(0.0, 100.0), "its weight, times the mask; the prompt's own is 1 everywhere");
    s.key("start", o.start, number(0.0, 1.0), "share of the schedule at which it begins");
    s.key("end", o.end, number(0.0, 1.0), "share of the schedule at which it ends");
  });
}

Type<ImageJob> image(const SamplerOptions& job_sampler) {
  ImageJob base;
  base.sampler = job_sampler;
  return section<ImageJob>(
      [](Section& s, ImageJob& o) {
        o.mark = s.mark();
        s.key("prompt", o.prompt, text(),
              "what to draw; (words:1.2) have that weight, embedding:NAME is a textual inversion", Need::Required);
        s.key("negative", o.negative, text(), "what not to draw; needs a cfg other than 1");
        o.prompt_mark = s.mark_of("prompt");
        o.negative_mark = s.mark_of("negative");
        s.key("width", o.width, integer(16, 16384),
              "pixels; a multiple of 16 (Flux) or 8 (UNets); absent: the init_image's");
        s.key("height", o.height, integer(16, 16384), "pixels; likewise");
        Marked<Seed> drawn;
        s.key("seed", drawn, seed(), "of the noise; random is drawn once and recorded");
        o.seed = {drawn->value, drawn.mark, drawn.given};
        o.random_seed = drawn->random;
        s.key("count", o.count, integer(1, 100000), "runs, with seeds seed, seed + 1, ...");
        s.key("batch", o.batch, integer(1, 1024), "pictures from one draw of noise, as ComfyUI's batch size");
        s.key("sampler", o.sampler, sampler(o.sampler), "merged over the job's sampler");
        s.key("conditions", o.conditions, list(condition()),
              "further positive conditionings; the model's answers are averaged");
        s.key("init_image", o.init_image, file(), "PNG to start from; the picture has its size, cut to the multiple");
        s.key("mask", o.mask, file(), "PNG of the init_image's size: what is white in its red channel is drawn anew");
      },
      base);
}

Type<OutputOptions> output() {
  OutputOptions base;
  base.directory.text = "out";
  return section<OutputOptions>(
      [](Section& s, OutputOptions& o) {
        s.key("directory", o.directory, file(), "made when it is missing");
        s.key("name", o.name, text(),
              "of a picture; may hold {job} {index} {item} {seed} {width} {height}, and {index:04}");
        s.key("report", o.report, text(), "file name in the directory; \"\" for none");
      },
      base);
}

}  // namespace

void state_job(Section& s, Job& job) {
  state_files(s, job.files);
  Marked<std::vector<LoraOptions>> loras;
  s.key("loras", loras, list(lora()), "low-rank adaptations, applied in order");
  job.loras = loras.value;
  job.loras_mark = loras.mark;
  s.key("dtype", job.dtype, compute_types(), "compute type, for all or for each component");
  s.key("exact", job.exact,
        choice<Exact>({{"true", Exact::True}, {"false", Exact::False}, {"portable", Exact::Portable}}),
        "keep the picture independent of the placement; portable: on the CPU, with the same bytes on every x86-64 CPU "
        "that has AVX2; false is not supported yet");
  state_placement(s, job.placement);
  s.key("decode", job.decode, decode_options(), "how latents become pixels");
  s.key("sampler", job.sampler, sampler(job.sampler), "for all images");
  s.key("images", job.images, list(image(job.sampler), false), "what to draw", Need::Required);
  s.key("output", job.output, output(), "where pictures go");
  if (job.output.directory.text.empty()) job.output.directory = {"out", {}, s.mark(), false};
}

}  // namespace mgpu
