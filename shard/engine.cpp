#include "shard/engine.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "core/error.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "core/text/prompt_encoder.h"

namespace mgpu {
namespace {

/// Neighbouring blocks of one device are a stage.
std::vector<Pipeline::Stage> stages_of(const std::vector<std::size_t>& owners) {
  std::vector<Pipeline::Stage> out;
  for (std::size_t i = 0; i < owners.size(); ++i) {
    const int block = static_cast<int>(i);
    if (out.empty() || out.back().member != owners[i]) out.push_back({owners[i], block, block});
    out.back().last = block;
  }
  return out;
}

}  // namespace

Engine::Engine(ModelSet models, const ComputeDtypes& dtypes, Plan plan)
    : models_(std::move(models)), dtypes_(dtypes), plan_(std::move(plan)) {
  const auto runs = plan_.devices.size() == 1 ? Worker::Runs::InCaller : Worker::Runs::InThread;
  for (const PlannedDevice& planned : plan_.devices) {
    const DeviceRoom& room = planned.room;
    limit_allocations(room.id, room.limit_bytes > room.driver_bytes ? room.limit_bytes - room.driver_bytes : 0);
    devices_.push_back(std::make_unique<Device>(room.id, runs));
  }
}

double Engine::measure(Phase phase, const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::unique_ptr<Meter::PhaseScope>> scopes;
  for (const auto& device : devices_) scopes.push_back(std::make_unique<Meter::PhaseScope>(device->meter, phase));
  // A device that works alone is busy through the whole phase; others count while their workers work.
  std::optional<Meter::Busy> busy;
  if (devices_.size() == 1) busy.emplace(devices_.front()->meter);
  work();
  for (const auto& device : devices_) synchronize(device->torch);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<Conditioning> Engine::encode(std::span<const PromptText> prompts, const TextualInversions& inversions) {
  const TextRecipe& recipe = models_.text();
  std::vector<std::vector<EncodedText>> texts(prompts.size());
  for (std::size_t i = 0; i < recipe.encoders.size(); ++i) {
    const TextEncoder kind = recipe.encoders[i].encoder;
    const std::string& tokenizer = kind == TextEncoder::T5xxl ? models_.t5xxl_tokenizer : models_.clip_tokenizer;
    // SD 2's CLIP-H goes by CLIP-L's name everywhere outside the text encoders' own files.
    Device& device = device_of(kind == TextEncoder::ClipH ? "clip_l" : encoder_name(kind));
    device.worker.call([&] {
      const Meter::Busy busy(device.meter);
      const Weights weights = encoder_weights(models_.encoder(kind), device.torch);
      const auto encoder = load_prompt_encoder(recipe, i, weights, tokenizer, inversions);
      for (std::size_t k = 0; k < prompts.size(); ++k) {
        EncodedText text = encoder->encode(prompts[k].text, prompts[k].clip_skip, ops_);
        if (device.id != home()) bring_home(text);
        texts[k].push_back(std::move(text));
      }
      synchronize(device.torch);
    });
  }
  const HostDeviceScope scope(home());
  std::vector<Conditioning> out;
  for (const std::vector<EncodedText>& pieces : texts) out.push_back(assemble(recipe, pieces));
  release_cached();
  return out;
}

void Engine::load_diffusion() {
  if (pipeline_) return;
  const std::vector<std::size_t> owner = owners();
  std::vector<Pipeline::Member> members(devices_.size());
  std::vector<std::future<void>> loads;
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    Device& device = *devices_[i];
    members[i] = {device.id, &device.worker, &device.meter, nullptr};
    if (std::ranges::find(owner, i) == owner.end()) continue;
    std::vector<bool> held;
    for (const std::size_t o : owner) held.push_back(o == i);
    auto load = std::make_shared<std::packaged_task<void()>>([&, i, held] {
      members[i].shard = load_shard(models_, HeldBlocks(held), dtypes_.unet, devices_[i]->torch);
      devices_[i]->meter.loaded();
    });
    loads.push_back(load->get_future());
    device.worker.post([load] { (*load)(); });
  }
  for (std::future<void>& load : loads) load.wait();  // all, before the first that failed takes the members away
  for (std::future<void>& load : loads) load.get();
  pipeline_ = std::make_unique<Pipeline>(std::move(members), stages_of(owner), ops_);
}

Engine::Run Engine::begin_run(std::span<const double> timesteps, std::span<const ToldText> texts,
                              const RunFacts& facts) {
  MGPU_CHECK(pipeline_, "the diffusion model is not loaded");
  return pipeline_->begin_run(timesteps, texts, facts);
}

std::vector<at::Tensor> Engine::evaluate(const Run& run, const at::Tensor& x, double timestep,
                                         std::span<const std::size_t> texts) {
  MGPU_CHECK(pipeline_, "the diffusion model is not loaded");
  std::vector<std::future<at::Tensor>> passes;
  for (const std::size_t text : texts)
    for (std::int64_t i = 0; i < x.size(0); ++i)
      passes.push_back(pipeline_->submit(run, x.narrow(0, i, 1), timestep, text));
  for (const auto& pass : passes) pass.wait();  // also those behind one that failed: they read x
  std::vector<at::Tensor> out;
  for (std::size_t t = 0, next = 0; t < texts.size(); ++t) {
    std::vector<at::Tensor> images;
    for (std::int64_t i = 0; i < x.size(0); ++i) images.push_back(passes[next++].get());
    out.push_back(at::cat(images, 0));
  }
  return out;
}

const DeviceId& Engine::home() const {
  return devices_[owners().front()]->id;
}

void Engine::bring_home(EncodedText& text) const {
  const HostDeviceScope scope(home());
  for (at::Tensor* tensor : {&text.hidden, &text.pooled}) *tensor = hand_over(*tensor, torch_device(home()));
}

std::size_t Engine::runs_at_once() const {
  return pipeline_ && devices_.size() > 1 ? pipeline_->depth() : 1;
}

void Engine::release_cached() const {
  for (const auto& device : devices_) mgpu::release_cached(device->id);
}

Engine::Device& Engine::device_of(std::string_view component) const {
  const auto has = [&](const PlannedDevice& planned) {
    return std::ranges::find(planned.assignments, component, &Assignment::component) != planned.assignments.end();
  };
  const auto holder = std::ranges::find_if(plan_.devices, has);
  MGPU_CHECK(holder != plan_.devices.end(), "the plan has no {}", component);
  MGPU_CHECK(std::none_of(holder + 1, plan_.devices.end(), has), "{} is spread over devices", component);
  return *devices_[static_cast<std::size_t>(holder - plan_.devices.begin())];
}

std::vector<std::size_t> Engine::owners() const {
  constexpr std::size_t kNobody = static_cast<std::size_t>(-1);
  std::vector<std::size_t> out(static_cast<std::size_t>(diffusion_block_count(models_)), kNobody);
  for (std::size_t device = 0; device < plan_.devices.size(); ++device) {
    for (const Assignment& assignment : plan_.devices[device].assignments) {
      if (assignment.component != "unet") continue;
      for (int i = assignment.first; i <= assignment.last; ++i)
        out[static_cast<std::size_t>(diffusion_block_index(models_, assignment.kind, i))] = device;
    }
  }
  MGPU_CHECK(std::ranges::find(out, kNobody) == out.end(), "the plan leaves a block out");
  return out;
}

Weights Engine::encoder_weights(const Part& part, at::Device device) const {
  return weights_of(part, dtypes_.encoders.value_or(stored_type(part)), device);
}

Weights Engine::vae_weights() const {
  return weights_of(models_.vae, dtypes_.vae, device_of("vae").torch);
}

}  // namespace mgpu
