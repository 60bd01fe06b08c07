#include "cli/job/notes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cli/job/named_devices.h"
#include "cli/job/schedules.h"
#include "cli/job/source.h"
#include "core/models/diffusion_model.h"
#include "core/text/prompt_notes.h"
#include "core/text/text_encoder.h"
#include "samplers/sampler.h"

namespace mgpu {
namespace {

/// Notes of one job, each kind once: the first place where it was found, and how many more entries have it.
class NoteList {
 public:
  explicit NoteList(const Job& job) : options_only_(!job.expected_files.empty()) {}

  /// `kind` tells notes apart; the text of the first of a kind is said.
  void add(std::string_view kind, const Mark& mark, const std::string& text) {
    if (options_only_ && !mark.file.starts_with("--set ")) return;
    const auto known = std::ranges::find(notes_, kind, &Note::kind);
    if (known != notes_.end()) {
      ++known->more;
    } else {
      notes_.push_back({std::string(kind), fmt::format("{}: {}", mark.to_string(), text)});
    }
  }

  std::vector<std::string> lines() const {
    std::vector<std::string> out;
    for (const Note& note : notes_)
      out.push_back(note.more == 0 ? note.text : fmt::format("{}; {} more such", note.text, note.more));
    return out;
  }

 private:
  struct Note {
    std::string kind;
    std::string text;
    int more = 0;
  };
  bool options_only_;
  std::vector<Note> notes_;
};

/// What YAML took away from a text that is not in quotes: a comment in it, an anchor before it.
void note_yaml(const Job& job, const Mark& mark, std::string_view text, std::string_view key, NoteList& notes) {
  const std::size_t begin = job.source ? job.source->offset_of(mark) : std::string::npos;
  if (begin == std::string::npos) return;
  const std::string_view line = job.source->line(mark.line);
  const std::string_view rest = line.substr(begin - static_cast<std::size_t>(line.data() - job.source->text().data()));
  if (rest.starts_with('&')) {
    const std::string name(rest.substr(1, rest.find(' ') - 1));
    if (job.source->text().find("*" + name) == std::string::npos)
      notes.add(
          "anchor", mark,
          fmt::format("\"{}\" is \"{}\", without its \"&{}\", which YAML takes for a name: put the text in quotes", key,
                      without_middle(std::string(text), 60), without_middle(name, 60)));
    return;
  }
  if (!rest.starts_with(text)) return;
  const std::size_t hash = rest.find_first_not_of(" \t", text.size());
  if (hash == std::string_view::npos || hash == text.size() || rest[hash] != '#') return;
  if (hash + 1 < rest.size() && (rest[hash + 1] == ' ' || rest[hash + 1] == '#')) return;  // written as a comment
  notes.add("comment", mark,
            fmt::format("\"{}\" ends before \"{}\", which YAML takes for a comment: put the text in quotes", key,
                        without_middle(std::string(rest.substr(hash)), 60)));
}

void note_prompt(const Mark& mark, std::string_view prompt, const ModelSet& set, NoteList& notes) {
  for (const PromptNote& note : prompt_notes(prompt, set.text().breaks)) notes.add(note.kind, mark, note.text);
}

void note_prompts(const Job& job, const ImageJob& image, const ModelSet& set, NoteList& notes) {
  note_yaml(job, image.prompt_mark, image.prompt, "prompt", notes);
  note_prompt(image.prompt_mark, image.prompt, set, notes);
  for (const ConditionOptions& condition : *image.conditions) {
    note_yaml(job, condition.prompt_mark, condition.prompt, "prompt", notes);
    note_prompt(condition.prompt_mark, condition.prompt, set, notes);
  }
  if (image.negative.empty()) return;
  note_yaml(job, image.negative_mark, image.negative, "negative", notes);
  if (evaluates_negative(image.sampler)) {
    note_prompt(image.negative_mark, image.negative, set, notes);
  } else {
    notes.add("negative", image.negative_mark, "\"negative\" is not used at cfg 1: a cfg above 1 uses it");
  }
}

/// Whether clip_skip names the layer that is read without it.
bool skips_nothing(const TextRecipe& recipe, int clip_skip) {
  return std::ranges::all_of(
      recipe.encoders, [&](const EncoderUse& use) { return !use.context || layer_under(use, clip_skip) == use.layer; });
}

void note_sampling(const ImageJob& image, const ModelSet& set, NoteList& notes) {
  const SamplerOptions& o = image.sampler;
  const std::string_view family = set.diffusion.row->name;
  if (*o.cfg == 0.0)
    notes.add("cfg", o.cfg.mark, "at cfg 0 \"prompt\" is not used: the picture follows \"negative\" alone");
  if (o.guidance.given && !diffusion_model(set.diffusion).takes_guidance(set.diffusion))
    notes.add("guidance", o.guidance.mark, fmt::format("\"guidance\" is not used: {} has no input for it", family));
  if (o.step_noise.given && find_sampler(*o.name)->step_noise == NoiseSource::None)
    notes.add("step_noise", o.step_noise.mark, fmt::format("\"step_noise\" is not used: {} adds no noise", *o.name));
  if (*o.clip_skip != 0 && skips_nothing(set.text(), *o.clip_skip))
    notes.add("clip_skip", o.clip_skip.mark,
              fmt::format("\"clip_skip\" {} is what {} does without it", *o.clip_skip, family));
}

/// The share of the schedule that is run, and the picture that it starts from.
void note_start(const ImageJob& image, NoteList& notes) {
  const Marked<double>& denoise = image.sampler.denoise;
  if (!image.init_image && *denoise < 1.0)
    notes.add("denoise", denoise.mark,
              fmt::format("\"denoise\" {} without an \"init_image\": only the end of the schedule is run, and it "
                          "starts from an empty latent",
                          *denoise));
  if (image.init_image && !image.mask && *denoise > 0.9999)
    notes.add("init_image", image.init_image.mark,
              "at denoise 1 nothing is kept of \"init_image\": a denoise below 1 keeps some of it");
}

void note_mask(const FileReference& mask, const JobModels& models, std::string_view black, NoteList& notes) {
  const auto found = models.shades.find(mask.path);
  if (found == models.shades.end()) return;
  constexpr std::uint8_t kBarely = 64;
  if (found->second.brightest == 0) {
    notes.add(fmt::format("black{}", black), mask.mark,
              fmt::format("\"mask\" is black all over: {}; what counts is white in the red channel, not the "
                          "transparency",
                          black));
  } else if (found->second.brightest < kBarely) {
    notes.add("dark", mask.mark,
              fmt::format("\"mask\" is nearly black: the brightest red in it is {}, and white is 255",
                          found->second.brightest));
  }
}

void note_masks(const ImageJob& image, const JobModels& models, NoteList& notes) {
  if (image.mask) {
    note_mask(image.mask, models, "all of the init_image stays as it is", notes);
    const auto found = models.shades.find(image.mask.path);
    const Part& diffusion = models.set.diffusion;
    const bool inpaints = diffusion_model(diffusion).extra_channels(diffusion) > 0;
    if (found != models.shades.end() && found->second.darkest == 255 && !inpaints)
      notes.add("white", image.mask.mark, "\"mask\" is white all over: all of the init_image is drawn anew");
  }
  for (const ConditionOptions& condition : *image.conditions) {
    if (condition.mask) note_mask(condition.mask, models, "the condition counts nowhere", notes);
    if (condition.strength == 0.0)
      notes.add("strength", image.conditions.mark, "a condition of strength 0 counts nowhere");
  }
}

/// The levels of noise at which an image's runs evaluate the model, and the table that says when a condition acts.
struct Levels {
  SigmaTable table;
  std::vector<double> evaluated;
};

/// Conditions whose period holds none of the levels at which the model is evaluated.
void note_periods(const Job& job, const ModelSet& set, NoteList& notes) {
  std::map<LevelsKey, Levels> known;
  for (const ImageJob& image : job.images) {
    if (image.conditions->empty() || *image.sampler.name == "dpm_adaptive") continue;  // which chooses its levels
    const auto [levels, is_new] = known.try_emplace(levels_key(image));
    if (is_new) {
      RunSchedule schedule = run_schedule(image.sampler, set.training(), *image.width, *image.height);
      levels->second.evaluated = evaluated_sigmas(*find_sampler(*image.sampler.name), schedule.sigmas, schedule.table);
      levels->second.table = std::move(schedule.table);
    }
    const auto& [table, evaluated] = levels->second;
    for (const ConditionOptions& condition : *image.conditions) {
      // In fp32, as the denoiser compares them.
      const auto from = static_cast<float>(table.percent_to_sigma(condition.start));
      const auto to = static_cast<float>(table.percent_to_sigma(condition.end));
      const auto acts = [&](double sigma) {
        return static_cast<float>(sigma) <= from && static_cast<float>(sigma) >= to;
      };
      if (std::ranges::any_of(evaluated, acts)) continue;
      const std::string period = condition.start == condition.end
                                     ? fmt::format("starts and ends at {}", condition.start)
                                     : fmt::format("starts at {} and ends at {}", condition.start, condition.end);
      notes.add("period", image.conditions.mark, fmt::format("a condition that {} counts at no step", period));
    }
  }
}

/// Steps that the schedule does not make, since the model's table has no more levels there.
void note_steps(const Job& job, const ModelSet& set, NoteList& notes) {
  std::map<LevelsKey, std::size_t> made;
  for (const ImageJob& image : job.images) {
    const SamplerOptions& o = image.sampler;
    const auto [known, is_new] = made.try_emplace(levels_key(image));
    if (is_new) known->second = run_schedule(o, set.training(), *image.width, *image.height).sigmas.size() - 1;
    if (known->second >= static_cast<std::size_t>(*o.steps)) continue;
    const std::string part = *o.denoise < 1.0 ? fmt::format(" at denoise {}", *o.denoise) : "";
    notes.add("steps", o.steps.mark,
              fmt::format("\"steps\" {}: the scheduler {} makes {}{}, each level of noise once", *o.steps, *o.scheduler,
                          known->second, part));
  }
}

void note_component(const Job& job, const Marked<ComponentAllocation>& allocation, std::string_view name,
                    NoteList& notes) {
  if (!allocation.given) return;
  const bool expert = allocation->expert.has_value();
  if (expert && allocation->virtual_vram_gb > 0.0)
    notes.add("virtual_vram_gb", allocation.mark,
              fmt::format("\"allocation.{}.virtual_vram_gb\" is not used beside \"expert\"", name));
  const auto& ids = job.placement.gpu_ids;
  const std::vector<DeviceId>& sole = allocation->compute.empty() && ids.given ? *ids : allocation->compute;
  if (!expert && allocation->virtual_vram_gb > 0.0 && !sole.empty() && allocation->donors == std::vector{sole.front()})
    notes.add("donor", allocation.mark,
              fmt::format("\"allocation.{}.donor\" lends nothing: {} is the device that computes", name,
                          sole.front().to_string()));
  if (!expert && allocation->virtual_vram_gb == 0.0 && !allocation->donors.empty())
    notes.add("donor", allocation.mark,
              fmt::format("\"allocation.{}.donor\" lends nothing without \"virtual_vram_gb\"", name));
}

/// Options for devices that the job, which names its own, has no use for.
void note_devices(const Job& job, NoteList& notes) {
  const PlacementOptions& placement = job.placement;
  const auto& ids = placement.gpu_ids;
  if (!ids.given) {
    if (*placement.drop_missing_devices)
      notes.add("missing_devices", placement.drop_missing_devices.mark,
                "\"missing_devices\" is not used without \"gpu_ids\", which names devices that may be missing");
    return;
  }
  for (const auto& [id, limit] : placement.vram_limit->device)
    if (!may_use(job, id))
      notes.add("vram_limit", placement.vram_limit.mark,
                fmt::format("\"vram_limit.{0}\" is not used: the job does not use {0}", id.to_string()));
  for (const auto& [id, speed] : *placement.speed) {
    const bool computes = std::ranges::find(*ids, id) != ids->end();
    if (!computes || ids->size() == 1)
      notes.add("speed", placement.speed.mark,
                computes ? fmt::format("\"speed\" is not used: {} alone computes", id.to_string())
                         : fmt::format("\"speed.{0}\" is not used: {0} does not compute in this job", id.to_string()));
  }
  if (*job.decode.mode == DecodeSetting::Parallel && ids->size() == 1)
    notes.add("parallel", job.decode.mode.mark,
              fmt::format("\"way: parallel\" is not used: {} alone decodes", ids->front().to_string()));
}

void note_placement(const Job& job, const ModelSet& set, NoteList& notes) {
  const PlacementOptions& placement = job.placement;
  const Allocation& a = placement.allocation;
  const std::string_view family = set.diffusion.row->name;
  for (const auto& [key, allocation] : a.encoders)
    if (allocation.given && !set.has_encoder(key))
      notes.add("allocation", allocation.mark, fmt::format("\"allocation.{}\" is not used: {} has none", key, family));
  for (const auto& [name, allocation] : a.all()) note_component(job, *allocation, name, notes);
  for (const TextEncoderModel* encoder : text_encoders()) {
    if (!encoder->names().tokenizer) continue;
    const std::string_view key = encoder->names().tokenizer->key;
    const auto file = job.files.tokenizers.find(key);
    if (file != job.files.tokenizers.end() && file->second && !set.tokenizers.contains(key))
      notes.add("tokenizer", file->second.mark,
                fmt::format("\"tokenizers.{}\" is not used: {} has no {}", key, family, encoder->names().label));
  }
  const DecodeSetting mode = *job.decode.mode;
  if (mode == DecodeSetting::Whole || mode == DecodeSetting::Parallel)
    for (const auto& [name, given] : {std::pair("tile", &job.decode.tile), {"overlap", &job.decode.overlap}})
      if (given->given)
        notes.add("decode", given->mark,
                  fmt::format("\"decode.{}\" is not used with \"way: {}\"", name,
                              mode == DecodeSetting::Whole ? "whole" : "parallel"));
}

}  // namespace

std::vector<std::string> job_notes(const Job& job, const JobModels& models) {
  NoteList notes(job);
  note_placement(job, models.set, notes);
  note_devices(job, notes);
  note_yaml(job, job.output.directory.mark, job.output.directory.text, "output.directory", notes);
  note_yaml(job, job.output.report.mark, *job.output.report, "output.report", notes);
  for (const ImageJob& image : job.images) {
    note_prompts(job, image, models.set, notes);
    note_sampling(image, models.set, notes);
    note_start(image, notes);
    note_masks(image, models, notes);
  }
  note_periods(job, models.set, notes);
  note_steps(job, models.set, notes);
  std::vector<std::string> out = notes.lines();
  out.insert(out.end(), models.set.notes.begin(), models.set.notes.end());
  return out;
}

std::string note_lines(const std::vector<std::string>& notes) {
  std::string text;
  for (const std::string& note : notes) text += fmt::format("note: {}\n", note);
  return text;
}

}  // namespace mgpu
