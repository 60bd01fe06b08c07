#include "cli/failure.h"

#include <c10/util/Exception.h>
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <new>
#include <string_view>
#include <system_error>

#include "cli/files/write_file.h"
#include "core/cancel.h"
#include "core/host_memory.h"
#include "core/mapped_file.h"
#include "shard/device_error.h"

namespace mgpu {
namespace {

constexpr std::string_view kReport = "\n  this should not happen: please report it with the job";

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

bool has_any(const std::string& text, std::initializer_list<std::string_view> parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return text.find(part) != std::string::npos; });
}

/// LibTorch has a type for a GPU out of memory; its checks of CUDA calls know the error's number; main memory's
/// allocator, cuBLAS and cuDNN only say so. An engine that cuDNN cannot find had no room for its workspace.
bool is_out_of_memory(const c10::Error& error, const std::string& text) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error)) return true;
  const auto* cuda = dynamic_cast<const c10::AcceleratorError*>(&error);
  if (cuda && cuda->get_error_code() == cudaErrorMemoryAllocation) return true;
  return has_any(text, {"DefaultCPUAllocator", "_STATUS_ALLOC_FAILED", "ALLOCATION_FAILED", "error: out of memory",
                        "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY",
                        "unable to find an engine to execute this computation"});
}

/// What cuBLAS and cuDNN say where a GPU has no room for a handle, a workspace or a kernel's code, as also where it is
/// lost.
bool may_be_out_of_memory(const std::string& text) {
  return has_any(text, {"_STATUS_NOT_INITIALIZED", "_STATUS_INTERNAL_ERROR", "_STATUS_EXECUTION_FAILED"});
}

/// A GPU that answers has no room for what the libraries allocate beside LibTorch.
bool is_full(const std::optional<std::uint64_t>& free_bytes) {
  constexpr std::uint64_t kLittle = std::uint64_t{256} << 20;
  return free_bytes && *free_bytes < kLittle;
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

Failure failure_of(const std::exception_ptr& thrown, const DeviceId& device, const AskFree& free_bytes) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Interrupted&) {
    throw;
  } catch (const DeviceError& error) {
    return failure_of(error.cause(), error.device(), free_bytes);
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
    if (is_out_of_memory(error, text) || (may_be_out_of_memory(text) && is_full(free_bytes(device))))
      return out_of_memory(device_in(text, device), text);
    if (device.is_cuda()) return {Exit::Device, fmt::format("{} failed: {}", device.to_string(), first_line(text)), {}};
    if (has_any(text, {"CUDA error:"})) {  // a GPU's work that this device was waiting for
      const std::optional<DeviceId> gpu = failed_gpu();
      return {Exit::Device, fmt::format("{} failed: {}", gpu ? gpu->to_string() : "a GPU", first_line(text)), {}};
    }
    return {Exit::ImageFailed, first_line(text) + std::string(kReport), {}};
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again)
      return {Exit::ImageFailed, error.what() + std::string(kReport), {}};
    return {Exit::ImageFailed,
            "the system starts no more threads for this process\n  raise ulimit -u, or the cgroup's pids.max",
            {}};
  } catch (const std::bad_alloc&) {
    return out_of_memory(DeviceId::cpu(), "main memory is used up");
  } catch (const std::exception& error) {
    return {Exit::ImageFailed, error.what() + std::string(kReport), {}};
  } catch (...) {
    return {Exit::ImageFailed, "something failed that does not say what it is" + std::string(kReport), {}};
  }
}

}  // namespace mgpu
