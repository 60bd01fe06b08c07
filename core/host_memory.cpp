#include "core/host_memory.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <fmt/format.h>

#include <map>
#include <memory>
#include <mutex>
#include <new>

#include "core/fault_point.h"
#include "core/strings.h"

namespace mgpu {
namespace {

thread_local HostAccount* current_account = nullptr;

/// Stands before every block, as long as an alignment so that the block keeps its own.
struct alignas(c10::gAlignment) Header {
  HostAccount* account;  ///< null: not booked
  std::uint64_t bytes;
};
static_assert(sizeof(Header) == c10::gAlignment);

/// Frees a block of BookingAllocator, in any thread.
void free_block(void* block) {
  if (!block) return;
  Header* header = static_cast<Header*>(block) - 1;
  if (header->account) header->account->release(header->bytes);
  c10::GetDefaultCPUAllocator()->raw_deallocate(header);
}

/// LibTorch's own CPU allocator with a header before each block.
class BookingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_block, c10::DeviceType::CPU};
    if (allocation_hook) [[unlikely]]
      allocation_hook();
    HostAccount* account = current_account;
    if (account) account->charge(bytes);
    try {
      void* room = c10::GetDefaultCPUAllocator()->raw_allocate(sizeof(Header) + bytes);
      void* block = new (room) Header{account, bytes} + 1;
      return {block, block, &free_block, c10::DeviceType::CPU};
    } catch (...) {
      if (account) account->release(bytes);
      throw;
    }
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_block; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

/// Before main(), when no other thread allocates. Blocks that LibTorch's allocator has handed out keep its deleter.
const bool installed = [] {
  constexpr std::uint8_t kAboveDefault = 1;
  c10::SetCPUAllocator(new BookingAllocator, kAboveDefault);
  return true;
}();

}  // namespace

HostOutOfMemory::HostOutOfMemory(const DeviceId& device, const std::string& why)
    : c10::OutOfMemoryError({__func__, __FILE__, __LINE__}, why), device_(device) {}

HostAccount& HostAccount::of(const DeviceId& device) {
  // Never destroyed: tensors may be freed while the program's own objects are taken down.
  static auto& mutex = *new std::mutex;
  static auto& accounts = *new std::map<DeviceId, std::unique_ptr<HostAccount>>;
  const std::lock_guard lock(mutex);
  std::unique_ptr<HostAccount>& account = accounts[device];
  if (!account) account.reset(new HostAccount(device));
  return *account;
}

void HostAccount::charge(std::uint64_t bytes) {
  const std::uint64_t limit = limit_;
  std::uint64_t held = current_;
  do {
    if (held > limit || bytes > limit - held)
      throw HostOutOfMemory(device_, fmt::format("tried to allocate {}, with {} of {} in use", bytes_text(bytes),
                                                 bytes_text(held), bytes_text(limit)));
  } while (!current_.compare_exchange_weak(held, held + bytes));
  raise_peak(held + bytes);
}

void HostAccount::release(std::uint64_t bytes) noexcept {
  current_ -= bytes;
}

void HostAccount::reset_peak() {
  // A charge after this store raises the peak again; one before it is in current_, unless it is over by now.
  peak_ = 0;
  raise_peak(current_);
}

void HostAccount::raise_peak(std::uint64_t bytes) {
  std::uint64_t highest = peak_;
  while (highest < bytes && !peak_.compare_exchange_weak(highest, bytes)) {
  }
}

HostDeviceScope::HostDeviceScope(const DeviceId& device) : outer_(current_account) {
  current_account = device.is_cuda() ? nullptr : &HostAccount::of(device);
}

HostDeviceScope::HostDeviceScope() : outer_(current_account) {
  current_account = nullptr;
}

HostDeviceScope::~HostDeviceScope() {
  current_account = outer_;
}

HostCharge::HostCharge(std::uint64_t bytes) : account_(current_account), bytes_(bytes) {
  if (account_) account_->charge(bytes);
}

HostCharge::~HostCharge() {
  if (account_) account_->release(bytes_);
}

}  // namespace mgpu
