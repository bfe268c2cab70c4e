// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "tandem/base/planted_fault.hpp"
#include "tandem/base/seqlock.hpp"
#include "tandem/iommu/detail/generations.hpp"
#include "tandem/iommu/detail/lazy_array.hpp"
#include "tandem/iommu/spec.hpp"

namespace tandem::iommu::detail {

/// The caches of device contexts and process contexts that have passed their checks.
///
/// Each context sits in the one entry that its device, or device and process, selects. What is
/// invalidated stays where it is: its stamp does not hold any more. Thread safety: any thread;
/// lock-free, wait-free.
class ContextCache {
 public:
  explicit ContextCache(const Generations& generations) : generations_(generations) {}

  /// Each: whether it is cached; `to` is it then, and otherwise anything. (Word by word into where
  /// it is used: a copy of words that were stored singly waits for them.)
  bool find_device(DeviceId device, ExtendedDeviceContext& to) const noexcept;
  void fill_device(DeviceId device, const ExtendedDeviceContext& context,
                   const Generations::Stamp& stamp) noexcept;

  bool find_process(DeviceId device, std::uint32_t process, ProcessContext& to) const noexcept;
  void fill_process(DeviceId device, std::uint32_t process, const ProcessContext& context,
                    const Generations::Stamp& stamp) noexcept;

 private:
  static constexpr std::size_t kDevices = std::size_t{1} << 14;
  static constexpr std::size_t kProcesses = std::size_t{1} << kLog2CacheEntries;

  using Key = std::uint64_t;  // never 0
  static Key key_of(DeviceId device) { return std::uint64_t{1} << 63 | device.value; }
  static Key key_of(DeviceId device, std::uint32_t process) {
    return std::uint64_t{1} << 63 | std::uint64_t{device.value} << kPasidBits | process;
  }

  /// Key, stamp, and the context's words but the last, which is reserved.
  using DeviceEntry = Seqlock<10>;
  using ProcessEntry = Seqlock<5>;

  DeviceEntry& entry_of(DeviceId device) const noexcept {
    return devices_[device.value % kDevices];
  }
  ProcessEntry& entry_of(DeviceId device, std::uint32_t process) const noexcept {
    return processes_[(process + device.value * kGolden) % kProcesses];
  }

  const Generations& generations_;
  LazyArray<DeviceEntry, kDevices> devices_;
  LazyArray<ProcessEntry, kProcesses> processes_;
};
// Look-ups, inline: every miss of the IOTLB makes them.

[[gnu::always_inline]] inline bool ContextCache::find_device(
    DeviceId device, ExtendedDeviceContext& to) const noexcept {
  DeviceEntry& entry = entry_of(device);
  const std::uint64_t begun = entry.begin();
  if (entry.word(0) != key_of(device)) return false;
  const Generations::Stamp stamp{entry.word(1), entry.word(2)};
  to.tc = entry.word(3);
  to.iohgatp = entry.word(4);
  to.ta = entry.word(5);
  to.fsc = entry.word(6);
  to.msiptp = entry.word(7);
  to.msi_addr_mask = entry.word(8);
  to.msi_addr_pattern = entry.word(9);
  if (!entry.ended(begun)) return false;
  return generations_.holds(stamp) || planted_fault("iommu-stale-device");
}

[[gnu::always_inline]] inline bool ContextCache::find_process(DeviceId device,
                                                              std::uint32_t process,
                                                              ProcessContext& to) const noexcept {
  ProcessEntry& entry = entry_of(device, process);
  const std::uint64_t begun = entry.begin();
  if (entry.word(0) != key_of(device, process)) return false;
  const Generations::Stamp stamp{entry.word(1), entry.word(2)};
  to.ta = entry.word(3);
  to.fsc = entry.word(4);
  if (!entry.ended(begun)) return false;
  return generations_.holds(stamp) || planted_fault("iommu-stale-context");
}

}  // namespace tandem::iommu::detail
