#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <utility>

#include "core/devices.h"
#include "core/memory.h"

namespace mgpu {

/// LibTorch's or the allocator's failure, with the device whose work it ended.
class DeviceError : public std::exception {
 public:
  DeviceError(const DeviceId& device, std::exception_ptr cause) : device_(device), cause_(std::move(cause)) {}

  const DeviceId& device() const { return device_; }
  const std::exception_ptr& cause() const { return cause_; }
  const char* what() const noexcept override { return "a device failed"; }

 private:
  DeviceId device_;
  std::exception_ptr cause_;
};

/// Does `work` for a device, which then answers for what LibTorch throws: see DeviceError. Everything else is passed
/// on as it is, another device's failure too.
template <class Work>
decltype(auto) on_device(const DeviceId& device, Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const c10::Error&) {
    forget_cuda_error();
    throw DeviceError(device, std::current_exception());
  } catch (const std::bad_alloc&) {
    throw DeviceError(device, std::current_exception());
  }
}

}  // namespace mgpu
