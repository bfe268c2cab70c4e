// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/memory.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "tandem/base/futex.hpp"
#include "tandem/base/mapping.hpp"
#include "tandem/base/planted_fault.hpp"
#include "tandem/memory/detail/io_access.hpp"
#include "tandem/memory/detail/view.hpp"
#include "tandem/memory/reader.hpp"
#include "tandem/memory/transfer.hpp"
#include "tandem/rcu/checked.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::memory {
namespace {

using detail::Change;
using detail::Decoded;
using detail::Layers;
using detail::PoisonMap;
using detail::Region;
using detail::View;
using rcu::rcu_default_domain;

constexpr std::uint64_t kSpaceBytes = std::uint64_t{1} << kPhysAddrBits;

std::error_code check_range(PhysAddr base, std::uint64_t size_bytes) {
  const bool ok = size_bytes != 0 && size_bytes % kPageSize == 0 && base.value % kPageSize == 0 &&
                  base.value < kSpaceBytes && size_bytes <= kSpaceBytes - base.value;
  return ok ? std::error_code() : std::make_error_code(std::errc::invalid_argument);
}

std::unique_ptr<Region> make_region(PhysAddr base, std::uint64_t size_bytes, bool writable,
                                    int priority) {
  auto region = std::make_unique<Region>();
  region->base = base.value;
  region->size_bytes = size_bytes;
  region->writable = writable;
  region->priority = priority;
  return region;
}

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
        length = piece_bytes(at.value + done, length);
        copy(target, bytes.subspan(done, length));
      }
      pin = std::move(target.io);
    }
    if (pin) {
      const Outcome outcome = access(pin, bytes.subspan(done, length));
      done += outcome.done_bytes;
      if (!outcome.ok()) return {done, outcome.fault};
    } else {
      done += length;
    }
  }
  return {done, Fault::kNone};
}

}  // namespace

void Target::store(std::span<const std::byte> from) const {
  std::memcpy(host, from.data(), from.size());
  // After the data: a reader never finds the old ones without their poison.
  if (poison_ != nullptr) [[unlikely]]
    poison_->clear_written(offset_, from.size());
}

Memory::Memory() : layers_(std::make_unique<Layers>()), view_(new View) {}

Memory::~Memory() {
  const std::unique_ptr<View> view(rcu::dereference_protected(view_, true));  // nobody else is left
  for (const View::Part& part : view->parts) delete part.chunk;
}

void Memory::refresh_locked(std::uint64_t first, std::uint64_t end) {
  View* const old = rcu::dereference_protected(view_, rcu::held(mutex_));
  Change change = detail::refreshed(*old, *layers_, first, end);
  view_.assign(change.view.release());  // (V) the view's contents
  rcu::rcu_retire(old);
  for (auto& chunk : change.dropped) rcu::rcu_retire(chunk.release());
}

Result<RegionId> Memory::insert(std::unique_ptr<Region> region) {
  const MutexLock lock(mutex_);
  return insert_locked(std::move(region));
}

Result<RegionId> Memory::insert_locked(std::unique_ptr<Region> region) {
  const std::uint64_t first = region->base;
  const std::uint64_t end = first + region->size_bytes;
  if (layers_->overlaps(region->priority, first, region->size_bytes)) return errno_error(EEXIST);
  const auto seen = layers_->flatten(first, end);
  const bool hides = std::any_of(seen.begin(), seen.end(), [&](const auto& entry) {
    return entry.region->priority < region->priority;
  });
  const std::uint64_t id = next_id_++;
  layers_->insert(*region);
  if (region->target != nullptr) ++region->target->aliases;
  regions_.emplace(id, std::move(region));
  refresh_locked(first, end);
  // After the view: who reads the new version also finds the new view.
  if (hides && !planted_fault("memory-hide-keeps-version")) {
    version_.fetch_add(1, std::memory_order_release);
  }
  return RegionId{id};
}

Result<RegionId> Memory::add_host_ram(PhysAddr base, std::span<std::byte> host, bool writable,
                                      int priority) {
  if (const auto error = check_range(base, host.size())) return Unexpected{error};
  if (reinterpret_cast<std::uintptr_t>(host.data()) % sizeof(std::uint64_t) != 0) {
    return errno_error(EINVAL);
  }
  auto region = make_region(base, host.size(), writable, priority);
  region->host = host.data();
  return insert(std::move(region));
}

Result<RegionId> Memory::add_io(PhysAddr base, std::uint64_t size_bytes,
                                std::shared_ptr<IoRegion> io, int priority) {
  if (const auto error = check_range(base, size_bytes)) return Unexpected{error};
  if (io == nullptr || !detail::well_formed(io->access_sizes())) return errno_error(EINVAL);
  auto region = make_region(base, size_bytes, true, priority);
  region->sizes = io->access_sizes();
  region->looks_after_accesses = io->looks_after_accesses();
  region->io = std::move(io);
  return insert(std::move(region));
}

Result<RegionId> Memory::add_alias(PhysAddr base, std::uint64_t size_bytes, PhysAddr of,
                                   bool writable, int priority) {
  if (const auto error = check_range(base, size_bytes)) return Unexpected{error};
  if (const auto error = check_range(of, size_bytes)) return Unexpected{error};
  auto region = make_region(base, size_bytes, writable, priority);
  region->is_alias = true;
  region->target_offset = of.value;
  return insert(std::move(region));
}

Result<RegionId> Memory::add_alias(PhysAddr base, std::uint64_t size_bytes, RegionId of,
                                   std::uint64_t offset, bool writable, int priority) {
  if (const auto error = check_range(base, size_bytes)) return Unexpected{error};
  const MutexLock lock(mutex_);
  const auto found = regions_.find(static_cast<std::uint64_t>(of));
  if (found == regions_.end()) return errno_error(ENOENT);
  Region& target = *found->second;
  if (offset % kPageSize != 0 || offset > target.size_bytes ||
      size_bytes > target.size_bytes - offset) {
    return errno_error(EINVAL);
  }
  // A window onto a window is one onto what that shows.
  auto region = make_region(base, size_bytes, writable && target.writable, priority);
  region->is_alias = true;
  region->target = target.is_alias ? target.target : &target;
  region->target_offset = offset + (target.is_alias ? target.target_offset : 0);
  return insert_locked(std::move(region));
}

Result<void> Memory::remove(RegionId id) {
  std::unique_ptr<Region> region;
  {
    const MutexLock lock(mutex_);
    const auto found = regions_.find(static_cast<std::uint64_t>(id));
    if (found == regions_.end()) return errno_error(ENOENT);
    if (found->second->aliases != 0) return errno_error(EBUSY);
    region = std::move(found->second);
    regions_.erase(found);
    if (region->target != nullptr) --region->target->aliases;
    layers_->erase(*region);
    refresh_locked(region->base, region->base + region->size_bytes);
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

/// Calls `use(region, offset, length)` for the runs of host RAM that hold the range, or not at all.
template <class Use>
Result<void, Fault> Memory::for_host_ram_locked(PhysAddr at, std::uint64_t length, Use use) {
  const View* const view = rcu::dereference_protected(view_, rcu::held(mutex_));
  for (const bool check : {true, false}) {
    std::uint64_t run = 0;
    for (std::uint64_t done = 0; done < length; done += run) {
      const Decoded found = view->find(at.value + done);
      if (found.region == nullptr) return Unexpected{Fault::kNoRegion};
      if (found.region->host == nullptr) return Unexpected{Fault::kMisaligned};
      run = std::min(length - done, found.length);
      if (!check) use(*found.region, found.offset, run);
    }
  }
  return {};
}

Result<void, Fault> Memory::set_poison(PhysAddr at, std::uint64_t length) {
  {
    const MutexLock lock(mutex_);
    const auto done = for_host_ram_locked(
        at, length, [](Region& region, std::uint64_t first, std::uint64_t size_bytes) {
          PoisonMap* map = region.poison.load(std::memory_order_relaxed);
          if (map == nullptr) {
            map = PoisonMap::create(region.size_bytes).release();
            region.poison.store(map, std::memory_order_release);
          }
          map->set(first, size_bytes);
        });
    if (!done) return done;
    if (!planted_fault("memory-poison-keeps-version")) {
      version_.fetch_add(1, std::memory_order_release);
    }
  }
  rcu::rcu_synchronize();  // for who looked before, and for host pointers of the old version
  return {};
}

Result<void, Fault> Memory::clear_poison(PhysAddr at, std::uint64_t length) {
  const MutexLock lock(mutex_);
  return for_host_ram_locked(at, length,
                             [](Region& region, std::uint64_t first, std::uint64_t size_bytes) {
                               PoisonMap* const map = region.poison.load(std::memory_order_relaxed);
                               if (map != nullptr) map->clear(first, size_bytes);
                             });
}

Outcome Memory::read(PhysAddr at, std::span<std::byte> to) const { return access(*this, at, to); }

Outcome Memory::write(PhysAddr at, std::span<const std::byte> from) const {
  return access(*this, at, from);
}

Fault Memory::Reader::find(PhysAddr at) {
  const View& view = *rcu::dereference(memory_.view_);  // (V)
  return view.find(at.value, [&](const Decoded& found) {
    if (found.region == nullptr) return Fault::kNoRegion;
    if (found.region->host == nullptr) return Fault::kMisaligned;
    base_ = at.value - found.before;
    size_bytes_ = found.before + found.length;
    offset_ = found.offset - found.before;
    host_ = found.region->host + offset_;
    writable_ = found.writable;
    poison_ = found.region->poison.load(std::memory_order_acquire);
    return Fault::kNone;
  });
}

bool Memory::Reader::is_poisoned(PhysAddr at) const {
  return poison_->at(offset_ + (at.value - base_));
}

void Memory::Reader::written(PhysAddr at, std::size_t size_bytes) const {
  poison_->clear_written(offset_ + (at.value - base_), size_bytes);
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
Result<void, Fault> Memory::set_bits64(PhysAddr at, std::uint64_t bits) const {
  return Reader(*this).set_bits64(at, bits);
}

Target Memory::resolve(PhysAddr at, std::size_t length, bool write) const {
  Target target;
  const Decoded found = rcu::dereference(view_)->find(at.value);  // (V)
  if (found.region == nullptr) {
    target.fault = Fault::kNoRegion;
    return target;
  }
  if (write && !found.writable) {
    target.fault = Fault::kReadOnly;
    return target;
  }
  target.length = std::min<std::uint64_t>(length, found.length);
  if (found.region->host == nullptr) {
    // Our section orders it before (P).
    found.region->pins.fetch_add(1, std::memory_order_relaxed);
    target.io.region_ = found.region;
    target.io.offset_ = found.offset;
    return target;
  }
  target.host = found.region->host + found.offset;
  PoisonMap* const poison = found.region->poison.load(std::memory_order_acquire);
  if (poison == nullptr) [[likely]]
    return target;
  if (write) {
    target.poison_ = poison;
    target.offset_ = found.offset;
  } else if (const auto bad = poison->find(found.offset, target.length)) {
    target.length = *bad - found.offset;
    if (target.length == 0) {
      target.host = nullptr;
      target.fault = Fault::kPoisoned;
    }
  }
  return target;
}

std::byte* Memory::host_pointer(PhysAddr at, std::size_t length) const {
  const std::scoped_lock reader(rcu_default_domain());
  const Decoded found = rcu::dereference(view_)->find(at.value);  // (V)
  if (found.region == nullptr || found.region->host == nullptr || !found.writable ||
      length > found.length) {
    return nullptr;
  }
  PoisonMap* const poison = found.region->poison.load(std::memory_order_acquire);
  if (poison != nullptr && poison->find(found.offset, length)) return nullptr;
  return found.region->host + found.offset;
}

}  // namespace tandem::memory
