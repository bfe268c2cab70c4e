// SPDX-License-Identifier: Apache-2.0
/// The peer of the iommu benchmarks: an IOTLB as emulators build it.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace tandem::bench {

/// One mutex and a hash map from (device, PASID, page) to address and permissions. Written for this
/// benchmark: it is nobody's code, but the shape of what emulators have.
class MutexIotlb {
 public:
  struct Key {
    std::uint32_t device = 0;
    std::uint32_t pasid = 0;
    std::uint64_t page = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Entry {
    std::uint64_t address = 0;
    bool readable = false;
    bool writable = false;
  };

  void fill(const Key& key, const Entry& entry) {
    const std::scoped_lock lock(mutex_);
    entries_[key] = entry;
  }
  std::optional<std::uint64_t> translate(std::uint32_t device, std::uint32_t pasid,
                                         std::uint64_t at, bool write) {
    const std::scoped_lock lock(mutex_);
    const auto found = entries_.find({device, pasid, at >> 12});
    if (found == entries_.end()) return std::nullopt;
    const Entry& entry = found->second;
    if (write ? !entry.writable : !entry.readable) return std::nullopt;
    return entry.address | (at & 0xfff);
  }

 private:
  struct Hash {
    std::size_t operator()(const Key& key) const {
      return (key.page ^ std::uint64_t{key.pasid} << 20 ^ std::uint64_t{key.device} << 40) *
             0x9e37'79b9'7f4a'7c15;
    }
  };
  std::mutex mutex_;
  std::unordered_map<Key, Entry, Hash> entries_;
};

}  // namespace tandem::bench
