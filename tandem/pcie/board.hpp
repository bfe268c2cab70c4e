// SPDX-License-Identifier: Apache-2.0
/// A board: memory, an IOMMU before it, and a bus of functions, wired together.
///
/// Software sees it through memory alone: RAM, the IOMMU's registers, a window onto the functions'
/// configuration spaces (ECAM), and the functions' BARs where it places them. So a program that
/// plays the guest needs nothing but reads and writes of Board::memory(), and a device model
/// nothing but the Endpoint that plug() gives it.
///
///     auto board = pcie::Board::create().value();
///     pcie::Endpoint& device = board->plug({.device = 3}, options).value();
///     … software finds it, enables it and programs the IOMMU, all in memory …
///     device.space(pasid).read(address, buffer);
///
/// Every function is an integrated endpoint: there are no bridges and no links.
///
/// Time: what the IOMMU does when time has passed, the time-out of an ATS invalidation say, it does
/// on a thread of the board (Iommu::next_deadline()), which exists once something was to be waited
/// for. So a guest that sleeps until it is interrupted is interrupted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "tandem/base/mapping.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/base/result.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/memory/memory.hpp"
#include "tandem/pcie/pcie.hpp"

namespace tandem::pcie {

namespace detail {
class Alarm;
}

/// Where a function is.
struct Bdf {
  std::uint8_t bus = 0;
  std::uint8_t device = 0;    ///< below 32
  std::uint8_t function = 0;  ///< below 8

  /// The Requester ID, by which the IOMMU knows it.
  constexpr DeviceId id() const {
    return {static_cast<std::uint32_t>(bus << 8 | device << 3 | function)};
  }
  static constexpr Bdf of(DeviceId id) {
    return {static_cast<std::uint8_t>(id.value >> 8),
            static_cast<std::uint8_t>(id.value >> 3 & 0x1f),
            static_cast<std::uint8_t>(id.value & 7)};
  }
};

class Board {
 public:
  /// Where software finds what. The ranges must not overlap.
  struct Options {
    memory::PhysAddr ram{0x8000'0000};
    std::uint64_t ram_bytes = std::uint64_t{64} << 20;
    memory::PhysAddr iommu_registers{0x0300'0000};  ///< 4 KiB
    memory::PhysAddr configuration{0x3000'0000};    ///< 1 MiB for each bus
    unsigned buses = 1;                             ///< at most 256
    iommu::Iommu::Options iommu = {};
  };

  /// Errors: those of mmap() and of Memory::add_host_ram(); EINVAL when there are too many buses.
  static Result<std::unique_ptr<Board>> create(Options options);
  static Result<std::unique_ptr<Board>> create() { return create(Options()); }
  ~Board();
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;

  memory::Memory& memory() { return memory_; }
  iommu::Iommu& iommu() { return *iommu_; }
  /// The RAM, for who looks at it without going through memory().
  std::span<std::byte> ram() const { return ram_.bytes(); }

  /// Puts a function into a slot. Its BARs appear in memory() unless the options name another one.
  /// Ownership: the board's; good until unplug().
  /// Errors:    EEXIST when the slot is taken; EINVAL when there is no such slot, and those of
  ///            Endpoint::create().
  Result<std::reference_wrapper<Endpoint>> plug(Bdf slot, Endpoint::Options options);
  /// Resets the function and takes it out; nobody begins to use the endpoint any more. Waits for
  /// configuration accesses to it, and as a reset does for windows and I/O accesses.
  /// Errors: ENOENT; EBUSY when these lasted longer than Endpoint::Options::reset_timeout: it is
  ///         still there, disabled.
  Result<void> unplug(Bdf slot);

  /// The configuration space of the function in `slot`, as Endpoint::config_read() and
  /// config_write(); where there is none, reads give ones. The same through memory():
  /// config_address().
  std::uint32_t config_read(Bdf slot, std::uint32_t offset, unsigned size_bytes) const;
  void config_write(Bdf slot, std::uint32_t offset, std::uint32_t value, unsigned size_bytes);
  /// Spec: PCI Express Base Specification, "PCI Express Enhanced Configuration Access Mechanism".
  memory::PhysAddr config_address(Bdf slot, std::uint32_t offset) const {
    return options_.configuration.plus(std::uint64_t{slot.id().value} << 12 | offset);
  }

 private:
  explicit Board(const Options& options);
  Result<void> wire();
  std::optional<iommu::Iommu::TimePoint> let_time_pass();
  std::shared_ptr<Endpoint> find(Bdf slot) const;

  const Options options_;
  const std::unique_ptr<detail::Alarm> alarm_;  // before the IOMMU, which sets it
  Mapping ram_;
  memory::Memory memory_;
  std::unique_ptr<iommu::Iommu> iommu_;
  mutable Mutex mutex_;
  std::map<DeviceId, std::shared_ptr<Endpoint>> functions_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::pcie
