// SPDX-License-Identifier: Apache-2.0
// A DMA device to learn from: a BAR of registers, and an engine that copies inside the address
// space of the PASID that software names.
#pragma once

#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "tandem/pcie/pcie.hpp"

/// Registers, each of 8 bytes, by index. A write to kStart copies `kLength` bytes from `kFrom` to
/// `kTo`, both addresses of process `kPasid`, before it returns.
class Edu final : public tandem::memory::IoRegion {
 public:
  enum Register : std::uint64_t { kId, kPasid, kFrom, kTo, kLength, kStart, kStatus, kFault };
  enum Status : std::uint64_t { kIdle, kDone, kFaulted };
  static constexpr std::uint64_t kMagic = 0x0100'00ed;

  /// The board's endpoint for this device. Before software can find it.
  void connect(tandem::pcie::Endpoint& endpoint) { endpoint_ = &endpoint; }
  /// Function-level reset.
  void reset() {
    const std::lock_guard lock(mutex_);
    std::memset(registers_, 0, sizeof registers_);
  }

  tandem::memory::AccessSizes access_sizes() const override { return {8, 8, true}; }
  tandem::memory::Outcome read(std::uint64_t offset, std::span<std::byte> to) override {
    const std::lock_guard lock(mutex_);
    const std::uint64_t index = offset / 8;
    const std::uint64_t value = index == kId ? kMagic : index <= kFault ? registers_[index] : 0;
    std::memcpy(to.data(), &value, to.size());
    return {to.size(), tandem::memory::Fault::kNone};
  }
  tandem::memory::Outcome write(std::uint64_t offset, std::span<const std::byte> from) override {
    const std::uint64_t index = offset / 8;
    std::unique_lock lock(mutex_);
    if (index >= kPasid && index <= kLength) {
      std::memcpy(&registers_[index], from.data(), from.size());
    } else if (index == kStart) {
      const auto pasid = static_cast<std::uint32_t>(registers_[kPasid]);
      const std::uint64_t source = registers_[kFrom], target = registers_[kTo];
      std::vector<std::byte> buffer(registers_[kLength] % kLimit);
      lock.unlock();  // a DMA may wait for a page fault to be served
      const auto space = endpoint_->space(tandem::pcie::Pasid{pasid});
      auto result = space.read({source}, buffer);
      if (result.ok()) result = space.write({target}, buffer);
      lock.lock();
      registers_[kStatus] = result.ok() ? kDone : kFaulted;
      registers_[kFault] = result.ok() ? 0 : result.fault->address.value;
    }
    return {from.size(), tandem::memory::Fault::kNone};
  }

 private:
  static constexpr std::uint64_t kLimit = 1 << 20;
  tandem::pcie::Endpoint* endpoint_ = nullptr;
  std::mutex mutex_;
  std::uint64_t registers_[kFault + 1] = {};
};
