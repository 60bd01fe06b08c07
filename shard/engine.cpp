#include "shard/engine.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "core/cancel.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/fault_point.h"
#include "core/hand_over.h"
#include "core/host_memory.h"
#include "core/memory.h"
#include "core/queue_mark.h"
#include "core/text/text_encoder.h"
#include "shard/device_error.h"
#include "shard/encoder_runs.h"

namespace mgpu {
namespace {

/// Neighbouring blocks of one device are a stage.
std::vector<Pipeline::Stage> stages_of(const std::vector<std::size_t>& owners) {
  std::vector<Pipeline::Stage> out;
  for (std::size_t i = 0; i < owners.size(); ++i) {
    const int block = static_cast<int>(i);
    if (out.empty() || out.back().lead() != owners[i]) out.push_back({{owners[i]}, block, block});
    out.back().last = block;
  }
  return out;
}

/// Sends something from a GPU to those that its passes go on to: the way there is opened by the first copy, which takes
/// as long as a pass.
void open_paths(std::size_t from, const std::vector<Pipeline::Stage>& stages, const std::vector<DeviceId>& devices) {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const DeviceId& to = devices[stages[(i + 1) % stages.size()].lead()];
    if (stages[i].lead() != from || to == devices[from] || !to.is_cuda() || !devices[from].is_cuda()) continue;
    const at::Tensor nothing = at::zeros({1}, torch_device(devices[from]));
    on_device(to, [&] { hand_over(nothing, torch_device(to)); });
  }
}

/// Brings an encoder's streamed blocks from their donors.
RunStreamed ring_of(at::Device device, std::vector<StreamedBlock> blocks, const std::map<int, DeviceId>& donors,
                    Meter& meter, OffloadedBytes& offloaded) {
  std::vector<BlockStream::Block> moved;
  for (StreamedBlock& block : blocks) moved.push_back({block.index, std::move(block.tensors), donors.at(block.index)});
  std::set<DeviceId> donor_ids;
  for (const auto& [block, donor] : donors) donor_ids.insert(donor);
  const auto goes = [&offloaded, donor_ids](BlockStream* own) {
    for (const DeviceId& donor : donor_ids) offloaded.give_back(donor, own->offloaded_bytes(donor));
    delete own;
  };
  auto stream = std::make_unique<BlockStream>(device, std::move(moved), &meter);
  for (const DeviceId& donor : donor_ids) offloaded.keep(donor, stream->offloaded_bytes(donor));
  const std::shared_ptr<BlockStream> ring(stream.release(), goes);
  return [ring](int block, const std::function<void()>& work) {
    const BlockStream::Use use(ring.get(), block);
    work();
  };
}

}  // namespace

Engine::Engine(ModelSet models, const ComputeDtypes& dtypes, Plan plan)
    : models_(std::move(models)), dtypes_(dtypes), plan_(std::move(plan)) {
  release_workspaces();
  const auto runs = goes_one_by_one() ? Worker::Runs::InCaller : Worker::Runs::InThread;
  for (const PlannedDevice& planned : plan_.devices) {
    const DeviceRoom& room = planned.room;
    const std::uint64_t limit = room.limit_bytes > room.driver_bytes ? room.limit_bytes - room.driver_bytes : 0;
    devices_.push_back(std::make_unique<Device>(room.id, limit, runs));
  }
  vae_devices_ = plan_.devices_of("vae");
  if (!vae_devices_.empty() && vae_device(0).id.is_cuda())
    vae_device(0).decode_worker.emplace(vae_device(0).id, Worker::Runs::InThread);
}

PhaseBytes Engine::offloaded(const DeviceId& donor) const {
  const std::uint64_t diffusion = pipeline_ ? pipeline_->offloaded_bytes(donor) : 0;
  return {.encode = offloaded_encoders_.most(donor), .sample = diffusion, .decode = diffusion};
}

std::vector<DeviceStatus> Engine::status() const {
  std::vector<DeviceStatus> out;
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    out.push_back(devices_[i]->meter.status());
    out.back().id = plan_.devices[i].room.id.to_string();
  }
  return out;
}

double Engine::measure(Phase phase, const std::function<void()>& work) {
  const auto start = Clock::now();
  std::vector<std::unique_ptr<Meter::PhaseScope>> scopes;
  for (const auto& device : devices_) scopes.push_back(std::make_unique<Meter::PhaseScope>(device->meter, phase));
  if (!goes_one_by_one()) {  // devices count while their workers work
    work();
    return seconds_since(start);
  }
  // A device that its caller works is busy through the whole phase, until what was queued on it is done.
  const Meter::Busy busy(devices_.front()->meter, Meter::Busy::Of::Caller);
  work();
  synchronize(devices_.front()->torch);
  return seconds_since(start);
}

std::vector<DeviceId> Engine::vae_devices() const {
  std::vector<DeviceId> out;
  for (const std::size_t device : vae_devices_) out.push_back(devices_[device]->id);
  return out;
}

std::vector<double> Engine::vae_speeds() const {
  std::vector<double> out;
  for (const std::size_t device : vae_devices_) out.push_back(plan_.devices[device].room.speed);
  return out;
}

double Engine::at_autoencoder(Phase phase, const std::function<void()>& work) {
  fault_point("to the autoencoder");
  return between_passes(vae_device(0), [&] { return code(phase, work); });
}

double Engine::code(Phase phase, const std::function<void()>& work) {
  Device& device = vae_device(0);
  const auto run = [&] {
    return on_device(device.id, [&] {
      stop_if_requested();
      const Meter::PhaseScope scope(device.meter, phase);
      const Meter::Busy busy(device.meter);
      const Stopwatch watch(device.torch);
      fault_point("autoencoder");
      work();
      return watch.seconds();
    });
  };
  return device.decode_worker ? device.decode_worker->call(run) : run();
}

double Engine::between_passes(Device& device, const std::function<double()>& work) {
  double out = 0.0;
  const auto run = [&] { out = work(); };
  if (pipeline_) {
    pipeline_->between_passes(device.id, run).get();
  } else {
    device.worker.call(run);
  }
  return out;
}

void Engine::on_vae_devices(Phase phase, JointWork& together, const std::function<void(std::size_t vae_device)>& work) {
  const auto begin = [this](std::size_t rank, std::function<void()> part) {
    return vae_device(rank).worker.begin(std::move(part));
  };
  together.run(vae_devices_.size(), begin, [&](std::size_t rank) {
    Device& device = vae_device(rank);
    on_device(device.id, [&] {
      if (rank == 0) {  // code() has said the rest
        work(rank);
        return;
      }
      const Meter::PhaseScope scope(device.meter, phase);
      const Meter::Busy busy(device.meter);
      work(rank);
      synchronize(device.torch);
    });
  });
}

std::vector<Conditioning> Engine::encode(std::span<const PromptText> prompts, const TextualInversions& inversions) {
  const TextRecipe& recipe = models_.text();
  const LocalOps ops;
  std::vector<std::vector<EncodedText>> texts(prompts.size());
  const HostDeviceScope scope(latent_device());  // what is put together here
  for (std::size_t i = 0; i < recipe.encoders.size(); ++i) {
    const EncoderUse& use = recipe.encoders[i];
    const TextEncoderModel& model = *use.encoder;
    const Part& part = models_.encoders[i];
    const std::string& tokenizer = models_.tokenizer_of(model);
    const Weights weights = weights_of(part, dtypes_.encoders.value_or(stored_type(part)), at::kCPU);
    const auto encoder = model.load(use, recipe.breaks, weights, tokenizer, inversions, encoder_pieces(part));
    const bool is_away = plan_.device_of(model.key(), "layer", model.layers(part) - 1) != latent_device_index();
    for (std::size_t k = 0; k < prompts.size(); ++k) {
      texts[k].push_back(encoder->encode(prompts[k].text, prompts[k].clip_skip, ops));
      if (is_away) bring_to_latent_device(texts[k].back());
    }
  }
  std::vector<Conditioning> out;
  for (const std::vector<EncodedText>& pieces : texts) out.push_back(assemble(recipe, pieces));
  release_cached();
  return out;
}

std::vector<EncoderPiece> Engine::encoder_pieces(const Part& encoder) {
  std::vector<EncoderPiece> out;
  for (const EncoderRun& run :
       encoder_runs(plan_, text_encoder(encoder).key(), text_encoder(encoder).layers(encoder))) {
    Device& device = *devices_[run.device];
    const auto work_of = [&device](std::function<void()> work) {
      fault_point("to an encoder");
      return device.worker.begin([&device, work = std::move(work)] {
        on_device(device.id, [&] {
          const Meter::Busy busy(device.meter);
          fault_point("encode");
          work();
          synchronize(device.torch);
        });
      });
    };
    const auto stream = [this, &device, donors = run.donors](std::vector<StreamedBlock> blocks) {
      return ring_of(device.torch, std::move(blocks), donors, device.meter, offloaded_encoders_);
    };
    out.push_back({device.torch, run.held, work_of, stream});
  }
  return out;
}

void Engine::load(const WarmUpShape& warm_up_shape, std::span<const UpcomingConditioning> upcoming,
                  const std::function<void()>& decoders) {
  if (pipeline_ || !vae_device(0).decode_worker) {
    load_diffusion(warm_up_shape, upcoming);
    at_autoencoder(Phase::Decode, decoders);
    return;
  }
  Worker aside(vae_device(0).id, Worker::Runs::InThread);
  Together loads;
  loads.begin(aside, [&] { code(Phase::Decode, decoders); });
  load_diffusion(warm_up_shape, upcoming);
  loads.finish();
}

void Engine::load_diffusion(const WarmUpShape& warm_up_shape, std::span<const UpcomingConditioning> upcoming) {
  if (pipeline_) return;
  const std::vector<DiffusionBlock> blocks = diffusion_blocks(models_.diffusion);
  std::vector<std::size_t> owners;
  for (const DiffusionBlock& block : blocks) owners.push_back(owner_of(block));
  const std::vector<Pipeline::Stage> stages = stages_of(owners);
  std::vector<DeviceId> ids;
  for (const auto& device : devices_) ids.push_back(device->id);
  std::vector<Pipeline::Member> members(devices_.size());
  Together loads;
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    Device& device = *devices_[i];
    members[i] = {device.id, &device.worker, &device.meter, std::make_unique<LocalOps>()};
    members[i].follower = device.follower ? &*device.follower : nullptr;
    if (std::ranges::find(owners, i) == owners.end()) continue;
    fault_point("to load");
    loads.begin(device.worker, [&, i] {
      on_device(devices_[i]->id, [&] {
        fault_point("load");
        load_member(i, blocks, warm_up_shape, members[i]);
        // What waits in main memory takes the CPU no less room than what it was read for.
        if (devices_[i]->id != DeviceId::cpu()) members[i].shard->prefetch(upcoming, *members[i].ops);
        open_paths(i, stages, ids);
      });
    });
  }
  loads.finish();
  pipeline_ = std::make_unique<Pipeline>(std::move(members), stages);
  pipeline_->limit(passes_at_once());
}

void Engine::load_member(std::size_t index, const std::vector<DiffusionBlock>& blocks, const WarmUpShape& warm_up_shape,
                         Pipeline::Member& member) {
  Device& device = *devices_[index];
  std::vector<bool> held, streamed;
  std::vector<BlockStream::Block> offloaded;
  for (const DiffusionBlock& block : blocks) {
    const Assignment& assignment = plan_.assignment_of("unet", block.kind, block.number);
    held.push_back(owner_of(block) == index);
    streamed.push_back(held.back() && assignment.streamed);
    if (streamed.back())
      offloaded.push_back({static_cast<int>(held.size()) - 1, {}, parse_device(assignment.from).value()});
  }
  const Part& part = models_.diffusion;
  member.shard = diffusion_model(part).load(part, weights_of(part, dtypes_.unet, device.torch),
                                            HeldBlocks(held, streamed, plan_.keeps_precomputed), warm_up_shape);
  for (BlockStream::Block& block : offloaded) block.tensors = member.shard->block_tensors(block.index);
  if (!offloaded.empty())
    member.stream = std::make_unique<BlockStream>(device.torch, std::move(offloaded), &device.meter);
  device.meter.loaded();
}

Engine::Run Engine::begin_run(std::span<const double> timesteps, std::span<const RunConditioning> texts,
                              const RunFacts& facts) {
  MGPU_CHECK(pipeline_, "the diffusion model is not loaded");
  return pipeline_->begin_run(timesteps, texts, facts);
}

std::vector<at::Tensor> Engine::evaluate(const Run& run, const at::Tensor& x, double timestep,
                                         std::span<const std::size_t> texts) {
  MGPU_CHECK(pipeline_, "the diffusion model is not loaded");
  std::vector<Pipeline::Evaluation> evaluations;
  for (const std::size_t text : texts)
    for (std::int64_t i = 0; i < x.size(0); ++i) evaluations.push_back({x.narrow(0, i, 1), text});
  std::vector<std::future<at::Tensor>> passes = pipeline_->submit(run, evaluations, timestep);
  for (const auto& pass : passes) pass.wait();  // also those beside one that failed: they are told by the run's texts
  std::vector<at::Tensor> out;
  for (std::size_t t = 0, next = 0; t < texts.size(); ++t) {
    std::vector<at::Tensor> images;
    for (std::int64_t i = 0; i < x.size(0); ++i) {
      images.push_back(passes[next++].get());
      read_here(images.back());
    }
    out.push_back(at::cat(images, 0));
  }
  return out;
}

std::size_t Engine::owner_of(const DiffusionBlock& block) const {
  return plan_.device_of("unet", block.kind, block.number);
}

std::size_t Engine::latent_device_index() const {
  return owner_of(diffusion_blocks(models_.diffusion).front());
}

const DeviceId& Engine::latent_device() const {
  return devices_[latent_device_index()]->id;
}

void Engine::bring_to_latent_device(EncodedText& text) const {
  on_device(latent_device(), [&] {
    for (at::Tensor* tensor : {&text.hidden, &text.pooled}) *tensor = hand_over(*tensor, torch_device(latent_device()));
  });
}

std::size_t Engine::passes_at_once() const {
  return pipeline_ && !saves_memory_ ? static_cast<std::size_t>(plan_.passes_at_once) : 1;
}

void Engine::save_memory() {
  saves_memory_ = true;
  if (pipeline_) pipeline_->limit(1);
}

bool Engine::goes_one_by_one() const {
  return plan_.devices.size() == 1 && plan_.passes_at_once == 1;
}

void Engine::release_cached() const {
  for (const auto& device : devices_) mgpu::release_cached(device->id);
}

Weights Engine::vae_weights(std::size_t number) const {
  return weights_of(models_.vae, dtypes_.vae, vae_device(number).torch);
}

}  // namespace mgpu
