// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/mrif.hpp"

#include <span>
#include <thread>

#include "tandem/base/planted_fault.hpp"
#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {
namespace detail {

bool store_message(const memory::Memory& memory, PhysAddr at, std::uint32_t data) {
  const auto stored = memory.store32(at, data, std::memory_order_release);
  if (stored) return true;
  if (stored.error() != memory::Fault::kMisaligned) return false;
  // `at` is aligned: it is not host RAM.
  return memory.write(at, std::as_bytes(std::span(&data, 1))).ok();
}

Result<void, memory::Fault> set_pending(const memory::Memory& memory, const Mrif& mrif,
                                        std::uint32_t identity) {
  const PhysAddr at = mrif.file.plus(MrifLayout::pending_offset(identity));
  const std::uint64_t bit = MrifLayout::pending_bit(identity);
  if (planted_fault("iommu-mrif-plain-store")) {
    const auto loaded = memory.load64(at, std::memory_order_acquire);
    if (!loaded) return Unexpected{loaded.error()};
    std::this_thread::yield();
    return memory.store64(at, *loaded | bit, std::memory_order_release);
  }
  return memory.set_bits64(at, bit);
}

}  // namespace detail

Result<bool, Cause> Port::store_msi_in_section(const Mrif& mrif, Iova at, std::uint32_t data) {
  if (at.value % sizeof data != 0) return Unexpected{Cause::kWriteAddressMisaligned};
  if (at.value % kPageBytes != 0 || data >= MrifLayout::kIdentities) return false;
  if (const auto stored = detail::set_pending(memory(), mrif, data); !stored) {
    return Unexpected{
        detail::load_cause(stored.error(), Cause::kMrifAccessFault, Cause::kMsiMrifCorrupt)};
  }
  return true;
}

void Port::finish_msi(const Requester& requester, const Mrif& mrif, Iova at,
                      const Result<bool, Cause>& stored) {
  Iommu::State& state = *iommu_.state_;
  if (stored) {
    if (*stored) state.store_message(mrif.notice, mrif.notice_data);
  } else if (stored.error() != Cause::kWriteAddressMisaligned) {
    state.report({stored.error(), mrif.hides_faults, 0}, TransactionType::kUntranslatedWrite, id_,
                 requester, at.value);
  }
}

Result<void, Cause> Port::write_msi(const Requester& requester, const Mrif& mrif, Iova at,
                                    std::uint32_t data) {
  const auto stored = store_msi_in_section(mrif, at, data);
  finish_msi(requester, mrif, at, stored);
  if (!stored) return Unexpected{stored.error()};
  return {};
}

}  // namespace tandem::iommu
