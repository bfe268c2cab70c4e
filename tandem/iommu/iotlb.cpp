// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/iotlb.hpp"

namespace tandem::iommu::detail {
Iotlb::Iotlb() : entries_(std::make_unique<std::array<Entry, kEntries>>()) {}

std::size_t Iotlb::process_index(std::uint64_t device, std::uint64_t process) noexcept {
  return mix(device << kPasidBits | process) % kCounters;
}

std::size_t Iotlb::guest_index(std::optional<std::uint32_t> gscid) noexcept {
  return gscid ? 1 + *gscid % (kCounters - 1) : 0;
}

std::size_t Iotlb::space_index(AddressSpaceId space) noexcept {
  if (!space.gscid) return space.pscid % kCounters;
  return mix((std::uint64_t{*space.gscid} << kPasidBits | space.pscid) + 1) % kCounters;
}

std::size_t Iotlb::address_index(AddressSpaceId space, unsigned size_class, Iova at) noexcept {
  const std::uint64_t whose = std::uint64_t{guest_index(space.gscid)} << kPasidBits | space.pscid;
  return mix((at.value >> kClassShift[size_class]) * 31 + (whose << 3 | size_class)) % kCounters;
}

unsigned Iotlb::class_of(unsigned log2_size) noexcept {
  unsigned size_class = 0;
  while (size_class + 1 < kClassShift.size() && kClassShift[size_class + 1] <= log2_size) {
    ++size_class;
  }
  return size_class;
}

void Iotlb::fill(std::uint64_t epoch, IotlbContext context, AddressSpaceId space, Iova at,
                 const Translation& translation, unsigned leaf_log2_size) noexcept {
  const unsigned size_class = class_of(translation.log2_size);
  const std::uint64_t key = context.word | IotlbContext::SizeClass::make(size_class);
  const std::uint64_t page = at.value >> kClassShift[size_class];
  const std::uint64_t which =
      Which::Process::make(process_index(IotlbContext::Device::get(context.word),
                                         IotlbContext::Process::get(context.word))) |
      Which::Guest::make(guest_index(space.gscid)) | Which::Space::make(space_index(space)) |
      Which::Address::make(address_index(space, class_of(leaf_log2_size), at));
  const std::uint64_t offset_mask = (std::uint64_t{1} << translation.log2_size) - 1;
  const std::uint64_t data =
      Data::Ppn::make((translation.address.value & ~offset_mask) >> kPageShift) |
      Data::Readable::make(translation.readable) | Data::Writable::make(translation.writable) |
      Data::Executable::make(translation.executable) | Data::Global::make(translation.global) |
      Data::Log2Size::make(translation.log2_size) |
      Data::Type::make(static_cast<std::uint64_t>(translation.memory_type)) |
      Data::Msi::make(translation.msi);

  const std::uint64_t made = stamp(which);                      // (F3)
  if (epoch_.load(std::memory_order_acquire) != epoch) return;  // (F4)

  Entry& target = entry(key, page);
  std::uint64_t sequence = target.sequence.load(std::memory_order_relaxed);
  if ((sequence & 1) != 0 ||
      !target.sequence.compare_exchange_strong(sequence, sequence + 1, std::memory_order_acquire,
                                               std::memory_order_relaxed)) {
    return;  // another filler is at work
  }
  target.context.store(key, std::memory_order_release);  // (B) keeps the odd number before it
  target.page.store(page, std::memory_order_release);
  target.data.store(data, std::memory_order_release);
  target.stamp.store(made, std::memory_order_release);
  target.counters.store(which, std::memory_order_release);
  target.sequence.store(sequence + 2, std::memory_order_release);

  const std::uint32_t bit = std::uint32_t{1} << size_class;
  if ((classes_.load(std::memory_order_relaxed) & bit) == 0) {
    classes_.fetch_or(bit, std::memory_order_relaxed);
  }
}

void Iotlb::raise(Counter& counter) noexcept {
  epoch_.fetch_add(1, std::memory_order_acq_rel);   // (I1)
  counter.fetch_add(1, std::memory_order_acq_rel);  // (I2)
}

void Iotlb::invalidate_all() noexcept { raise(everything_); }

void Iotlb::invalidate_process(DeviceId device, std::uint32_t process) noexcept {
  raise(process_[process_index(device.value, process)]);
}

void Iotlb::invalidate_guest(std::uint32_t gscid) noexcept { raise(guest_[guest_index(gscid)]); }

void Iotlb::invalidate_address_space(AddressSpaceId space) noexcept {
  raise(space_[space_index(space)]);
}

void Iotlb::invalidate_address(AddressSpaceId space, Iova at) noexcept {
  for (unsigned size_class = 0; size_class < kClassShift.size(); ++size_class) {
    raise(address_[address_index(space, size_class, at)]);
  }
}

}  // namespace tandem::iommu::detail
