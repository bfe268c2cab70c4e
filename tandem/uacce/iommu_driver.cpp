// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/iommu_driver.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "tandem/base/check.hpp"

namespace tandem::uacce::detail {

using iommu::Capabilities;
using iommu::Command;
using iommu::Cqcsr;
using iommu::Ddtp;
using iommu::DeviceContext;
using iommu::DeviceId;
using iommu::DirectoryEntry;
using iommu::Fqcsr;
using iommu::Fsc;
using iommu::kPageBytes;
using iommu::kPageShift;
using iommu::PageRequestRecord;
using iommu::Pasid;
using iommu::Pqcsr;
using iommu::ProcessContext;
using memory::PhysAddr;
namespace reg = iommu::reg;

namespace {

/// Above this many pages one command for the whole address space is cheaper.
constexpr std::uint64_t kPagesByAddressMax = 16;
/// How long a device that works in place keeps an invalidation waiting before it counts as stuck.
constexpr std::chrono::milliseconds kDeviceTimeout{1000};
constexpr std::chrono::microseconds kFirstPause{100};
constexpr std::chrono::microseconds kLongestPause{10'000};
constexpr std::chrono::microseconds kPollInterval{20};
constexpr std::uint32_t kDevicesMax = std::uint32_t{1} << 24;
constexpr std::uint32_t kDeviceStep = 8;  // function 0 of each device number

std::uint64_t ppn(PhysAddr page) { return page.value >> kPageShift; }
PhysAddr target(std::uint64_t entry) { return {DirectoryEntry::Ppn::get(entry) << kPageShift}; }
PhysAddr word(PhysAddr table, std::uint64_t index) {
  return table.plus(index * sizeof(std::uint64_t));
}

struct Range {
  std::uint64_t address = 0;
  std::uint64_t size_bytes = 0;  // 0: 2^64
};

/// The smallest naturally aligned power of two that holds [first, last).
Range aligned_cover(std::uint64_t first, std::uint64_t last) {
  const std::uint64_t differs = first ^ (last - 1);
  const auto bits = std::max<unsigned>(static_cast<unsigned>(std::bit_width(differs)), kPageShift);
  if (bits >= 64) return {};
  const std::uint64_t size = std::uint64_t{1} << bits;
  return {first & ~(size - 1), size};
}

}  // namespace

IommuDriver::~IommuDriver() {
  if (!service_) return;
  iommu_.on_interrupt({});
  iommu_.mmio_write(reg::kPqcsr, 0, 4);
  iommu_.mmio_write(reg::kFqcsr, 0, 4);
  iommu_.mmio_write(reg::kCqcsr, 0, 4);
  iommu_.mmio_write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::kOff), 8);
}

std::uint64_t IommuDriver::load(PhysAddr at) const {
  const auto value = memory_.load64(at, std::memory_order_relaxed);
  TANDEM_CHECK(value.has_value());
  return *value;
}

void IommuDriver::store(PhysAddr at, std::uint64_t value) {
  TANDEM_CHECK(memory_.store64(at, value, std::memory_order_release).has_value());
}

// ---- Start ------------------------------------------------------------------------------------

Result<IommuDriver::Queue> IommuDriver::start_queue(std::uint32_t base, std::uint32_t csr,
                                                    std::uint64_t enable, std::uint64_t on,
                                                    std::uint32_t entry_bytes) {
  const auto page = tables_.allocate();
  if (!page) return Unexpected{page.error()};
  const Queue queue{*page, static_cast<std::uint32_t>(kPageBytes) / entry_bytes};
  const auto log2_entries = static_cast<unsigned>(std::countr_zero(queue.entries));
  iommu_.mmio_write(base, iommu::QueueBase::make(log2_entries, ppn(*page)), 8);
  iommu_.mmio_write(csr, enable, 4);
  if ((iommu_.mmio_read(csr, 4) & on) == 0) return errno_error(EIO);
  return queue;
}

Result<void> IommuDriver::start(Service service) {
  const std::uint64_t capabilities = iommu_.mmio_read(reg::kCapabilities, 8);
  const bool mode = kFirstStageMode == iommu::FirstStageMode::kSv57
                        ? Capabilities::Sv57::get(capabilities) != 0
                        : Capabilities::Sv48::get(capabilities) != 0;
  if (!mode || Capabilities::Ats::get(capabilities) == 0 ||
      Capabilities::Pd20::get(capabilities) == 0) {
    return errno_error(ENOTSUP);
  }
  for (PhysAddr* directory : {&device_directory_, &process_directory_}) {
    const auto page = tables_.allocate();
    if (!page) return Unexpected{page.error()};
    *directory = *page;
  }
  service_ = std::move(service);
  iommu_.on_interrupt([this](iommu::Iommu::Interrupt interrupt) { on_interrupt(interrupt); });
  auto commands = start_queue(reg::kCqb, reg::kCqcsr, Cqcsr::Cqen::make(1), Cqcsr::Cqon::make(1),
                              sizeof(Command));
  auto faults = start_queue(reg::kFqb, reg::kFqcsr, Fqcsr::Fqen::make(1) | Fqcsr::Fie::make(1),
                            Fqcsr::Fqon::make(1), sizeof(iommu::FaultRecord));
  auto requests = start_queue(reg::kPqb, reg::kPqcsr, Pqcsr::Pqen::make(1) | Pqcsr::Pie::make(1),
                              Pqcsr::Pqon::make(1), sizeof(PageRequestRecord));
  for (const auto* queue : {&commands, &faults, &requests}) {
    if (!*queue) return Unexpected{queue->error()};
  }
  commands_ = *commands;
  faults_ = *faults;
  page_requests_ = *requests;
  iommu_.mmio_write(reg::kDdtp, Ddtp::make(Ddtp::ModeValue::k3Lvl, ppn(device_directory_)), 8);
  const auto ddtp = iommu_.mmio_read(reg::kDdtp, 8);
  if (Ddtp::Mode::get(ddtp) != static_cast<std::uint64_t>(Ddtp::ModeValue::k3Lvl)) {
    return errno_error(EIO);
  }
  return {};
}

// ---- Directories ------------------------------------------------------------------------------

Result<PhysAddr> IommuDriver::child_locked(PhysAddr entry) {
  const std::uint64_t value = load(entry);
  if (DirectoryEntry::V::get(value) != 0) return target(value);
  const auto page = tables_.allocate();
  if (!page) return Unexpected{page.error()};
  store(entry, DirectoryEntry::make(ppn(*page)));
  return *page;
}

PhysAddr IommuDriver::device_entry_locked(DeviceId device) const {
  PhysAddr table = device_directory_;
  for (unsigned level = 2; level > 0; --level) {
    table = target(load(word(table, iommu::Ddi::index(level, device.value))));
  }
  return table.plus(iommu::Ddi::index(0, device.value) * sizeof(DeviceContext));
}

Result<DeviceId> IommuDriver::add_device() {
  const MutexLock lock(directory_mutex_);
  DeviceId device{next_device_};
  if (!free_devices_.empty()) {
    device = free_devices_.back();
  } else if (next_device_ >= kDevicesMax) {
    return errno_error(ENOSPC);
  }
  PhysAddr table = device_directory_;
  for (unsigned level = 2; level > 0; --level) {
    const auto child = child_locked(word(table, iommu::Ddi::index(level, device.value)));
    if (!child) return Unexpected{child.error()};
    table = *child;
  }
  if (free_devices_.empty()) {
    next_device_ += kDeviceStep;
  } else {
    free_devices_.pop_back();
  }
  using Tc = DeviceContext::Tc;
  const PhysAddr entry = device_entry_locked(device);
  store(entry.plus(offsetof(DeviceContext, fsc)),
        Fsc::make(iommu::PdtpMode::kPd20, ppn(process_directory_)));
  store(entry.plus(offsetof(DeviceContext, ta)), 0);
  store(entry.plus(offsetof(DeviceContext, iohgatp)), 0);
  store(entry.plus(offsetof(DeviceContext, tc)), Tc::V::make(1) | Tc::EnAts::make(1) |
                                                     Tc::EnPri::make(1) | Tc::Pdtv::make(1) |
                                                     Tc::Prpr::make(1));
  const MutexLock commands(command_mutex_);
  devices_.push_back(device);
  const Command command = iommu::iodir_inval_ddt(device.value);
  (void)run_locked({&command, 1});
  return device;
}

void IommuDriver::remove_device(DeviceId device) {
  const MutexLock lock(directory_mutex_);
  const PhysAddr entry = device_entry_locked(device);
  store(entry.plus(offsetof(DeviceContext, tc)), 0);
  {
    const MutexLock commands(command_mutex_);
    std::erase(devices_, device);
    const Command command = iommu::iodir_inval_ddt(device.value);
    (void)run_locked({&command, 1});
  }
  free_devices_.push_back(device);
}

Result<void> IommuDriver::set_process(Pasid pasid, PhysAddr root) {
  const MutexLock lock(directory_mutex_);
  PhysAddr table = process_directory_;
  for (unsigned level = 2; level > 0; --level) {
    const auto child = child_locked(word(table, iommu::Pdi::index(level, pasid.value)));
    if (!child) return Unexpected{child.error()};
    table = *child;
  }
  const PhysAddr entry = table.plus(iommu::Pdi::index(0, pasid.value) * sizeof(ProcessContext));
  store(entry.plus(offsetof(ProcessContext, fsc)), Fsc::make(kFirstStageMode, ppn(root)));
  store(entry.plus(offsetof(ProcessContext, ta)),
        ProcessContext::Ta::V::make(1) | ProcessContext::Ta::Pscid::make(pasid.value));
  const MutexLock commands(command_mutex_);
  std::vector<Command> batch;
  for (const DeviceId device : devices_) {
    batch.push_back(iommu::iodir_inval_pdt(device.value, pasid.value));
  }
  (void)run_locked(batch);
  return {};
}

bool IommuDriver::clear_process(Pasid pasid) {
  {
    const MutexLock lock(directory_mutex_);
    const auto steps = walk_directory(pasid);
    TANDEM_CHECK(steps.size() == 3);
    store(steps.back().at, 0);
  }
  return run_until_complete([&]() TANDEM_REQUIRES(command_mutex_) {
    std::vector<Command> batch;
    for (const DeviceId device : devices_) {
      batch.push_back(iommu::iodir_inval_pdt(device.value, pasid.value));
    }
    batch.push_back(iommu::iotinval_vma(std::nullopt, pasid.value));
    for (const DeviceId device : devices_) {
      batch.push_back(iommu::ats_inval(device.value, pasid.value, 0, 0));
    }
    return batch;
  });
}

bool IommuDriver::invalidate(Pasid pasid, std::uint64_t first, std::uint64_t last,
                             bool tables_unlinked) {
  return run_until_complete([&]() TANDEM_REQUIRES(command_mutex_) {
    std::vector<Command> batch;
    if (tables_unlinked || last - first > kPagesByAddressMax * kPageBytes) {
      batch.push_back(iommu::iotinval_vma(std::nullopt, pasid.value));
    } else {
      for (std::uint64_t at = first; at < last; at += kPageBytes) {
        batch.push_back(iommu::iotinval_vma(at, pasid.value));
      }
    }
    const Range range = aligned_cover(first, last);
    for (const DeviceId device : devices_) {
      batch.push_back(iommu::ats_inval(device.value, pasid.value, range.address, range.size_bytes));
    }
    return batch;
  });
}

std::vector<PageTable::Step> IommuDriver::walk_directory(Pasid pasid) const {
  std::vector<PageTable::Step> steps;
  PhysAddr table = process_directory_;
  for (unsigned level = 2;; --level) {
    const PhysAddr at = level == 0
                            ? table.plus(iommu::Pdi::index(0, pasid.value) * sizeof(ProcessContext))
                            : word(table, iommu::Pdi::index(level, pasid.value));
    steps.push_back({level, at, load(at)});
    if (level == 0 || DirectoryEntry::V::get(steps.back().entry) == 0) return steps;
    table = target(steps.back().entry);
  }
}

// ---- Commands ---------------------------------------------------------------------------------

/// A device that works in place completes an invalidation when it is through. Until then the fence
/// and all behind it stand still, so the IOMMU gives up soon (kInvalidationTimeout), and the
/// commands are submitted again after a pause in which others have the queue: "software may make
/// the CQ operational again and resubmit the invalidation commands that may have timed out"
/// (§4.1.4).
template <class Make>
bool IommuDriver::run_until_complete(Make make) {
  const auto give_up = std::chrono::steady_clock::now() + kDeviceTimeout;
  for (auto pause = kFirstPause;; pause = std::min(pause * 2, kLongestPause)) {
    {
      const MutexLock commands(command_mutex_);
      if (run_locked(make())) return true;
    }
    if (std::chrono::steady_clock::now() >= give_up) return false;
    std::this_thread::sleep_for(pause);
  }
}

bool IommuDriver::run_locked(std::span<const Command> commands) {
  bool completed = true;
  std::uint32_t queued = 0;
  for (const Command& command : commands) {
    append_locked(command);
    if (++queued + 2 < commands_.entries) continue;  // one for the fence, one stays empty
    append_locked(iommu::iofence_c({}));
    completed = kick_locked() && completed;
    queued = 0;
  }
  append_locked(iommu::iofence_c({}));
  return kick_locked() && completed;
}

void IommuDriver::append_locked(const Command& command) {
  const PhysAddr at = commands_.base.plus(command_tail_ * sizeof command);
  TANDEM_CHECK(memory_.write(at, std::as_bytes(std::span(command.words))).ok());
  command_tail_ = (command_tail_ + 1) % commands_.entries;
}

/// Publishes the tail; a write to it processes the commands, up to a fence that waits for a device.
/// An ATS time-out stops the queue until cmd_to is cleared.
bool IommuDriver::kick_locked() {
  bool completed = true;
  iommu_.mmio_write(reg::kCqt, command_tail_, 4);
  for (;;) {
    const std::uint64_t csr = iommu_.mmio_read(reg::kCqcsr, 4);
    TANDEM_CHECK(Cqcsr::CmdIll::get(csr) == 0 && Cqcsr::Cqmf::get(csr) == 0);
    if (Cqcsr::CmdTo::get(csr) != 0) {
      completed = false;
      iommu_.mmio_write(reg::kCqcsr, Cqcsr::Cqen::make(1) | Cqcsr::CmdTo::make(1), 4);
      continue;
    }
    if (iommu_.mmio_read(reg::kCqh, 4) == command_tail_) return completed;
    std::this_thread::sleep_for(kPollInterval);
  }
}

// ---- Queues that the IOMMU fills --------------------------------------------------------------

void IommuDriver::on_interrupt(iommu::Iommu::Interrupt interrupt) {
  if (interrupt == iommu::Iommu::Interrupt::kPageRequestQueue) collect_page_requests();
  if (interrupt == iommu::Iommu::Interrupt::kFaultQueue) drain_faults();
}

void IommuDriver::collect_page_requests() {
  // Causes are cleared before the pending bit, or it would rise again at once. No lock is held
  // meanwhile, since the handler may run again inside these writes.
  const std::uint64_t csr = iommu_.mmio_read(reg::kPqcsr, 4);
  if (Pqcsr::Pqof::get(csr) != 0 || Pqcsr::Pqmf::get(csr) != 0) {
    // The IOMMU has answered what it had to drop; go on.
    iommu_.mmio_write(
        reg::kPqcsr,
        Pqcsr::Pqen::make(1) | Pqcsr::Pie::make(1) | Pqcsr::Pqof::make(1) | Pqcsr::Pqmf::make(1),
        4);
  }
  iommu_.mmio_write(reg::kIpsr, iommu::Ipsr::Pip::make(1), 4);
  const MutexLock lock(queue_mutex_);
  auto head = static_cast<std::uint32_t>(iommu_.mmio_read(reg::kPqh, 4));
  const auto tail = static_cast<std::uint32_t>(iommu_.mmio_read(reg::kPqt, 4));
  if (head == tail) return;
  for (; head != tail; head = (head + 1) % page_requests_.entries) {
    PageRequestRecord record;
    const PhysAddr at = page_requests_.base.plus(head * sizeof record);
    TANDEM_CHECK(memory_.read(at, std::as_writable_bytes(std::span(&record, 1))).ok());
    if (record.is_stop_marker()) continue;  // takes no response
    waiting_.emplace(group_of(record), record);
  }
  iommu_.mmio_write(reg::kPqh, tail, 4);
}

/// The record is in the queue, or somebody's interrupt took it to waiting_ already; or the IOMMU
/// has answered it.
void IommuDriver::serve_page_request(DeviceId device, const iommu::PageRequest& request) {
  const Group group{device.value,
                    request.pasid ? std::optional(request.pasid->value) : std::nullopt,
                    request.group};
  for (bool collected = false;;) {
    std::optional<Taken> taken;
    {
      const MutexLock lock(queue_mutex_);
      const auto found = waiting_.find(group);
      if (found != waiting_.end()) {
        taken = take_locked(found->second);
        waiting_.erase(found);
      }
    }
    if (taken) {
      serve(*taken);
      if (taken->record.last()) return;
    } else if (!std::exchange(collected, true)) {
      collect_page_requests();
    } else {
      return;
    }
  }
}

void IommuDriver::serve_left_of(Pasid pasid) {
  collect_page_requests();
  std::vector<PageRequestRecord> left;
  {
    const MutexLock lock(queue_mutex_);
    std::erase_if(waiting_, [&](const auto& entry) {
      if (entry.second.process_id() != pasid.value) return false;
      left.push_back(entry.second);
      return true;
    });
  }
  for (const auto& record : left) {
    Taken taken;
    {
      const MutexLock lock(queue_mutex_);
      taken = take_locked(record);
    }
    serve(taken);
  }
}

IommuDriver::Taken IommuDriver::take_locked(const PageRequestRecord& record) {
  Taken taken{record, iommu::PageResponse::Code::kSuccess};
  if (const auto open = open_groups_.extract(group_of(record))) taken.before = open.mapped();
  return taken;
}

void IommuDriver::serve(const Taken& taken) {
  const PageRequestRecord& record = taken.record;
  const auto code = std::max(service_(record), taken.before);
  if (!record.last()) {
    const MutexLock lock(queue_mutex_);
    open_groups_[group_of(record)] = code;
    return;
  }
  const MutexLock commands(command_mutex_);
  // A response leaves nothing behind that a fence would have to wait for.
  append_locked(iommu::ats_prgr(record.device_id(), record.process_id(), record.group(),
                                static_cast<std::uint8_t>(code)));
  (void)kick_locked();
}

void IommuDriver::drain_faults() {
  const std::uint64_t csr = iommu_.mmio_read(reg::kFqcsr, 4);
  if (Fqcsr::Fqof::get(csr) != 0 || Fqcsr::Fqmf::get(csr) != 0) {
    iommu_.mmio_write(
        reg::kFqcsr,
        Fqcsr::Fqen::make(1) | Fqcsr::Fie::make(1) | Fqcsr::Fqof::make(1) | Fqcsr::Fqmf::make(1),
        4);
  }
  iommu_.mmio_write(reg::kIpsr, iommu::Ipsr::Fip::make(1), 4);
  const MutexLock lock(queue_mutex_);
  const auto head = static_cast<std::uint32_t>(iommu_.mmio_read(reg::kFqh, 4));
  const auto tail = static_cast<std::uint32_t>(iommu_.mmio_read(reg::kFqt, 4));
  faults_recorded_ += (tail + faults_.entries - head) % faults_.entries;
  iommu_.mmio_write(reg::kFqh, tail, 4);
}

std::uint64_t IommuDriver::faults_recorded() const {
  const MutexLock lock(queue_mutex_);
  return faults_recorded_;
}

}  // namespace tandem::uacce::detail
