#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/safetensors.h"
#include "core/strings.h"

namespace mgpu {
namespace {

// LibTorch's own iterators stop at 64; no model comes near.
constexpr std::size_t kMaxRank = 16;

/// Reads the header as a stream of JSON events, since a tree would merge duplicate names unseen. Every event that does
/// not belong where it comes stops the parse with `fault` and, inside a tensor, its name.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  TensorHeader header;
  std::string fault;
  std::string tensor;

  bool null() override { return place_ == Place::Metadata ? leave_metadata() : unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override {
    return in_numbers() ? fail(fmt::format("has a negative number in \"{}\"", field_)) : unexpected("a number");
  }
  bool number_float(number_float_t, const string_t&) override {
    return in_numbers() ? fail(fmt::format("has a number that is not a whole 64-bit one in \"{}\"", field_))
                        : unexpected("a number");
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_numbers()) return unexpected("a number");
    if (numbers_.size() == kMaxRank) return fail(fmt::format("has more than {} numbers in \"{}\"", kMaxRank, field_));
    numbers_.push_back(value);
    return true;
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool string(string_t& value) override {
    if (place_ == Place::MetadataValue) {
      header.metadata.emplace(std::move(field_), std::move(value));
      place_ = Place::MetadataObject;
      return true;
    }
    if (place_ != Place::DTypeValue) return unexpected("a string");
    // Types are added to the format, and a file may hold tensors that nothing asks for.
    info_.dtype = dtype_named(value).value_or(DType::Other);
    if (info_.dtype == DType::Other) info_.other_type = std::move(value);
    place_ = Place::Tensor;
    return true;
  }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::Start:
        place_ = Place::Header;
        return true;
      case Place::Metadata:
        place_ = Place::MetadataObject;
        return true;
      case Place::TensorStart:
        place_ = Place::Tensor;
        return true;
      default:
        return unexpected("an object");
    }
  }

  bool key(string_t& name) override {
    switch (place_) {
      case Place::Header:
        return top_key(name);
      case Place::MetadataObject:
        if (header.metadata.contains(name)) return fail(fmt::format("names {} twice", in_quotes(name)));
        field_ = std::move(name);
        place_ = Place::MetadataValue;
        return true;
      case Place::Tensor:
        return tensor_key(name);
      default:
        return unexpected("a key");
    }
  }

  bool end_object() override {
    switch (place_) {
      case Place::Header:
        place_ = Place::End;
        return true;
      case Place::MetadataObject:
        return leave_metadata();
      default:
        return leave_tensor();
    }
  }

  bool start_array(std::size_t) override {
    switch (place_) {
      case Place::ShapeValue:
        place_ = Place::Shape;
        break;
      case Place::OffsetsValue:
        place_ = Place::Offsets;
        break;
      default:
        return unexpected("a list");
    }
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    if (place_ == Place::Shape) {
      for (const std::uint64_t dim : numbers_) {
        if (dim > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
          return fail("has a dimension that is too large");
        info_.shape.push_back(static_cast<std::int64_t>(dim));
      }
    } else {
      if (numbers_.size() != 2) return fail("needs two numbers in \"data_offsets\"");
      info_.begin = numbers_[0];
      info_.end = numbers_[1];
    }
    place_ = Place::Tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail(fmt::format("has a header that is not valid JSON, at byte {} of it", position));
  }

 private:
  enum class Place {
    Start,
    Header,
    End,
    Metadata,
    MetadataObject,
    MetadataValue,
    TensorStart,
    Tensor,
    DTypeValue,
    ShapeValue,
    Shape,
    OffsetsValue,
    Offsets,
  };
  enum Seen : unsigned { kDType = 1, kShape = 2, kOffsets = 4 };

  bool in_numbers() const { return place_ == Place::Shape || place_ == Place::Offsets; }

  bool fail(std::string what) {
    if (fault.empty()) fault = std::move(what);
    return false;
  }

  bool unexpected(std::string_view what) {
    switch (place_) {
      case Place::Start:
        return fail(fmt::format("has {} for a header, not an object", what));
      case Place::Metadata:
        return fail(fmt::format("has {} as \"__metadata__\", not an object", what));
      case Place::MetadataValue:
        return fail(fmt::format("has {} in \"__metadata__\" under {}, not a string", what, in_quotes(field_)));
      case Place::TensorStart:
        return fail(fmt::format("is {}, not an object", what));
      default:
        return fail(fmt::format("has {} in \"{}\"", what, field_));
    }
  }

  bool top_key(std::string& name) {
    if (name == "__metadata__") {
      if (metadata_seen_) return fail("names \"__metadata__\" twice");
      metadata_seen_ = true;
      place_ = Place::Metadata;
      return true;
    }
    tensor = std::move(name);
    if (header.tensors.contains(tensor)) return fail("is there twice");
    info_ = {};
    seen_ = 0;
    place_ = Place::TensorStart;
    return true;
  }

  bool tensor_key(std::string& name) {
    unsigned bit = 0;
    if (name == "dtype") bit = kDType, place_ = Place::DTypeValue;
    if (name == "shape") bit = kShape, place_ = Place::ShapeValue;
    if (name == "data_offsets") bit = kOffsets, place_ = Place::OffsetsValue;
    if (bit == 0) return fail(fmt::format("has an unknown field {}", in_quotes(name)));
    if (seen_ & bit) return fail(fmt::format("names \"{}\" twice", name));
    seen_ |= bit;
    field_ = std::move(name);
    return true;
  }

  bool leave_metadata() {
    place_ = Place::Header;
    return true;
  }

  bool leave_tensor() {
    for (const auto& [bit, name] : {std::pair(kDType, "dtype"), {kShape, "shape"}, {kOffsets, "data_offsets"}})
      if (!(seen_ & bit)) return fail(fmt::format("lacks \"{}\"", name));
    header.tensors.emplace(std::move(tensor), std::move(info_));
    tensor.clear();
    place_ = Place::Header;
    return true;
  }

  Place place_ = Place::Start;
  std::string field_;
  TensorInfo info_;
  unsigned seen_ = 0;
  bool metadata_seen_ = false;
  std::vector<std::uint64_t> numbers_;
};

/// Bytes that shape and type ask for (of another type: its elements), or nothing when they pass 64 bits. Dimensions of
/// 0 count as 1 in that test, so that strides never overflow either.
std::optional<std::uint64_t> wanted_bytes(const TensorInfo& info) {
  auto product = static_cast<std::int64_t>(size_of(info.dtype));
  bool empty = false;
  for (const std::int64_t dim : info.shape) {
    empty = empty || dim == 0;
    if (__builtin_mul_overflow(product, std::max<std::int64_t>(dim, 1), &product)) return std::nullopt;
  }
  return empty ? 0 : static_cast<std::uint64_t>(product);
}

void check_sizes(const TensorHeader& header, std::uint64_t data_bytes, const std::string& path) {
  for (const auto& entry : header.tensors) {  // clang 14's lambdas cannot take structured bindings
    const std::string& name = entry.first;
    const TensorInfo& info = entry.second;
    const auto fail = [&](std::string what, std::string hint = {}) {
      fail_file(path, fmt::format("tensor {} {}", in_quotes(name), what), std::move(hint));
    };
    const auto wanted = wanted_bytes(info);
    if (!wanted) fail(fmt::format("of shape {} is larger than any file", shape_text(info.shape)));
    if (info.begin > info.end) fail(fmt::format("ends at byte {} before it begins at {}", info.end, info.begin));
    if (info.end > data_bytes)
      fail(fmt::format("ends at byte {} of the data, but the file has only {}", info.end, data_bytes),
           "the file is cut short: fetch it again");
    if (info.dtype != DType::Other && info.bytes() != *wanted)
      fail(fmt::format("has {} bytes, but shape {} in {} takes {}", info.bytes(), shape_text(info.shape),
                       name_of(info.dtype), *wanted));
  }
}

/// Tensors must cover the data section exactly: what two tensors share or none owns can hide another file's content.
void check_cover(const TensorHeader& header, std::uint64_t data_bytes, const std::string& path) {
  using Entry = std::pair<const std::string, TensorInfo>;
  std::vector<const Entry*> order;
  order.reserve(header.tensors.size());
  for (const Entry& entry : header.tensors) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::uint64_t covered = 0;
  const std::string* previous = nullptr;
  for (const Entry* entry : order) {
    const auto& [name, info] = *entry;
    if (info.begin < covered)
      fail_file(path, fmt::format("tensor {} overlaps tensor {} at byte {} of the data", in_quotes(name),
                                  in_quotes(*previous), info.begin));
    if (info.begin > covered)
      fail_file(path, fmt::format("tensor {} begins at byte {} of the data, which leaves a hole after byte {}",
                                  in_quotes(name), info.begin, covered));
    covered = info.end;
    previous = &name;
  }
  if (covered != data_bytes)
    fail_file(path, fmt::format("has {} bytes of data, but its tensors take {}", data_bytes, covered));
}

}  // namespace

TensorHeader parse_tensor_header(std::string_view json, std::uint64_t data_bytes, const std::string& path) {
  if (json.empty() || json.front() != '{')
    fail_file(path, "is not a safetensors file: its header does not begin with \"{\"");
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) {
    const std::string about = reader.tensor.empty() ? "" : fmt::format("tensor {} ", in_quotes(reader.tensor));
    fail_file(path, about + reader.fault);
  }
  check_sizes(reader.header, data_bytes, path);
  check_cover(reader.header, data_bytes, path);
  return std::move(reader.header);
}

}  // namespace mgpu
