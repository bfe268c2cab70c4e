// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

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

  std::optional<ExtendedDeviceContext> find_device(DeviceId device) const noexcept;
  void fill_device(DeviceId device, const ExtendedDeviceContext& context,
                   const Generations::Stamp& stamp) noexcept;

  std::optional<ProcessContext> find_process(DeviceId device, std::uint32_t process) const noexcept;
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

}  // namespace tandem::iommu::detail
