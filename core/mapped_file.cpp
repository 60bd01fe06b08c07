#include "core/mapped_file.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>

namespace mgpu {

/// One mapping, as the handler knows it. `begin` is set last and cleared first; 0: free.
struct MappedFile::Slot {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<int> descriptor{-1};
  std::atomic<bool> damaged{false};
};

namespace {

using Slot = MappedFile::Slot;

/// The table of mappings: it grows by pieces that are never freed, so that the handler can walk it at any time.
struct Piece {
  std::array<Slot, 128> slots;
  std::atomic<Piece*> next{nullptr};
};

Piece mappings;
std::mutex mappings_mutex;  // of who writes
std::uintptr_t page_bytes = 4096;
struct sigaction outer_action {};

Slot* slot_of(std::uintptr_t address) {
  for (Piece* piece = &mappings; piece; piece = piece->next.load(std::memory_order_acquire)) {
    for (Slot& slot : piece->slots) {
      const std::uintptr_t begin = slot.begin.load(std::memory_order_acquire);
      if (begin != 0 && address >= begin && address < slot.end.load(std::memory_order_relaxed)) return &slot;
    }
  }
  return nullptr;
}

/// Puts zeros where the file has no bytes: from the page at fault to the end where the file was cut, else that page
/// alone (a disk that fails). Only calls that a handler may make, mmap among them, which is a bare system call.
bool fill_with_zeros(Slot& slot, std::uintptr_t address) {
  std::uintptr_t first = address / page_bytes * page_bytes;
  std::uintptr_t last = first + page_bytes;
  struct stat info {};
  if (::fstat(slot.descriptor.load(), &info) == 0) {
    const auto held = static_cast<std::uintptr_t>(info.st_size);
    if (slot.begin.load() + held <= first) last = slot.end.load();
  }
  void* const place = reinterpret_cast<void*>(first);
  slot.damaged = true;
  return ::mmap(place, last - first, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place;
}

extern "C" void mend_mapping(int, siginfo_t* info, void*) {
  const int fault = errno;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  Slot* slot = info->si_code > 0 ? slot_of(address) : nullptr;  // 0 or less: sent by a process
  if (!slot || !fill_with_zeros(*slot, address)) {
    ::sigaction(SIGBUS, &outer_action, nullptr);
    if (info->si_code <= 0) ::raise(SIGBUS);  // a fault comes again by itself
  }
  errno = fault;
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    page_bytes = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    sigemptyset(&action.sa_mask);
    action.sa_sigaction = mend_mapping;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    ::sigaction(SIGBUS, &action, &outer_action);
  });
}

Slot* enter(const void* data, std::uint64_t bytes, int descriptor) {
  const std::lock_guard lock(mappings_mutex);
  for (Piece* piece = &mappings;; piece = piece->next.load()) {
    for (Slot& slot : piece->slots) {
      if (slot.begin.load() != 0) continue;
      const auto begin = reinterpret_cast<std::uintptr_t>(data);
      slot.damaged = false;
      slot.descriptor = descriptor;
      slot.end = begin + (bytes + page_bytes - 1) / page_bytes * page_bytes;
      slot.begin.store(begin, std::memory_order_release);
      return &slot;
    }
    if (!piece->next.load()) piece->next.store(new Piece, std::memory_order_release);
  }
}

}  // namespace

FileChanged::FileChanged(const std::string& path, const std::string& how)
    : Error(Exit::ImageFailed, Mark{path}, fmt::format("{} while the job used it", how),
            "run the job again with --resume once the file is whole; put a new file in its place by rename (mv)") {}

MappedFile::MappedFile(std::string path, int descriptor, std::uint64_t bytes)
    : path_(std::move(path)), descriptor_(descriptor), bytes_(bytes) {
  install_handler();
  struct stat info {};
  void* map =
      ::fstat(descriptor_, &info) == 0 ? ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor_, 0) : MAP_FAILED;
  if (map == MAP_FAILED) {
    const int fault = errno;
    ::close(descriptor_);
    fail_file(path_, fmt::format("cannot be mapped into memory: {}", std::strerror(fault)));
  }
  data_ = static_cast<const std::byte*>(map);
  seconds_ = info.st_mtim.tv_sec;
  nanoseconds_ = info.st_mtim.tv_nsec;
  try {
    slot_ = enter(data_, bytes_, descriptor_);
  } catch (...) {
    unmap();
    throw;
  }
}

MappedFile::~MappedFile() {
  unmap();
}

void MappedFile::unmap() {
  if (slot_) slot_->begin.store(0, std::memory_order_release);
  ::munmap(const_cast<std::byte*>(data_), bytes_);
  ::close(descriptor_);
}

std::string MappedFile::damage() const {
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0) return fmt::format("cannot be looked at any more: {}", std::strerror(errno));
  const auto now = static_cast<std::uint64_t>(info.st_size);
  if (now < bytes_) return fmt::format("was cut from {} to {} bytes", bytes_, now);
  if (now > bytes_) return fmt::format("grew from {} to {} bytes", bytes_, now);
  if (info.st_mtim.tv_sec != seconds_ || info.st_mtim.tv_nsec != nanoseconds_) return "was written to";
  if (slot_->damaged) return "could not be read everywhere: the disk or the network failed";
  return {};
}

void MappedFile::check() const {
  if (const std::string what = damage(); !what.empty()) throw FileChanged(path_, what);
}

}  // namespace mgpu
