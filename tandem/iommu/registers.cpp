// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/state.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu {
namespace {

constexpr std::uint64_t kLow = 0xffff'ffff;

/// Whether an 8-byte register starts at `offset`.
bool is_wide(std::uint32_t offset) {
  switch (offset) {
    case reg::kCapabilities:
    case reg::kDdtp:
    case reg::kCqb:
    case reg::kFqb:
    case reg::kPqb:
    case reg::kIcvec:
      return true;
    default:
      return false;
  }
}

bool access_ok(std::uint32_t offset, unsigned size_bytes) {
  return (size_bytes == 4 || size_bytes == 8) && offset % size_bytes == 0 &&
         offset <= reg::kFileBytes - size_bytes;
}

/// Registers that are there only with ATS. Spec: §6.1 "Register layout".
bool serves_page_requests(std::uint32_t offset) {
  switch (offset & ~std::uint32_t{3}) {
    case reg::kPqb:
    case reg::kPqb + 4:
    case reg::kPqh:
    case reg::kPqt:
    case reg::kPqcsr:
      return true;
    default:
      return false;
  }
}

bool mode_exists(std::uint64_t mode) {
  return mode <= static_cast<std::uint64_t>(Ddtp::ModeValue::k3Lvl);
}

}  // namespace

std::uint32_t Iommu::State::ipsr() const {
  return static_cast<std::uint32_t>(Ipsr::Cip::make(commands.pending()) |
                                    Ipsr::Fip::make(faults.pending()) |
                                    Ipsr::Pip::make(page_requests.pending()));
}

/// Spec: §6.18 "Interrupt pending status register (ipsr)".
void Iommu::State::write_ipsr(std::uint32_t value) {
  if (Ipsr::Cip::get(value) != 0) raise_if(commands.clear_pending(), Interrupt::kCommandQueue);
  if (Ipsr::Fip::get(value) != 0) raise_if(faults.clear_pending(), Interrupt::kFaultQueue);
  if (Ipsr::Pip::get(value) != 0) {
    raise_if(page_requests.clear_pending(), Interrupt::kPageRequestQueue);
  }
}

/// Spec: §6.5 "Device-directory-table pointer (ddtp)". A reserved mode leaves the mode as it is.
void Iommu::State::write_ddtp(std::uint64_t value) {
  bool turned_off = false;
  {
    const MutexLock lock(ddtp_mutex);
    const std::uint64_t old = ddtp.load(std::memory_order_relaxed);
    std::uint64_t next = value & (Ddtp::Mode::kMask | Ddtp::Ppn::kMask);
    if (!mode_exists(Ddtp::Mode::get(value))) {
      next = Ddtp::Mode::set(next, Ddtp::Mode::get(old));
    }
    ddtp.store(next, std::memory_order_release);
    iotlb.invalidate_all();
    constexpr auto kOff = static_cast<std::uint64_t>(Ddtp::ModeValue::kOff);
    turned_off = Ddtp::Mode::get(next) == kOff && Ddtp::Mode::get(old) != kOff;
  }
  // Off promises that transactions seen before have been processed.
  if (turned_off) rcu::rcu_synchronize();
}

bool Iommu::State::exists(std::uint32_t offset) const {
  return config.has<Capabilities::Ats>() || !serves_page_requests(offset);
}

std::uint64_t Iommu::State::read64(std::uint32_t offset) const {
  if (!exists(offset)) return 0;
  switch (offset) {
    case reg::kCapabilities:
      return config.capabilities;
    case reg::kDdtp:
      return ddtp.load(std::memory_order_acquire);
    case reg::kCqb:
      return commands.base();
    case reg::kFqb:
      return faults.base();
    case reg::kPqb:
      return page_requests.base();
    default:  // icvec too: there is one vector, and every cause has it
      return 0;
  }
}

std::uint32_t Iommu::State::read32(std::uint32_t offset) const {
  if (!exists(offset)) return 0;
  const std::uint32_t wide = offset & ~std::uint32_t{7};
  if (is_wide(wide)) {
    const std::uint64_t value = read64(wide);
    return static_cast<std::uint32_t>(offset == wide ? value & kLow : value >> 32);
  }
  switch (offset) {
    case reg::kFctl:
      return config.fctl.load(std::memory_order_acquire);
    case reg::kCqh:
      return commands.head();
    case reg::kCqt:
      return commands.tail();
    case reg::kFqh:
      return faults.head();
    case reg::kFqt:
      return faults.tail();
    case reg::kPqh:
      return page_requests.head();
    case reg::kPqt:
      return page_requests.tail();
    case reg::kCqcsr:
      return commands.csr();
    case reg::kFqcsr:
      return faults.csr();
    case reg::kPqcsr:
      return page_requests.csr();
    case reg::kIpsr:
      return ipsr();
    default:
      return 0;
  }
}

void Iommu::State::write64(std::uint32_t offset, std::uint64_t value) {
  if (!exists(offset)) return;
  switch (offset) {
    case reg::kDdtp:
      return write_ddtp(value);
    case reg::kCqb:
      return commands.write_base(value);
    case reg::kFqb:
      return faults.write_base(value);
    case reg::kPqb:
      return page_requests.write_base(value);
    default:  // capabilities, icvec
      return;
  }
}

void Iommu::State::write32(std::uint32_t offset, std::uint32_t value) {
  if (!exists(offset)) return;
  const std::uint32_t wide = offset & ~std::uint32_t{7};
  if (is_wide(wide)) {
    const std::uint64_t old = read64(wide);
    return write64(
        wide, offset == wide ? (old & ~kLow) | value : (old & kLow) | std::uint64_t{value} << 32);
  }
  switch (offset) {
    case reg::kCqt:
      return raise_if(commands.write_tail(value), Interrupt::kCommandQueue);
    case reg::kFqh:
      return faults.write_head(value);
    case reg::kPqh:
      return page_requests.write_head(value);
    case reg::kCqcsr:
      return raise_if(commands.write_csr(value), Interrupt::kCommandQueue);
    case reg::kFqcsr:
      return raise_if(faults.write_csr(value), Interrupt::kFaultQueue);
    case reg::kPqcsr:
      return raise_if(page_requests.write_csr(value), Interrupt::kPageRequestQueue);
    case reg::kIpsr:
      return write_ipsr(value);
    default:
      return;
  }
}

/// Spec: §6 "Memory-mapped register interface": eight bytes that are not one register are two
/// accesses, the high half first.
std::uint64_t Iommu::mmio_read(std::uint32_t offset, unsigned size_bytes) {
  if (!access_ok(offset, size_bytes)) return 0;
  if (state_->commands.waits()) advance();  // somebody polls for a command
  if (size_bytes == 4) return state_->read32(offset);
  if (is_wide(offset)) return state_->read64(offset);
  const std::uint64_t high = state_->read32(offset + 4);
  return high << 32 | state_->read32(offset);
}

void Iommu::mmio_write(std::uint32_t offset, std::uint64_t value, unsigned size_bytes) {
  if (!access_ok(offset, size_bytes)) return;
  if (size_bytes == 4) return state_->write32(offset, static_cast<std::uint32_t>(value));
  if (is_wide(offset)) return state_->write64(offset, value);
  state_->write32(offset + 4, static_cast<std::uint32_t>(value >> 32));
  state_->write32(offset, static_cast<std::uint32_t>(value));
}

}  // namespace tandem::iommu
