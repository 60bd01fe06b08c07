#include "core/weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "core/cancel.h"
#include "core/error.h"
#include "core/host_memory.h"
#include "core/quantisation.h"
#include "core/strings.h"
#include "core/upload.h"
#include "core/weight_patches.h"

namespace mgpu {
namespace {

std::string with_dot(std::string prefix) {
  if (!prefix.empty() && prefix.back() != '.') prefix += '.';
  return prefix;
}

template <class Layer>
void append_pair(Layer& layer, std::vector<at::Tensor*>& out) {
  for (at::Tensor* tensor : {&layer.weight, &layer.bias})
    if (tensor->defined()) out.push_back(tensor);
}

/// Of the tensor that holds a stored tensor's bytes.
at::ScalarType payload_type(const TensorInfo& info) {
  return info.packing ? at::kByte : scalar_type(info.dtype);
}

/// Whether the packing's rows are those of the values: a file may have laid them out anew, to fill its blocks.
bool has_own_rows(const Weight& weight, const StoredWeight& stored) {
  return !weight.packing || weight.packing->shape(weight) == stored.shape;
}

/// How many rows of a tensor patches see at once.
std::int64_t patched_rows(std::int64_t rows, std::int64_t values) {
  if (values == 0) return std::max<std::int64_t>(rows, 1);
  return std::max<std::int64_t>(kPatchedAtOnce / std::max<std::int64_t>(values / rows, 1), 1);
}

}  // namespace

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return at::kDouble;
    case DType::F32:
      return at::kFloat;
    case DType::F16:
      return at::kHalf;
    case DType::BF16:
      return at::kBFloat16;
    case DType::F8_E4M3:
      return at::kFloat8_e4m3fn;
    case DType::F8_E5M2:
      return at::kFloat8_e5m2;
    case DType::I64:
      return at::kLong;
    case DType::I32:
      return at::kInt;
    case DType::I16:
      return at::kShort;
    case DType::I8:
      return at::kChar;
    case DType::U64:
      return at::kUInt64;
    case DType::U32:
      return at::kUInt32;
    case DType::U16:
      return at::kUInt16;
    case DType::U8:
      return at::kByte;
    case DType::Bool:
      return at::kBool;
    case DType::Other:
      break;
  }
  MGPU_CHECK(false, "no such type: {}", static_cast<int>(dtype));
}

void append_tensors(Linear& layer, std::vector<at::Tensor*>& out) {
  for (at::Tensor* tensor : layer.weight.tensors()) out.push_back(tensor);
  if (layer.bias.defined()) out.push_back(&layer.bias);
}

void append_tensors(Conv& layer, std::vector<at::Tensor*>& out) {
  append_pair(layer, out);
}

void append_tensors(Norm& layer, std::vector<at::Tensor*>& out) {
  append_pair(layer, out);
}

at::Tensor mapped_tensor(const std::shared_ptr<const TensorFile>& file, const TensorInfo& info) {
  if (info.dtype == DType::Other && !info.packing)
    fail_file(file->path(),
              fmt::format("holds a tensor of type {}, which is not supported", in_quotes(info.other_type)));
  const auto options = at::TensorOptions().dtype(payload_type(info));
  const std::vector<std::int64_t> shape = info.packing ? info.packing->byte_shape(info) : info.shape;
  const auto bytes = file->bytes(info);
  // The format aligns nothing, and kernels may load whole elements.
  const bool aligned = reinterpret_cast<std::uintptr_t>(bytes.data()) % size_of(info.dtype) == 0;
  if (bytes.empty() || !aligned) {
    at::Tensor copy = at::empty(shape, options);
    if (!bytes.empty()) std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  const auto charge = std::make_shared<HostCharge>(bytes.size());
  return at::from_blob(
      const_cast<std::byte*>(bytes.data()), shape, [file, charge](void*) {}, options);
}

Weights::Weights(std::shared_ptr<const TensorFile> file, std::string prefix, at::ScalarType dtype, at::Device device,
                 std::shared_ptr<const WeightPatches> patches)
    : file_(std::move(file)),
      prefix_(with_dot(std::move(prefix))),
      dtype_(dtype),
      device_(device),
      computes_(device),
      patches_(std::move(patches)) {
  if (device.is_cuda()) uploader_ = std::make_shared<Uploader>(device);
}

std::string Weights::full(std::string_view name) const {
  return prefix_ + std::string(name);
}

const TensorInfo& Weights::info(std::string_view name) const {
  const std::string wanted = full(name);
  if (const TensorInfo* found = file_->find(wanted)) return *found;
  std::vector<std::string_view> names;
  for (const auto& [other, unused] : file_->tensors()) names.push_back(other);
  const std::string near = nearest(wanted, names);
  fail_file(file_->path(), fmt::format("tensor {} is missing", in_quotes(wanted)),
            near.empty() ? "" : fmt::format("the nearest name in the file is {}", in_quotes(near)));
}

bool Weights::has(std::string_view name) const {
  return file_->find(full(name)) != nullptr;
}

std::vector<std::int64_t> Weights::shape(std::string_view name) const {
  return stored_as(name).shape;
}

StoredWeight Weights::stored_as(std::string_view name) const {
  return stored_weight(*file_, full(name), info(name));
}

at::Tensor Weights::get(std::string_view name) const {
  if (is_patched(name)) return patched(name);
  const StoredWeight stored = stored_as(name);
  return load(stored, device_).widened(dtype_).view(stored.shape);
}

Weight Weights::load(const StoredWeight& stored, at::Device device) const {
  Weight out;
  out.payload = fetch(*stored.info, stored.payload_shape, device);
  out.packing = stored.packing;
  if (stored.scale) out.scale = mapped_tensor(file_, *stored.scale).to(at::kFloat).item<float>();
  for (const TensorInfo* scales : stored.scales) out.scales.push_back(fetch(*scales, scales->shape, device));
  return out;
}

at::Tensor Weights::fetch(const TensorInfo& info, at::IntArrayRef payload_shape, at::Device device) const {
  stop_if_requested();
  if (!device.is_cuda()) return mapped_tensor(file_, info).view(payload_shape);
  return uploader_->upload(file_->bytes(info), payload_shape, payload_type(info));
}

bool Weights::is_patched(std::string_view name) const {
  return patches_ && patches_->touches(full(name));
}

at::Tensor Weights::patched(std::string_view name) const {
  const StoredWeight stored = stored_as(name);
  std::optional<HostDeviceScope> nobody;
  if (computes_.is_cuda()) nobody.emplace();  // the mapping is the system's cache, and no device computes from it
  Weight whole = load(stored, at::kCPU);
  nobody.reset();
  if (!has_own_rows(whole, stored)) whole = Weight(whole.widened(at::kFloat).view(stored.shape));
  at::Tensor out = at::empty(stored.shape, at::TensorOptions(dtype_).device(device_));
  const at::Tensor rows = out.dim() == 0 ? out.view({1}) : out;
  const std::string full_name = full(name);
  const std::int64_t step =
      patches_->needs_all_rows(full_name) ? rows.size(0) : patched_rows(rows.size(0), rows.numel());
  for (std::int64_t first = 0; first < rows.size(0); first += step) {
    stop_if_requested();
    const std::int64_t count = std::min(step, rows.size(0) - first);
    Weight part = out.dim() == 0 ? whole : whole.rows(first, count);
    if (computes_.is_cuda())
      for (at::Tensor* tensor : part.tensors()) *tensor = uploaded(*tensor);
    at::Tensor values = part.widened(at::kFloat).contiguous();
    // The mapping must not be written to.
    if (values.is_alias_of(part.payload)) values = values.clone();
    patches_->apply(full_name, first, out.dim() == 0 ? values.view({1}) : values);
    rows.narrow(0, first, count).copy_(values.to(dtype_).view_as(rows.narrow(0, first, count)));
  }
  return out;
}

at::Tensor Weights::uploaded(const at::Tensor& mapped) const {
  const at::Tensor bytes = mapped.contiguous();
  return uploader_->upload({static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes()}, bytes.sizes(),
                           bytes.scalar_type());
}

Linear Weights::linear(std::string_view name) const {
  return linear(std::string(name) + ".weight", std::string(name) + ".bias");
}

Linear Weights::linear(std::string_view weight, std::string_view bias) const {
  Linear out;
  if (is_patched(weight)) {
    out.weight = patched(weight);
  } else {
    const StoredWeight stored = stored_as(weight);
    const Weight loaded = load(stored, device_);
    out.weight =
        stored.is_narrow() && has_own_rows(loaded, stored) ? loaded : Weight(loaded.widened(dtype_).view(stored.shape));
  }
  if (has(bias)) out.bias = get(bias);
  return out;
}

Conv Weights::conv(std::string_view name) const {
  return {get(std::string(name) + ".weight"), get(std::string(name) + ".bias")};
}

Norm Weights::norm(std::string_view name) const {
  const std::string bias = std::string(name) + ".bias";
  return {get(std::string(name) + ".weight"), has(bias) ? get(bias) : at::Tensor()};
}

Linear rows(const Linear& linear, std::int64_t first, std::int64_t count) {
  return {linear.weight.rows(first, count), linear.bias.defined() ? linear.bias.narrow(0, first, count) : at::Tensor()};
}

Weights Weights::at(std::string_view name) const {
  Weights deeper = *this;
  deeper.prefix_ = with_dot(full(name));
  return deeper;
}

Weights Weights::on(at::Device device) const {
  return device == device_ && device == computes_ ? *this : Weights(file_, prefix_, dtype_, device, patches_);
}

Weights Weights::in_main_memory() const {
  Weights out = *this;
  out.device_ = at::kCPU;
  return out;
}

}  // namespace mgpu
