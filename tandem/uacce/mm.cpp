// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "tandem/base/planted_fault.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/detail/host_state.hpp"

namespace tandem::uacce::detail {

using iommu::kPageBytes;
using memory::PhysAddr;

namespace {

/// How long unbind() waits for accesses to the process's memory to end.
constexpr std::chrono::milliseconds kDrainTimeout{1000};
/// 4 TiB of one process at a time.
constexpr std::size_t kWindowsMax = 4096;
/// How long a window stays open after its last translation is gone, unless too many wait: longer
/// than an engine takes from a translation to the access.
constexpr std::chrono::seconds kWindowRest{1};
constexpr std::size_t kPrunedMax = 4;

std::uint64_t page_of(std::uint64_t address) { return address & ~(kPageBytes - 1); }

}  // namespace

// ---- Page requests ----------------------------------------------------------------------------

iommu::PageResponse::Code Mm::State::serve(std::uint64_t address, bool read, bool write) {
  TANDEM_TRACE(page_service_begin, pasid.value, address, write);
  const Code code = serve_checked(address, read, write);
  TANDEM_TRACE(page_service_end, pasid.value, address, code);
  auto& counter = code == Code::kSuccess ? faults_served : faults_refused;
  counter.fetch_add(1, std::memory_order_relaxed);
  return code;
}

iommu::PageResponse::Code Mm::State::serve_checked(std::uint64_t address, bool read, bool write) {
  std::uint64_t refusals = 0;
  {
    const MutexLock lock(mutex_);
    if (!bound || address >= kUserAddressEnd || refused_pages.count(page_of(address)) != 0) {
      return Code::kInvalidRequest;
    }
    const Attachment* const attachment = attachment_at_locked(address);
    if (attachment != nullptr) return map_reserved_locked(*attachment, address);
    if (client == nullptr) return Code::kInvalidRequest;
    refusals = client->refusals();
    const Vma* const known = known_mappings.find(address, read || !write, write, refusals);
    if (known != nullptr) return map_aperture_locked(*known, address);
  }
  // Asking the process's mapping may block on that process, so no lock is held.
  const auto running = client->in_flight().enter();
  if (!running) return Code::kInvalidRequest;
  const auto vma = client->usable(address, read || !write, write);
  if (!vma) return Code::kInvalidRequest;
  const MutexLock lock(mutex_);
  known_mappings.remember(*vma, refusals);
  if (!bound || special_locked(page_of(address), page_of(address) + kPageBytes)) {
    // Attached, refused or unbound meanwhile: let the device ask again, or fail.
    const Attachment* const attachment = bound ? attachment_at_locked(address) : nullptr;
    return attachment != nullptr ? map_reserved_locked(*attachment, address)
                                 : Code::kInvalidRequest;
  }
  return map_aperture_locked(*vma, address);
}

const Mm::State::Attachment* Mm::State::attachment_at_locked(std::uint64_t address) const {
  auto after = attachments.upper_bound(address);
  if (after == attachments.begin()) return nullptr;
  const Attachment& candidate = std::prev(after)->second;
  return address < candidate.end ? &candidate : nullptr;
}

bool Mm::State::special_locked(std::uint64_t first, std::uint64_t last) const {
  const auto refused = refused_pages.lower_bound(first);
  if (refused != refused_pages.end() && *refused < last) return true;
  const auto next = attachments.lower_bound(first);
  if (next != attachments.end() && next->first < last) return true;
  return attachment_at_locked(first) != nullptr;
}

iommu::PageResponse::Code Mm::State::map_reserved_locked(const Attachment& attachment,
                                                         std::uint64_t address) {
  for (bool pruned_before = false;; pruned_before = true) {
    if (map_around_locked(address, attachment.start, attachment.end, attachment.memory->base(),
                          {true, true})) {
      return Code::kSuccess;
    }
    // Response Failure would end the device's page requests, of everybody.
    if (pruned_before) return Code::kInvalidRequest;
    prune_locked();
  }
}

iommu::PageResponse::Code Mm::State::map_aperture_locked(const Vma& vma, std::uint64_t address) {
  for (bool pruned_before = false;; pruned_before = true) {
    if (map_in_window_locked(vma, address)) return Code::kSuccess;
    if (pruned_before) return Code::kInvalidRequest;
    prune_locked();
  }
}

Result<void> Mm::State::map_in_window_locked(const Vma& vma, std::uint64_t address) {
  const auto window = window_locked(address);
  if (!window) return Unexpected{window.error()};
  const std::uint64_t window_start = address & ~(Aperture::kWindowBytes - 1);
  std::uint64_t first = std::max(vma.start, window_start);
  std::uint64_t last = std::min(vma.end, window_start + Aperture::kWindowBytes);
  // Reserved memory attached inside the mapping is not the mapping's.
  const auto after = attachments.lower_bound(address);
  if (after != attachments.end()) last = std::min(last, after->first);
  if (after != attachments.begin()) first = std::max(first, std::prev(after)->second.end);
  return map_around_locked(address, first, last,
                           Aperture::base_of(*window).plus(first - window_start),
                           {vma.readable, vma.writable});
}

Result<void> Mm::State::map_around_locked(std::uint64_t address, std::uint64_t first,
                                          std::uint64_t last, PhysAddr to_first,
                                          PageRights rights) {
  const auto physical = [start = first, to_first](std::uint64_t at) {
    return to_first.plus(at - start);
  };
  // A refused page bounds the range as the mapping's ends do.
  const auto above = refused_pages.upper_bound(address);
  if (above != refused_pages.end()) last = std::min(last, *above);
  if (above != refused_pages.begin()) first = std::max(first, *std::prev(above) + kPageBytes);
  PageTable::Change change;
  Result<void> mapped;
  unsigned level = table.level_without_table(address, kLeafLevelMax);
  for (; level > 0; --level) {
    const std::uint64_t span = level_bytes(level);
    const std::uint64_t start = address & ~(span - 1);
    if (start < first || last - start < span || physical(start).value % span != 0) continue;
    mapped = table.map(start, physical(start), level, rights, change);
    break;
  }
  if (level == 0) {
    const std::uint64_t block = address & ~(level_bytes(1) - 1);
    const std::uint64_t from = std::max(first, block);
    const std::uint64_t to = std::min(last, block + level_bytes(1));
    mapped = table.map_pages(from, to, physical(from), rights, change);
  }
  // A device that keeps an old, narrower translation faults again; it is not let in anywhere.
  (void)commit_locked(change);
  return mapped;
}

void Mm::State::prune_locked() {
  PageTable::Change change;
  table.unmap_all(change);
  // A device that works in place goes on; what it works on stays attached.
  (void)commit_locked(change);
  const auto now = std::chrono::steady_clock::now();
  std::vector<WindowNumber> numbers;
  for (const auto& [gib, number] : windows) numbers.push_back(number);
  windows.clear();
  pruned.push_back({now, std::move(numbers)});
  while (pruned.size() > kPrunedMax || now - pruned.front().since >= kWindowRest) {
    host->aperture->close(pruned.front().windows, true);
    pruned.erase(pruned.begin());
  }
}

std::vector<WindowNumber> Mm::State::all_windows_locked() const {
  std::vector<WindowNumber> numbers;
  for (const auto& [gib, number] : windows) numbers.push_back(number);
  for (const auto& before : pruned) {
    numbers.insert(numbers.end(), before.windows.begin(), before.windows.end());
  }
  return numbers;
}

Result<WindowNumber> Mm::State::window_locked(std::uint64_t address) {
  const std::uint64_t gib = address >> Aperture::kWindowShift;
  const auto found = windows.find(gib);
  if (found != windows.end()) return found->second;
  if (windows.size() >= kWindowsMax) return errno_error(ENOSPC);
  const auto window = host->aperture->open(client, gib << Aperture::kWindowShift);
  if (window) windows.emplace(gib, *window);
  return window;
}

bool Mm::State::commit_locked(PageTable::Change& change) {
  if (!change.stale()) return true;
  const bool completed =
      host->driver.invalidate(pasid, change.first, change.last, !change.unlinked.empty());
  // Only the IOMMU walks tables, and it has passed the fence even when a device has not answered.
  for (const PhysAddr page : change.unlinked) host->tables.free(page);
  return completed;
}

// ---- Reserved memory --------------------------------------------------------------------------

Result<void> Mm::State::attach(const std::shared_ptr<ReservedMemory>& memory,
                               std::uint64_t address) {
  if (memory == nullptr || address % kPageBytes != 0 || address >= kUserAddressEnd ||
      memory->size() > kUserAddressEnd - address) {
    return errno_error(EINVAL);
  }
  const std::uint64_t end = address + memory->size();
  const MutexLock lock(mutex_);
  if (!bound) return errno_error(EINVAL);
  const auto next = attachments.lower_bound(address);
  const bool overlaps =
      (next != attachments.end() && next->first < end) || attachment_at_locked(address) != nullptr;
  const bool attached = std::any_of(attachments.begin(), attachments.end(), [&](const auto& entry) {
    return entry.second.memory == memory;
  });
  if (overlaps || attached) return errno_error(EEXIST);
  // What the range was before, ordinary memory, must be forgotten first.
  PageTable::Change change;
  table.unmap(address, end, change);
  if (!commit_locked(change)) return errno_error(ETIMEDOUT);
  attachments[address] = {address, end, memory};
  return {};
}

Result<void> Mm::State::detach(const ReservedMemory& memory) {
  std::shared_ptr<ReservedMemory> last_reference;  // dropped after the lock
  const MutexLock lock(mutex_);
  const auto found = std::find_if(attachments.begin(), attachments.end(), [&](const auto& entry) {
    return entry.second.memory.get() == &memory;
  });
  if (found == attachments.end()) return errno_error(ENOENT);
  const Attachment attachment = found->second;
  last_reference = attachment.memory;
  attachments.erase(found);
  PageTable::Change change;
  table.unmap(attachment.start, attachment.end, change);
  if (planted_fault("uacce-skip-invalidation")) return {};
  if (commit_locked(change)) return {};
  lingering.push_back(last_reference);
  return errno_error(ETIMEDOUT);
}

void Mm::State::forget(const ReservedMemory& memory) {
  std::vector<std::shared_ptr<ReservedMemory>> dropped;  // after the locks
  const auto take = [&](std::vector<std::shared_ptr<ReservedMemory>>& from) {
    for (auto at = from.begin(); at != from.end();) {
      if (at->get() != &memory) {
        ++at;
        continue;
      }
      dropped.push_back(std::move(*at));
      at = from.erase(at);
    }
  };
  const MutexLock lock(mutex_);
  take(lingering);
  if (!is_quarantined) return;
  const MutexLock host_lock(host->mutex_);
  take(host->quarantined[pasid.value]);
}

// ---- Questions --------------------------------------------------------------------------------

AddressKind Mm::State::classify(std::uint64_t address) {
  {
    const MutexLock lock(mutex_);
    if (!bound || address >= kUserAddressEnd || refused_pages.count(page_of(address)) != 0) {
      return AddressKind::kUnmapped;
    }
    if (attachment_at_locked(address) != nullptr) return AddressKind::kAccessible;
  }
  return client == nullptr ? AddressKind::kNeedsStaging : client->classify(address);
}

std::vector<PageTable::Step> Mm::State::walk(std::uint64_t address) const {
  const MutexLock lock(mutex_);
  return bound ? table.walk(address) : std::vector<PageTable::Step>{};
}

void Mm::State::revoke_page(std::uint64_t address, bool refuse) {
  const std::uint64_t page = page_of(address);
  if (page >= kUserAddressEnd) return;
  const MutexLock lock(mutex_);
  if (!bound) return;
  if (refuse) refused_pages.insert(page);
  PageTable::Change change;
  table.unmap(page, page + kPageBytes, change);
  (void)commit_locked(change);
}

// ---- The end ----------------------------------------------------------------------------------

bool Mm::State::unbind() {
  const MutexLock one_at_a_time(unbind_mutex_);
  {
    const MutexLock lock(mutex_);
    if (!bound) return !is_quarantined;
    bound = false;  // page requests are refused from here on
  }
  TANDEM_TRACE(pasid_unbind, pasid.value, 0);
  if (auto* const entry = host->spaces.erase(pasid.value)) entry->retire();
  if (client != nullptr) client->in_flight().close();
  if (planted_fault("uacce-early-pasid-reuse")) {
    host->pasids.free_for_reuse_at_once(pasid);
    const MutexLock lock(mutex_);
    release_locked();
    return true;
  }
  bool ended = host->driver.clear_process(pasid);
  const bool is_condemned = condemned.load(std::memory_order_relaxed);
  if (client != nullptr && !is_condemned) {
    ended = client->in_flight().wait_idle(kDrainTimeout) && ended;
  }
  // A request of this space that nobody has taken yet must not be answered for the next one.
  host->driver.serve_left_of(pasid);
  const MutexLock lock(mutex_);
  if (!ended || is_condemned) {
    quarantine_locked();
    return false;
  }
  release_locked();
  host->pasids.free(pasid);
  return true;
}

void Mm::State::release_locked() {
  table.free_all();
  host->aperture->close(all_windows_locked(), true);
  windows.clear();
  pruned.clear();
  attachments.clear();
  lingering.clear();
}

void Mm::State::quarantine_locked() {
  is_quarantined = true;
  // The windows refuse from here on, and their numbers, like the table's pages and the PASID, are
  // not given to anyone before reclaim(). Reserved memory stays where it is.
  host->aperture->close(all_windows_locked(), false);
  const MutexLock lock(host->mutex_);
  auto& memory = host->quarantined[pasid.value];
  for (const auto& [start, attachment] : attachments) memory.push_back(attachment.memory);
  memory.insert(memory.end(), lingering.begin(), lingering.end());
}

bool Mm::State::reclaim() {
  const MutexLock one_at_a_time(unbind_mutex_);
  {
    const MutexLock lock(mutex_);
    if (!is_quarantined) return !bound;
  }
  if (client != nullptr && !client->in_flight().wait_idle(std::chrono::milliseconds(0))) {
    return false;
  }
  // Once more: a device that did not complete then must do so now.
  if (!host->driver.clear_process(pasid)) return false;
  std::vector<std::shared_ptr<ReservedMemory>> memory;  // dropped after the locks
  const MutexLock lock(mutex_);
  is_quarantined = false;
  release_locked();
  {
    const MutexLock host_lock(host->mutex_);
    const auto kept = host->quarantined.find(pasid.value);
    memory = std::move(kept->second);
    host->quarantined.erase(kept);
  }
  host->pasids.free(pasid);
  return true;
}

// ---- Mm ---------------------------------------------------------------------------------------

Mm::Mm(std::shared_ptr<State> state) : state_(std::move(state)) {}

Mm::~Mm() { (void)unbind(); }

iommu::Pasid Mm::pasid() const { return state_->pasid; }

Result<std::shared_ptr<ReservedMemory>> Mm::reserve(std::uint64_t size_bytes) {
  return ReservedMemory::create(state_->host->physical, size_bytes);
}

const UniqueFd& Mm::descriptor(const ReservedMemory& memory) { return memory.descriptor(); }

std::uint64_t Mm::size(const ReservedMemory& memory) { return memory.size(); }

Result<void> Mm::attach(const std::shared_ptr<ReservedMemory>& memory, std::uint64_t address) {
  return state_->attach(memory, address);
}

Result<void> Mm::detach(const ReservedMemory& memory) { return state_->detach(memory); }

void Mm::forget(const ReservedMemory& memory) { state_->forget(memory); }

Result<void> Mm::read(std::uint64_t address, std::span<std::byte> to) const {
  const bool read = state_->client != nullptr && state_->client->read(address, to).ok();
  if (!read) return errno_error(EFAULT);
  return {};
}

bool Mm::alive() const { return state_->client == nullptr || state_->client->alive(); }

AddressKind Mm::classify(std::uint64_t address) const { return state_->classify(address); }

MmStats Mm::stats() const {
  return {state_->faults_served.load(std::memory_order_relaxed),
          state_->faults_refused.load(std::memory_order_relaxed)};
}

void Mm::revoke_page(std::uint64_t address, bool refuse) { state_->revoke_page(address, refuse); }

bool Mm::stuck_for(std::chrono::milliseconds age) const {
  return state_->client != nullptr && state_->client->in_flight().older_than(age);
}

void Mm::condemn() { state_->condemned.store(true, std::memory_order_relaxed); }

bool Mm::unbind() { return state_->unbind(); }

bool Mm::reclaim() { return state_->reclaim(); }

}  // namespace tandem::uacce::detail
