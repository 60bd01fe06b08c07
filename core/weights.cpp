#include "core/weights.h"

#include <ATen/ATen.h>

#include <cstring>

#include "core/cancel.h"
#include "core/error.h"
#include "core/host_memory.h"
#include "core/quantisation.h"
#include "core/strings.h"
#include "core/upload.h"

namespace mgpu {
namespace {

bool is_float8(DType dtype) {
  return dtype == DType::F8_E4M3 || dtype == DType::F8_E5M2;
}

std::string with_dot(std::string prefix) {
  if (!prefix.empty() && prefix.back() != '.') prefix += '.';
  return prefix;
}

/// The scale of the weight `name` (a full name), or nothing.
std::optional<double> scale_of(const std::shared_ptr<const TensorFile>& file, const std::string& name) {
  const TensorInfo* info = scale_tensor(*file, name);
  if (!info) return std::nullopt;
  return mapped_tensor(file, *info).to(at::kFloat).item<float>();
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

at::Tensor mapped_tensor(const std::shared_ptr<const TensorFile>& file, const TensorInfo& info) {
  if (info.dtype == DType::Other)
    fail_file(file->path(),
              fmt::format("holds a tensor of type {}, which is not supported", in_quotes(info.other_type)));
  const auto options = at::TensorOptions().dtype(scalar_type(info.dtype));
  const auto bytes = file->bytes(info);
  // The format aligns nothing, and kernels may load whole elements.
  const bool aligned = reinterpret_cast<std::uintptr_t>(bytes.data()) % size_of(info.dtype) == 0;
  if (bytes.empty() || !aligned) {
    at::Tensor copy = at::empty(info.shape, options);
    if (!bytes.empty()) std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  const auto charge = std::make_shared<HostCharge>(bytes.size());
  return at::from_blob(
      const_cast<std::byte*>(bytes.data()), info.shape, [file, charge](void*) {}, options);
}

Weights::Weights(std::shared_ptr<const TensorFile> file, std::string prefix, at::ScalarType dtype, at::Device device)
    : file_(std::move(file)), prefix_(with_dot(std::move(prefix))), dtype_(dtype), device_(device) {
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

const std::vector<std::int64_t>& Weights::shape(std::string_view name) const {
  return info(name).shape;
}

at::Tensor Weights::get(std::string_view name) const {
  const at::Tensor stored = fetch(info(name));
  const std::optional<double> scale = scale_of(file_, full(name));
  return scale ? (stored.to(at::kFloat) * *scale).to(dtype_) : stored.to(dtype_);
}

at::Tensor Weights::fetch(const TensorInfo& info) const {
  stop_if_requested();
  if (!uploader_) return mapped_tensor(file_, info);
  return uploader_->upload(file_->bytes(info), info.shape, scalar_type(info.dtype));
}

Linear Weights::linear(std::string_view name) const {
  return linear(std::string(name) + ".weight", std::string(name) + ".bias");
}

Linear Weights::linear(std::string_view weight, std::string_view bias) const {
  Linear out;
  if (is_float8(info(weight).dtype)) {
    out.weight = fetch(info(weight));
    out.scale = scale_of(file_, full(weight)).value_or(1.0);
  } else {
    out.weight = get(weight);
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
  const auto part = [&](const at::Tensor& t) { return t.defined() ? t.narrow(0, first, count) : at::Tensor(); };
  return {part(linear.weight), part(linear.bias), linear.scale};
}

Weights Weights::at(std::string_view name) const {
  Weights deeper = *this;
  deeper.prefix_ = with_dot(full(name));
  return deeper;
}

Weights Weights::on(at::Device device) const {
  return device == device_ ? *this : Weights(file_, prefix_, dtype_, device);
}

}  // namespace mgpu
