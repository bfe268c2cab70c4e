// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "tandem/iommu/detail/state.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::iommu {
namespace {

constexpr std::uint64_t kAll = ~std::uint64_t{0};
constexpr std::uint64_t kLow = 0xffff'ffff;

bool access_ok(std::uint32_t offset, unsigned size_bytes) {
  return (size_bytes == 4 || size_bytes == 8) && offset % size_bytes == 0 &&
         offset <= reg::kFileBytes - size_bytes;
}

bool mode_exists(std::uint64_t mode) {
  return mode <= static_cast<std::uint64_t>(Ddtp::ModeValue::k3Lvl);
}

}  // namespace

/// One register, or `count` alike that lie `stride` bytes apart.
struct Iommu::State::Register {
  std::uint32_t offset;
  unsigned bytes;
  std::uint64_t (*read)(State& state, unsigned i);
  /// `mask`: the bits that are written, all or one half of 8 bytes. None: read-only.
  void (*write)(State& state, unsigned i, std::uint64_t value, std::uint64_t mask) = nullptr;
  bool (*present)(const State& state, unsigned i) = nullptr;  ///< none: always
  unsigned count = 1;
  unsigned stride = 0;

  /// The register that holds the four bytes at `offset`; nullptr where none is.
  static const Register* find(std::uint32_t offset);
  unsigned index(std::uint32_t at) const { return stride == 0 ? 0 : (at - offset) / stride; }
  bool is_present(const State& state, std::uint32_t at) const {
    return present == nullptr || present(state, index(at));
  }
  template <class Capability>
  static bool has(const State& state, unsigned) {
    return state.config.has<Capability>();
  }
  static bool has_message(const State& state, unsigned vector) {
    return Capabilities::Igs::get(state.config.capabilities) != Capabilities::kIgsWsi &&
           state.interrupts.has_vector(vector);
  }
  static bool has_counter(const State& state, unsigned i) {
    return state.config.has<Capabilities::Hpm>() && i < state.config.options.counters;
  }

  static const Register kTable[];
};

/// Spec: §6.1 "Register layout".
constexpr Iommu::State::Register Iommu::State::Register::kTable[] = {
    {reg::kCapabilities, 8, [](State& s, unsigned) { return s.config.capabilities; }},
    {reg::kFctl, 4,
     [](State& s, unsigned) -> std::uint64_t {
       return s.config.fctl.load(std::memory_order_acquire);
     },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.write_fctl(static_cast<std::uint32_t>(value));
     }},
    {reg::kDdtp, 8, [](State& s, unsigned) { return s.read_ddtp(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       s.write_ddtp(value, mask);
     }},
    {reg::kCqb, 8, [](State& s, unsigned) { return s.commands.base(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       s.commands.write_base(value, mask);
     }},
    {reg::kCqh, 4, [](State& s, unsigned) -> std::uint64_t { return s.commands.head(); }},
    {reg::kCqt, 4, [](State& s, unsigned) -> std::uint64_t { return s.commands.tail(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.signal_if(s.commands.write_tail(static_cast<std::uint32_t>(value)),
                   Interrupt::kCommandQueue);
     }},
    {reg::kFqb, 8, [](State& s, unsigned) { return s.faults.base(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       s.faults.write_base(value, mask);
     }},
    {reg::kFqh, 4, [](State& s, unsigned) -> std::uint64_t { return s.faults.head(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.faults.write_head(static_cast<std::uint32_t>(value));
     }},
    {reg::kFqt, 4, [](State& s, unsigned) -> std::uint64_t { return s.faults.tail(); }},
    {reg::kPqb, 8, [](State& s, unsigned) { return s.page_requests.base(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       s.page_requests.write_base(value, mask);
     },
     has<Capabilities::Ats>},
    {reg::kPqh, 4, [](State& s, unsigned) -> std::uint64_t { return s.page_requests.head(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.page_requests.write_head(static_cast<std::uint32_t>(value));
     },
     has<Capabilities::Ats>},
    {reg::kPqt, 4, [](State& s, unsigned) -> std::uint64_t { return s.page_requests.tail(); },
     nullptr, has<Capabilities::Ats>},
    {reg::kCqcsr, 4, [](State& s, unsigned) -> std::uint64_t { return s.commands.csr(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.signal_if(s.commands.write_csr(static_cast<std::uint32_t>(value)),
                   Interrupt::kCommandQueue);
     }},
    {reg::kFqcsr, 4, [](State& s, unsigned) -> std::uint64_t { return s.faults.csr(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.signal_if(s.faults.write_csr(static_cast<std::uint32_t>(value)), Interrupt::kFaultQueue);
     }},
    {reg::kPqcsr, 4, [](State& s, unsigned) -> std::uint64_t { return s.page_requests.csr(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.signal_if(s.page_requests.write_csr(static_cast<std::uint32_t>(value)),
                   Interrupt::kPageRequestQueue);
     },
     has<Capabilities::Ats>},
    {reg::kIpsr, 4,
     [](State& s, unsigned) -> std::uint64_t {
       s.poll_monitor();
       return s.interrupts.pending();
     },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.write_ipsr(static_cast<std::uint32_t>(value));
     }},
    {reg::kIocountovf, 4,
     [](State& s, unsigned) -> std::
                                uint64_t {
                                  s.poll_monitor();
                                  return s.monitor.overflows();
                                },
     nullptr, has<Capabilities::Hpm>},
    {reg::kIocountinh, 4, [](State& s, unsigned) -> std::uint64_t { return s.monitor.inhibits(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.poll_monitor();
       s.monitor.write_inhibits(static_cast<std::uint32_t>(value));
       s.tell_overflow();
     },
     has<Capabilities::Hpm>},
    {reg::kIohpmcycles, 8,
     [](State& s, unsigned) {
       s.poll_monitor();
       return s.monitor.cycles();
     },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       s.poll_monitor();
       s.monitor.write_cycles(merged(s.monitor.cycles(), value, mask));
       s.tell_overflow();
     },
     has<Capabilities::Hpm>},
    {reg::kIohpmctr1, 8, [](State& s, unsigned i) { return s.monitor.counter(i); },
     [](State& s, unsigned i, std::uint64_t value, std::uint64_t mask) {
       s.monitor.write_counter(i, merged(s.monitor.counter(i), value, mask));
     },
     has_counter, detail::PerformanceMonitor::kCounters, 8},
    {reg::kIohpmevt1, 8, [](State& s, unsigned i) { return s.monitor.selector(i); },
     [](State& s, unsigned i, std::uint64_t value, std::uint64_t mask) {
       s.monitor.write_selector(i, value, mask);
     },
     has_counter, detail::PerformanceMonitor::kCounters, 8},
    {reg::kTrReqIova, 8, [](State& s, unsigned) { return s.debug.iova(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       s.debug.write_iova(value, mask);
     },
     has<Capabilities::Dbg>},
    {reg::kTrReqCtl, 8, [](State& s, unsigned) { return s.debug.control(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       if (const auto request = s.debug.write_control(value, mask)) s.translate_for_debug(*request);
     },
     has<Capabilities::Dbg>},
    {reg::kTrResponse, 8, [](State& s, unsigned) { return s.debug.response(); }, nullptr,
     has<Capabilities::Dbg>},
    {reg::kIommuQosid, 4,
     [](State& s, unsigned) -> std::uint64_t { return s.qosid.load(std::memory_order_relaxed); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t) {
       s.write_qosid(static_cast<std::uint32_t>(value));
     },
     has<Capabilities::Qosid>},
    {reg::kIcvec, 8, [](State& s, unsigned) -> std::uint64_t { return s.interrupts.vectors(); },
     [](State& s, unsigned, std::uint64_t value, std::uint64_t mask) {
       s.interrupts.write_vectors(
           static_cast<std::uint32_t>(merged(s.interrupts.vectors(), value, mask)));
       s.interrupts.update_wires();
     }},
    {reg::kMsiAddress, 8, [](State& s, unsigned i) { return s.interrupts.message_address(i); },
     [](State& s, unsigned i, std::uint64_t value, std::uint64_t mask) {
       s.interrupts.write_address(i, value, mask);
     },
     has_message, reg::kMsiEntries, reg::kMsiEntryBytes},
    {reg::kMsiData, 4,
     [](State& s, unsigned i) -> std::uint64_t { return s.interrupts.message_data(i); },
     [](State& s, unsigned i, std::uint64_t value, std::uint64_t) {
       s.interrupts.write_data(i, static_cast<std::uint32_t>(value));
     },
     has_message, reg::kMsiEntries, reg::kMsiEntryBytes},
    {reg::kMsiControl, 4,
     [](State& s, unsigned i) -> std::uint64_t { return s.interrupts.control(i); },
     [](State& s, unsigned i, std::uint64_t value, std::uint64_t) {
       s.signal_all(s.send(s.interrupts.write_control(i, static_cast<std::uint32_t>(value))));
     },
     has_message, reg::kMsiEntries, reg::kMsiEntryBytes},
};

const Iommu::State::Register* Iommu::State::Register::find(std::uint32_t offset) {
  // Which row holds each four bytes, counted from 1; the rest of the file is reserved.
  static constexpr auto kRowOf = [] {
    std::array<std::uint8_t, reg::kReservedFrom / 4> rows{};
    std::uint8_t number = 0;
    for (const Register& row : kTable) {
      ++number;
      for (unsigned i = 0; i < row.count; ++i) {
        for (unsigned byte = 0; byte < row.bytes; byte += 4) {
          rows[(row.offset + i * row.stride + byte) / 4] = number;
        }
      }
    }
    return rows;
  }();
  if (offset >= reg::kReservedFrom || kRowOf[offset / 4] == 0) return nullptr;
  return &kTable[kRowOf[offset / 4] - 1];
}

/// Spec: §6.4 "Features-control register (fctl)". While something is on: UNSPECIFIED, ignored.
void Iommu::State::write_fctl(std::uint32_t value) {
  const auto mode = Ddtp::Mode::get(ddtp.load(std::memory_order_acquire));
  const bool queues_on = Cqcsr::Cqon::get(commands.csr()) != 0 ||
                         Fqcsr::Fqon::get(faults.csr()) != 0 ||
                         Pqcsr::Pqon::get(page_requests.csr()) != 0;
  if (mode != static_cast<std::uint64_t>(Ddtp::ModeValue::kOff) || queues_on) return;
  const std::uint32_t writable = config.writable_fctl();
  const std::uint32_t old = config.fctl.load(std::memory_order_relaxed);
  config.fctl.store((old & ~writable) | (value & writable), std::memory_order_release);
  interrupts.update_wires();
}

/// Spec: §6.5 "Device-directory-table pointer (ddtp)". A reserved mode leaves the mode as it is.
/// Off promises that transactions seen before have been processed when it is no longer busy. The
/// write itself outlasts those in sections; an access to an I/O region may last, or be what writes,
/// and is waited for by who reads.
void Iommu::State::write_ddtp(std::uint64_t value, std::uint64_t mask) {
  bool turned_off = false;
  {
    const MutexLock lock(ddtp_mutex);
    const std::uint64_t old = ddtp.load(std::memory_order_relaxed);
    value = merged(old, value, mask);
    std::uint64_t next = value & (Ddtp::Mode::kMask | Ddtp::Ppn::kMask);
    if (!mode_exists(Ddtp::Mode::get(value))) {
      next = Ddtp::Mode::set(next, Ddtp::Mode::get(old));
    }
    ddtp.store(next, std::memory_order_release);
    generations.invalidate_all();
    constexpr auto kOff = static_cast<std::uint64_t>(Ddtp::ModeValue::kOff);
    turned_off = Ddtp::Mode::get(next) == kOff && Ddtp::Mode::get(old) != kOff;
    if (turned_off) ++turning_off;
  }
  if (!turned_off) return;
  rcu::rcu_synchronize();
  const MutexLock lock(ddtp_mutex);
  before_off = commands.earlier_accesses();
  --turning_off;
}

std::uint64_t Iommu::State::read_ddtp() {
  const MutexLock lock(ddtp_mutex);
  const std::uint64_t value = ddtp.load(std::memory_order_relaxed);
  return value | Ddtp::Busy::make(turning_off != 0 || !commands.over(before_off));
}

/// Spec: §6 "Memory-mapped register interface": eight bytes that are not one register are two
/// accesses, the high half first.
std::uint64_t Iommu::State::read_register(std::uint32_t offset, unsigned size_bytes) {
  const Register* const row = Register::find(offset);
  if (size_bytes == 8 && (row == nullptr || row->bytes == 4)) {
    const std::uint64_t high = read_register(offset + 4, 4);
    return high << 32 | read_register(offset, 4);
  }
  if (row == nullptr || !row->is_present(*this, offset)) return 0;
  const std::uint64_t value = row->read(*this, row->index(offset));
  if (size_bytes == row->bytes) return value;
  return offset % 8 == 0 ? value & kLow : value >> 32;
}

void Iommu::State::write_register(std::uint32_t offset, std::uint64_t value, unsigned size_bytes) {
  const Register* const row = Register::find(offset);
  if (size_bytes == 8 && (row == nullptr || row->bytes == 4)) {
    write_register(offset + 4, value >> 32, 4);
    return write_register(offset, value & kLow, 4);
  }
  if (row == nullptr || row->write == nullptr || !row->is_present(*this, offset)) return;
  const unsigned i = row->index(offset);
  if (size_bytes == row->bytes) return row->write(*this, i, value, kAll);
  offset % 8 == 0 ? row->write(*this, i, value, kLow) : row->write(*this, i, value << 32, ~kLow);
}

std::uint64_t Iommu::mmio_read(std::uint32_t offset, unsigned size_bytes) {
  if (!access_ok(offset, size_bytes)) return 0;
  if (state_->commands.waits()) advance();  // somebody polls for a command
  return state_->read_register(offset, size_bytes);
}

void Iommu::mmio_write(std::uint32_t offset, std::uint64_t value, unsigned size_bytes) {
  if (!access_ok(offset, size_bytes)) return;
  state_->write_register(offset, size_bytes == 4 ? value & kLow : value, size_bytes);
}

}  // namespace tandem::iommu
