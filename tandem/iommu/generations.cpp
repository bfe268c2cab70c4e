// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/generations.hpp"

#include <chrono>
#include <thread>

#include "tandem/base/planted_fault.hpp"

namespace tandem::iommu::detail {

unsigned page_class(unsigned log2_size) noexcept {
  unsigned found = 0;
  while (found + 1 < kPageClasses.size() && kPageClasses[found + 1] <= log2_size) ++found;
  return found;
}

std::uint64_t Generations::device_index(DeviceId device) noexcept {
  return 1 + mix(device.value) % kDevices;
}

std::uint64_t Generations::process_index(DeviceId device, std::uint32_t process) noexcept {
  return 1 + mix(std::uint64_t{device.value} << kPasidBits | process) % kOthers;
}

std::uint64_t Generations::domain_index(std::optional<std::uint32_t> gscid) noexcept {
  return gscid ? 2 + *gscid % (kDomains - 1) : 1;
}

std::uint64_t Generations::space_index(std::uint64_t space_key) noexcept {
  return 1 + mix(space_key) % kOthers;
}

void Generations::raise(Counter& counter) noexcept {
  if (planted_fault("iommu-skip-generation")) return;
  counter.fetch_add(1, std::memory_order_acq_rel);  // (I)
}

void Generations::invalidate_all() noexcept {
  for (std::size_t i = 1; i < device_.size(); ++i) raise(device_[i]);
}

void Generations::invalidate_device(DeviceId device) noexcept {
  raise(device_[device_index(device)]);
}

void Generations::invalidate_process(DeviceId device, std::uint32_t process) noexcept {
  raise(process_[process_index(device, process)]);
}

void Generations::invalidate_domain(std::optional<std::uint32_t> gscid) noexcept {
  raise(domain_[domain_index(gscid)]);
}

void Generations::invalidate_all_guests() noexcept {
  for (std::size_t i = domain_index(0); i < domain_.size(); ++i) raise(domain_[i]);
}

void Generations::invalidate_address_space(AddressSpaceId space) noexcept {
  raise(space_[space_index(space_key(space))]);
}

void Generations::invalidate_range(AddressSpaceId space, Iova at, unsigned log2_size) noexcept {
  // Beyond this the address space as a whole is cheaper, for who invalidates and for who caches.
  constexpr unsigned kMostLog2Pages = 5;
  if (log2_size > kPageClasses[0] + kMostLog2Pages) return invalidate_address_space(space);
  const std::uint64_t key = space_key(space);
  constexpr unsigned kClasses = kPageClasses.size();
  const bool smallest_first = planted_fault("iommu-raise-pages-first");
  for (unsigned i = 0; i < kClasses; ++i) {
    const unsigned page_class = smallest_first ? i : kClasses - 1 - i;
    if (smallest_first) std::this_thread::sleep_for(std::chrono::microseconds(20));
    const unsigned shift = kPageClasses[page_class];
    const std::uint64_t count = log2_size > shift ? std::uint64_t{1} << (log2_size - shift) : 1;
    const std::uint64_t first = (at.value >> shift) & ~(count - 1);
    for (std::uint64_t page = first; page < first + count; ++page) {
      raise(page_[page_index(key, page_class, page)]);
    }
  }
}

Generations::Snapshot::Snapshot(const Generations& generations, DeviceId device,
                                std::uint32_t process) noexcept
    : generations_(generations) {
  const std::uint64_t of_device = device_index(device);
  const std::uint64_t of_process = process_index(device, process);
  device_ = {Which::Device::make(of_device), load(generations.device_[of_device])};  // (F1)
  process_ = device_ + Stamp{Which::Process::make(of_process),
                             load(generations.process_[of_process])};  // (F1)
}

void Generations::Snapshot::add_domain(std::optional<std::uint32_t> gscid) noexcept {
  const std::uint64_t index = domain_index(gscid);
  process_ =
      process_ + Stamp{Which::Domain::make(index), load(generations_.domain_[index])};  // (F1)
}

void Generations::Snapshot::add_space(AddressSpaceId space, Iova at) noexcept {
  const std::uint64_t key = space_key(space);
  const std::uint64_t index = space_index(key);
  space_ = process_ + Stamp{Which::Space::make(index), load(generations_.space_[index])};  // (F1)
  for (unsigned i = 0; i < kPageClasses.size(); ++i) {
    const std::uint64_t page = page_index(key, i, at.value >> kPageClasses[i]);
    pages_[i] = Which::Page::make(page);
    page_sums_[i] = load(generations_.page_[page]);  // (F1)
  }
}

Generations::Stamp Generations::Snapshot::of_translation(unsigned leaf_log2_size) const noexcept {
  const unsigned leaf = page_class(leaf_log2_size);
  const Stamp stamp = space_ + Stamp{pages_[leaf], page_sums_[leaf]};
  if (planted_fault("iommu-late-stamp")) return generations_.late(stamp);
  return stamp;
}

Generations::Stamp Generations::LeafSnapshot::of_translation(
    unsigned leaf_log2_size) const noexcept {
  const unsigned leaf = page_class(leaf_log2_size);
  const Stamp stamp = above_ + Stamp{pages_[leaf], page_sums_[leaf]};
  if (planted_fault("iommu-late-leaf-stamp")) return generations_.late(stamp);
  return stamp;
}

Generations::Stamp Generations::late(const Stamp& stamp) const noexcept {
  std::this_thread::sleep_for(std::chrono::microseconds(20));
  return {stamp.which, sum_of(stamp.which)};
}

}  // namespace tandem::iommu::detail
