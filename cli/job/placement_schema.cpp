#include "cli/job/placement_schema.h"

#include <fmt/ranges.h>

#include "cli/job/sampler_names.h"
#include "cli/job/suggest.h"
#include "core/text/text_encoder.h"
#include "shard/allocation.h"

namespace mgpu {
namespace {

/// A size, or one with a minus before it.
Type<std::int64_t> memory_limit() {
  const Type<std::uint64_t> size = memory_size();
  return {[=] {
            Shape shape = size.shape();
            shape.schema.insert(shape.schema.find('^') + 1, "-?");
            return shape;
          },
          size.accepts,
          [=](const Value& value) {
            if (!value.node.text.starts_with('-')) return static_cast<std::int64_t>(size.read(value));
            YamlNode amount = value.node;
            amount.text.erase(0, 1);
            try {
              return -static_cast<std::int64_t>(size.read({amount, value.source, value.path}));
            } catch (const Error&) {
              value.wrong(size.shape().words, "with a minus, as in -1GB, so much is left free");
            }
          },
          [](const std::int64_t& shown) { return fmt::format("{}", shown); }};
}

Type<VramLimit> vram_limit() {
  const auto each = made_from<VramLimit, std::int64_t>(
      memory_limit(),
      [](std::int64_t bytes, const Value&) {
        return VramLimit{bytes, {}};
      },
      [](const VramLimit&) { return std::string{}; });
  const auto apart = made_from<VramLimit, std::map<DeviceId, std::int64_t>>(
      per_device(memory_limit()),
      [](auto map, const Value&) {
        return VramLimit{std::nullopt, std::move(map)};
      },
      [](const VramLimit&) { return std::string{}; });
  return either<VramLimit>({each, apart});
}

Type<Mode> mode() {
  return choice<Mode>({{"auto", Mode::Auto},
                       {"single", Mode::Single},
                       {"shard", Mode::Shard},
                       {"tensor", Mode::Tensor},
                       {"sequence", Mode::Sequence},
                       {"patch", Mode::Patch},
                       {"replicate", Mode::Replicate},
                       {"split-cfg", Mode::SplitCfg}});
}

Type<std::vector<DeviceId>> one_or_more_devices() {
  const auto one = made_from<std::vector<DeviceId>, DeviceId>(
      device(), [](DeviceId id, const Value&) { return std::vector{id}; }, [](const auto&) { return std::string{}; });
  return either<std::vector<DeviceId>>({one, list(device(), false)});
}

/// Parses the text of an allocation string. An error points at the column that is wrong.
WrittenAllocation read_allocation(const std::string& words, const Value& value) {
  try {
    return {parse_allocation(words), words, value.node.mark};
  } catch (const AllocationError& e) {
    throw value.source.error(value.source.inside(value.node.mark, words, e.column()),
                             fmt::format("\"{}\": {}", value.path, e.what()), e.hint());
  }
}

Type<ComponentAllocation> component(bool several) {
  const auto nothing = [](const ComponentAllocation&) { return std::string{}; };
  const auto named = made_from<ComponentAllocation, std::string>(
      text(),
      [](const std::string& words, const Value& value) {
        ComponentAllocation allocation;
        if (const auto id = parse_device(words)) {
          allocation.compute = {*id};
        } else {
          allocation.expert = read_allocation(words, value);
        }
        return allocation;
      },
      nothing);
  using Expert = std::optional<WrittenAllocation>;
  const auto expert = made_from<Expert, std::string>(
      text(),
      [](const std::string& words, const Value& value) {
        return words.empty() ? Expert{} : Expert{read_allocation(words, value)};
      },
      [](const Expert&) { return std::string{}; });
  const auto long_form = section<ComponentAllocation>([expert](Section& s, ComponentAllocation& a) {
    s.key("compute", a.compute, one_or_more_devices(), "the device that computes; the others donate memory");
    s.key("virtual_vram_gb", a.virtual_vram_gb, number(0.0, 1024.0),
          "GiB that move from the compute device to the donors");
    s.key("donor", a.donors, one_or_more_devices(), "the device or devices that lend memory");
    s.key("expert", a.expert, expert, "an allocation string; wins over virtual_vram_gb");
  });
  if (!several) return either<ComponentAllocation>({named, long_form});
  const auto devices = made_from<ComponentAllocation, std::vector<DeviceId>>(
      list(device(), false),
      [](std::vector<DeviceId> ids, const Value&) {
        ComponentAllocation allocation;
        allocation.compute = std::move(ids);
        return allocation;
      },
      nothing);
  return either<ComponentAllocation>({named, long_form, devices});
}

Type<Allocation> allocation() {
  return section<Allocation>([](Section& s, Allocation& a) {
    s.key("unet", a.unet, component(false), "the diffusion model");
    s.key("clip", a.clip, component(false), "all text encoders");
    for (const TextEncoderModel* encoder : text_encoders())
      s.key(encoder->key(), a.encoders[std::string(encoder->key())], component(false),
            fmt::format("{} alone", encoder->names().label));
    s.key("vae", a.vae, component(true), "the autoencoder: a device, or a list of devices");
  });
}

}  // namespace

Type<ComputeTypes> compute_types() {
  const auto one = choice<ComputeType>({{"auto", ComputeType::Auto},
                                        {"fp32", ComputeType::Fp32},
                                        {"bf16", ComputeType::Bf16},
                                        {"fp16", ComputeType::Fp16},
                                        {"fp8", ComputeType::Fp8}});
  const auto all = made_from<ComputeTypes, ComputeType>(
      one,
      [](ComputeType type, const Value& value) {
        const Marked<ComputeType> marked{type, value.node.mark, true};
        return ComputeTypes{marked, marked, marked};
      },
      [one](const ComputeTypes& types) { return one.show(types.unet.value); });
  const auto apart = section<ComputeTypes>([one](Section& s, ComputeTypes& types) {
    s.key("unet", types.unet, one, "the diffusion model");
    s.key("clip", types.clip, one, "the text encoders");
    s.key("vae", types.vae, one, "the autoencoder");
  });
  return either<ComputeTypes>({all, apart});
}

void state_placement(Section& s, PlacementOptions& placement) {
  s.key("gpu_ids", placement.gpu_ids, list(device(), false), "devices to render on; absent: all GPUs, else cpu");
  s.key("vram_limit", placement.vram_limit, vram_limit(),
        "most memory to use; -1GB: what is free but that; absent: what is free");
  s.key("mode", placement.mode, mode(), "how one copy of the model is spread over devices");
  s.key("replicas", placement.replicas, integer_or_auto(1, 1024), "copies of the model; images are dealt to them");
  s.key("split_cfg", placement.split_cfg,
        choice<AutoBool>({{"auto", AutoBool::Auto}, {"true", AutoBool::True}, {"false", AutoBool::False}}),
        "deal the conditionings of one image over groups of devices");
  s.key("speed", placement.speed, per_device(number(0.001, 1000.0)), "relative speeds; absent: probed");
  s.key("missing_devices", placement.drop_missing_devices, choice<bool>({{"error", false}, {"drop", true}}),
        "what to do about devices that the machine lacks");
  s.key("allocation", placement.allocation, allocation(), "where each component lies; absent: balanced");
}

Type<DecodeOptions> decode_options() {
  return section<DecodeOptions>([](Section& s, DecodeOptions& options) {
    s.key("way", options.mode,
          choice<DecodeSetting>({{"auto", DecodeSetting::Auto},
                                 {"whole", DecodeSetting::Whole},
                                 {"parallel", DecodeSetting::Parallel},
                                 {"tiled", DecodeSetting::Tiled}}),
          "how the autoencoder decodes");
    s.key("tile", options.tile, integer(64, 16384), "side of a tile in pixels");
    s.key("overlap", options.overlap, integer(0, 8192), "of neighbouring tiles in pixels");
  });
}

}  // namespace mgpu
