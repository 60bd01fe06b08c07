#include "cli/failure.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <new>
#include <string_view>

#include "cli/output.h"
#include "core/host_memory.h"
#include "core/mapped_file.h"
#include "shard/device_error.h"

namespace mgpu {
namespace {

constexpr std::string_view kReport = "\n  this should not happen: please report it with the job";

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

/// LibTorch has a type for a GPU out of memory; main memory's allocator only says so.
bool is_out_of_memory(const c10::Error& error, const std::string& text) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) || text.find("DefaultCPUAllocator") != std::string::npos;
}

/// The GPU that LibTorch's text names ("... 2.00 GiB. GPU 1 has a total capacity of ..."): work for one device may ask
/// another for memory, so that it is not always the one whose work failed.
DeviceId device_in(const std::string& text, const DeviceId& otherwise) {
  constexpr std::string_view kBefore = ". GPU ";
  const std::size_t place = text.find(kBefore);
  if (place == std::string::npos) return otherwise;
  const std::size_t begin = place + kBefore.size();
  return parse_device(std::string_view(text).substr(begin, text.find(' ', begin) - begin)).value_or(otherwise);
}

Failure out_of_memory(const DeviceId& device, const std::string& detail,
                      std::string_view what_to_do = "a smaller picture needs less") {
  return {Exit::ImageFailed,
          fmt::format("out of memory on {}: {}\n  {}", device.to_string(), first_line(detail), what_to_do), device};
}

}  // namespace

Failure failure_of(const std::exception_ptr& thrown, const DeviceId& device) {
  try {
    std::rethrow_exception(thrown);
  } catch (const DeviceError& error) {
    return failure_of(error.cause(), error.device());
  } catch (const WriteError& error) {
    return {error.code(), error.what(), {}, error.concerns_all() ? Failure::Repeats::Perhaps : Failure::Repeats::No};
  } catch (const FileChanged& error) {
    return {error.code(), error.what(), {}, Failure::Repeats::Surely};
  } catch (const Error& error) {
    return {error.code(), error.what(), {}};
  } catch (const HostOutOfMemory& error) {
    return out_of_memory(error.device(), error.what_without_backtrace(),
                         "a smaller picture needs less, and a larger vram_limit gives it more");
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    if (is_out_of_memory(error, text)) return out_of_memory(device_in(text, device), text);
    if (device.is_cuda()) return {Exit::Device, fmt::format("{} failed: {}", device.to_string(), first_line(text)), {}};
    return {Exit::ImageFailed, first_line(text) + std::string(kReport), {}};
  } catch (const std::bad_alloc&) {
    return out_of_memory(DeviceId::cpu(), "main memory is used up");
  } catch (const std::exception& error) {
    return {Exit::ImageFailed, error.what() + std::string(kReport), {}};
  } catch (...) {
    return {Exit::ImageFailed, "something failed that does not say what it is" + std::string(kReport), {}};
  }
}

}  // namespace mgpu
