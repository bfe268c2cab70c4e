// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/memory.hpp"

#include <cstring>
#include <mutex>

#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/memory/detail/view.hpp"
#include "tandem/memory/reader.hpp"
#include "tandem/rcu/checked.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::memory {
namespace {

using detail::Change;
using detail::Region;
using detail::View;
using rcu::rcu_default_domain;

constexpr std::uint64_t kSpaceBytes = std::uint64_t{1} << kPhysAddrBits;
constexpr std::size_t kSectionBytes = std::size_t{64} * 1024;

std::error_code check_range(PhysAddr base, std::uint64_t size_bytes) {
  const bool ok = size_bytes != 0 && size_bytes % kPageSize == 0 && base.value % kPageSize == 0 &&
                  base.value < kSpaceBytes && size_bytes <= kSpaceBytes - base.value;
  return ok ? std::error_code() : std::make_error_code(std::errc::invalid_argument);
}

void copy(std::byte* host, std::span<std::byte> to) { std::memcpy(to.data(), host, to.size()); }
void copy(std::byte* host, std::span<const std::byte> from) {
  std::memcpy(host, from.data(), from.size());
}
Outcome use(const IoPin& pin, std::span<std::byte> to) { return pin.read(to); }
Outcome use(const IoPin& pin, std::span<const std::byte> from) { return pin.write(from); }

/// Both directions of an access: pieces of host RAM in one section each, I/O outside of them.
template <class Byte>
Outcome access(const Memory& memory, PhysAddr at, std::span<Byte> bytes) {
  constexpr bool kWrite = std::is_const_v<Byte>;
  std::size_t done = 0;
  while (done < bytes.size()) {
    IoPin pin;
    std::size_t length = 0;
    {
      const std::scoped_lock reader(rcu_default_domain());
      Target target = memory.resolve(at.plus(done), bytes.size() - done, kWrite);
      if (target.fault != Fault::kNone) return {done, target.fault};
      length = target.length;
      if (target.host != nullptr) {
        length = std::min(length, kSectionBytes);
        copy(target.host, bytes.subspan(done, length));
      }
      pin = std::move(target.io);
    }
    if (pin) {
      const Outcome outcome = use(pin, bytes.subspan(done, length));
      done += outcome.done_bytes;
      if (!outcome.ok()) return {done, outcome.fault};
    } else {
      done += length;
    }
  }
  return {done, Fault::kNone};
}

}  // namespace

IoPin::~IoPin() {
  if (region_ == nullptr) return;
  // (P) releases our use of the region to remove(), which may free it at once: only the address of
  // the word is used after this.
  std::atomic<std::uint32_t>& pins = region_->pins;
  if (pins.fetch_sub(1, std::memory_order_acq_rel) == (Region::kRemoving | 1)) futex_wake(pins);
}

Outcome IoPin::read(std::span<std::byte> to) const {
  const Outcome outcome = region_->io->read(offset_, to);
  TANDEM_CHECK(outcome.done_bytes <= to.size() &&
               outcome.ok() == (outcome.done_bytes == to.size()));
  return outcome;
}

Outcome IoPin::write(std::span<const std::byte> from) const {
  const Outcome outcome = region_->io->write(offset_, from);
  TANDEM_CHECK(outcome.done_bytes <= from.size() &&
               outcome.ok() == (outcome.done_bytes == from.size()));
  return outcome;
}

Memory::Memory() : view_(new View) {}

Memory::~Memory() {
  const std::unique_ptr<View> view(rcu::dereference_protected(view_, true));  // nobody else is left
  for (const View::Part& part : view->parts) {
    const std::unique_ptr<detail::Chunk> chunk(part.chunk);
    for (std::size_t i = 0; i < chunk->count; ++i) delete chunk->entries[i].region;
  }
}

Result<RegionId> Memory::insert(std::unique_ptr<Region> region) {
  View* old = nullptr;
  Change change;
  std::uint64_t id = 0;
  {
    const MutexLock lock(mutex_);
    old = rcu::dereference_protected(view_, rcu::held(mutex_));
    if (old->overlaps(region->base, region->size_bytes)) return errno_error(EEXIST);
    id = next_id_++;
    bases_.emplace(id, PhysAddr{region->base});
    change = detail::with_region(*old, *region.release());
    view_.assign(change.view.release());  // (V) the view's contents
  }
  rcu::rcu_retire(old);
  if (change.dropped) rcu::rcu_retire(change.dropped.release());
  return RegionId{id};
}

Result<RegionId> Memory::add_host_ram(PhysAddr base, std::span<std::byte> host, bool writable) {
  if (const auto error = check_range(base, host.size())) return Unexpected{error};
  if (reinterpret_cast<std::uintptr_t>(host.data()) % sizeof(std::uint64_t) != 0) {
    return errno_error(EINVAL);
  }
  auto region = std::make_unique<Region>();
  region->base = base.value;
  region->size_bytes = host.size();
  region->host = host.data();
  region->writable = writable;
  return insert(std::move(region));
}

Result<RegionId> Memory::add_io(PhysAddr base, std::uint64_t size_bytes,
                                std::shared_ptr<IoRegion> io) {
  if (const auto error = check_range(base, size_bytes)) return Unexpected{error};
  if (io == nullptr) return errno_error(EINVAL);
  auto region = std::make_unique<Region>();
  region->base = base.value;
  region->size_bytes = size_bytes;
  region->io = std::move(io);
  return insert(std::move(region));
}

Result<void> Memory::remove(RegionId id) {
  std::unique_ptr<View> old;
  std::unique_ptr<Region> region;
  Change change;
  {
    const MutexLock lock(mutex_);
    const auto base = bases_.find(static_cast<std::uint64_t>(id));
    if (base == bases_.end()) return errno_error(ENOENT);
    old.reset(rcu::dereference_protected(view_, rcu::held(mutex_)));
    region.reset(old->find(base->second.value));
    bases_.erase(base);
    change = detail::without_region(*old, *region);
    view_.assign(change.view.release());  // (V)
    // After the view: who reads the new version also finds the new view.
    version_.fetch_add(1, std::memory_order_release);
  }
  if (!planted_fault("memory-skip-grace-period")) rcu::rcu_synchronize();
  // No section can find the region any more; what is left are pins taken before.
  std::uint32_t pins = region->pins.fetch_or(Region::kRemoving, std::memory_order_acq_rel);
  pins |= Region::kRemoving;
  while (pins != Region::kRemoving) {
    futex_wait(region->pins, pins);
    pins = region->pins.load(std::memory_order_acquire);  // (P)
  }
  return {};
}

Outcome Memory::read(PhysAddr at, std::span<std::byte> to) const { return access(*this, at, to); }

Outcome Memory::write(PhysAddr at, std::span<const std::byte> from) const {
  return access(*this, at, from);
}

Fault Memory::Reader::find(PhysAddr at) {
  const Region* const region = rcu::dereference(memory_.view_)->find(at.value);  // (V)
  if (region == nullptr) return Fault::kNoRegion;
  if (region->host == nullptr) return Fault::kMisaligned;
  base_ = region->base;
  size_bytes_ = region->size_bytes;
  host_ = region->host;
  writable_ = region->writable;
  return Fault::kNone;
}

Result<std::uint64_t, Fault> Memory::load64(PhysAddr at, std::memory_order order) const {
  return Reader(*this).load64(at, order);
}
Result<std::uint32_t, Fault> Memory::load32(PhysAddr at, std::memory_order order) const {
  return Reader(*this).load32(at, order);
}
Result<void, Fault> Memory::store64(PhysAddr at, std::uint64_t value,
                                    std::memory_order order) const {
  return Reader(*this).store64(at, value, order);
}
Result<void, Fault> Memory::store32(PhysAddr at, std::uint32_t value,
                                    std::memory_order order) const {
  return Reader(*this).store32(at, value, order);
}
Result<std::uint64_t, Fault> Memory::compare_exchange64(PhysAddr at, std::uint64_t expected,
                                                        std::uint64_t desired) const {
  return Reader(*this).compare_exchange64(at, expected, desired);
}

Target Memory::resolve(PhysAddr at, std::size_t length, bool write) const {
  Target target;
  Region* const region = rcu::dereference(view_)->find(at.value);  // (V)
  if (region == nullptr) {
    target.fault = Fault::kNoRegion;
    return target;
  }
  if (write && !region->writable) {
    target.fault = Fault::kReadOnly;
    return target;
  }
  const std::uint64_t offset = at.value - region->base;
  target.length = std::min<std::uint64_t>(length, region->size_bytes - offset);
  if (region->host != nullptr) {
    target.host = region->host + offset;
  } else {
    region->pins.fetch_add(1, std::memory_order_relaxed);  // our section orders it before (P)
    target.io.region_ = region;
    target.io.offset_ = offset;
  }
  return target;
}

std::byte* Memory::host_pointer(PhysAddr at, std::size_t length) const {
  const std::scoped_lock reader(rcu_default_domain());
  const Region* const region = rcu::dereference(view_)->find(at.value);  // (V)
  if (region == nullptr || region->host == nullptr || !region->writable) return nullptr;
  const std::uint64_t offset = at.value - region->base;
  return length <= region->size_bytes - offset ? region->host + offset : nullptr;
}

}  // namespace tandem::memory
