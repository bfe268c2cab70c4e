// SPDX-License-Identifier: Apache-2.0
/// The physical range behind which lies the ordinary memory of processes.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/memory/memory.hpp"
#include "tandem/rcu/index_map.hpp"
#include "tandem/uacce/detail/client_memory.hpp"
#include "tandem/uacce/detail/table_memory.hpp"

namespace tandem::uacce::detail {

/// Which aperture window: the GiB at kApertureBase + number GiB.
enum class WindowNumber : std::uint32_t {};

/// The upper half of physical space in windows of 1 GiB, each onto one aligned GiB of one process,
/// so that superpages keep their alignment.
///
/// An access finds its window in a reader section, takes a reference on the process's memory and
/// leaves the section before it touches it, since that may block. Between a translation and the
/// look-up here nothing protects a device's access: a number may be reused only when nobody can
/// still use a translation to it (Mm::unbind() says who ensures that), and then only after
/// kReuseAfter, oldest first. When a space that lives on gives up windows, that time alone ensures
/// it: a device accesses right after it has translated.
///
/// Thread safety: any thread.
class Aperture final : public memory::IoRegion {
 public:
  static constexpr unsigned kWindowShift = 30;
  static constexpr std::uint64_t kWindowBytes = std::uint64_t{1} << kWindowShift;

  Aperture() = default;
  ~Aperture() override;

  /// A window onto [address, address + 1 GiB) of `client`. Errors: ENOSPC, ENOMEM.
  Result<WindowNumber> open(std::shared_ptr<ClientMemory> client, std::uint64_t address);
  /// Ends windows: later accesses are refused. `reuse` false: the numbers are not given to anyone
  /// until they are closed again with true.
  void close(std::span<const WindowNumber> windows, bool reuse);

  static memory::PhysAddr base_of(WindowNumber window) {
    return kApertureBase.plus(static_cast<std::uint64_t>(window) << kWindowShift);
  }

  /// Each access asks for the process's mapping, and Mm::unbind() waits for those under way.
  bool looks_after_accesses() const override { return true; }
  memory::Outcome read(std::uint64_t offset, std::span<std::byte> to) override;
  memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override;

 private:
  static constexpr std::uint64_t kWindows =
      (kApertureEnd.value - kApertureBase.value) >> kWindowShift;
  static constexpr std::chrono::seconds kReuseAfter{10};

  struct Window {
    std::shared_ptr<ClientMemory> client;
    std::uint64_t address;
  };
  struct Freed {
    std::uint32_t number;
    std::chrono::steady_clock::time_point since;
  };

  Result<std::uint32_t> take_number_locked() TANDEM_REQUIRES(mutex_);
  /// The window that holds `offset`; its client is null when there is none.
  Window find(std::uint64_t offset);
  template <class Copy>
  memory::Outcome each_window(std::uint64_t offset, std::size_t length, Copy copy);

  Mutex mutex_;
  std::uint32_t fresh_ TANDEM_GUARDED_BY(mutex_) = 0;
  std::deque<Freed> freed_ TANDEM_GUARDED_BY(mutex_);
  rcu::index_map<const Window> windows_;  // owning
};

}  // namespace tandem::uacce::detail
