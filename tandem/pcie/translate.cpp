// SPDX-License-Identifier: Apache-2.0
#include "tandem/pcie/detail/translate.hpp"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>

#include "tandem/rcu/rcu.hpp"

namespace tandem::pcie::detail {
namespace {

using Status = iommu::AtsCompletion::Status;
using Reason = DmaFault::Reason;

constexpr unsigned kPageShift = 12;
constexpr std::uint64_t kPageMask = (1U << kPageShift) - 1;

unsigned permissions_of(const iommu::AtsCompletion& completion) {
  const iommu::Translation& translation = completion.translation;
  return (translation.readable ? kReadable : 0) | (translation.writable ? kWritable : 0) |
         (translation.executable ? kExecutable : 0) | (completion.privileged ? kPrivileged : 0) |
         (completion.translation.guest_address ? kGuestAddress : 0);
}

bool is_writable_ram(const memory::Memory& memory, memory::PhysAddr at) {
  const std::scoped_lock reader(rcu::rcu_default_domain());
  return memory.resolve(at, 1, /*write=*/true).host != nullptr;
}

/// The translation of `at` as the ATC keeps it. If host RAM is behind only a part of a superpage,
/// the largest common page size that has host RAM behind all of it is kept.
CachedTranslation to_cached(const memory::Memory& memory, const iommu::AtsCompletion& completion,
                            std::uint64_t at) {
  const iommu::Translation& translation = completion.translation;
  constexpr unsigned kLargest = 56;
  const unsigned whole = std::clamp<unsigned>(translation.log2_size, 12, kLargest);
  CachedTranslation cached;
  cached.permissions = permissions_of(completion);
  cached.version = memory.version();  // before the look-up: a removal in between voids the entry
  for (const unsigned log2_size : {whole, 30u, 21u, 16u, 12u}) {
    if (log2_size > whole) continue;
    const std::uint64_t size_bytes = std::uint64_t{1} << log2_size;
    const std::uint64_t offset = at & (size_bytes - 1);
    const memory::PhysAddr start{translation.address.value - offset};
    std::byte* const host =
        completion.translation.guest_address ? nullptr : memory.host_pointer(start, size_bytes);
    if (host != nullptr || log2_size == whole) {
      cached.log2_size = log2_size;
      cached.iova = at - offset;
      cached.physical = start.value;
      cached.host = host;
    }
    if (host != nullptr) break;
  }
  if (cached.host == nullptr && whole > kPageShift && !translation.guest_address &&
      is_writable_ram(memory, translation.address)) {
    // Its own page is poisoned: the rest of a superpage is not to be kept with it.
    cached.log2_size = kPageShift;
    cached.iova = at & ~kPageMask;
    cached.physical = translation.address.value & ~kPageMask;
  }
  return cached;
}

}  // namespace

iommu::AtsCompletion Translator::request(Iova page) {
  const bool no_write = access_ != Access::kWrite;
  const bool execute = access_ == Access::kExecute;
  Message message;
  state_.show([&] {
    message.kind = Message::Kind::kTranslationRequest;
    message.device = state_.id;
    message.set_requester(requester_);
    message.address = page;
    message.size_bytes = kPageMask + 1;
    message.readable = true;
    message.writable = !no_write;
    message.executable = execute;
    return message;
  });
  const iommu::AtsCompletion completion =
      state_.port->ats_translate(requester_, page, {.no_write = no_write, .execute = execute});
  state_.show([&] {
    message.kind = Message::Kind::kTranslationCompletion;
    message.device = state_.id;
    message.set_requester(requester_);
    message.address = page;
    message.size_bytes = std::uint64_t{1}
                         << std::min<unsigned>(completion.translation.log2_size, 63);
    message.physical_address = completion.translation.address.value;
    message.readable = completion.translation.readable;
    message.writable = completion.translation.writable;
    message.executable = completion.translation.executable;
    message.status = static_cast<std::uint8_t>(completion.status);
    return message;
  });
  return completion;
}

Result<Fresh, Reason> Translator::translate(Iova at) {
  const Iova page{at.value & ~kPageMask};
  while (++requests_ <= kMaxRequests) {
    const Atc::Ticket ticket = state_.atc.ticket(space_);
    // After the ticket: the end of a life stores the controls before it advances the generation, so
    // who still finds the life here does not fill the ATC after it was emptied.
    if (!alive()) return Unexpected{Reason::kDisabled};
    const iommu::AtsCompletion completion = request(page);
    if (completion.status != Status::kSuccess) return Unexpected{Reason::kBlocked};
    const unsigned needed = permissions();
    if ((permissions_of(completion) & needed) == needed) {
      if (completion.untranslated_only) {
        return Fresh{{.iova = page.value, .permissions = needed}, ticket, true};
      }
      const CachedTranslation cached = to_cached(state_.memory(), completion, page.value);
      state_.atc.fill(space_, ticket, cached);
      return Fresh{cached, ticket};
    }
    if (const auto served = request_page(page); !served) return Unexpected{served.error()};
  }
  return Unexpected{Reason::kNotPermitted};
}

Result<void, Reason> Translator::request_page(Iova at) {
  if (!state_.requests_pages()) return Unexpected{Reason::kNoService};
  if (thread_state.windows != 0) return Unexpected{Reason::kNotMappable};
  if (++page_requests_ > kMaxPageRequests) return Unexpected{Reason::kNotPermitted};
  // An overflowing page-request queue answers "success" at once: give its owner time.
  if (page_requests_ > 2) {
    std::this_thread::sleep_for(std::chrono::microseconds(10) * (1 << page_requests_));
  }

  return request_group(state_, began_, requester_, {at.value & ~kPageMask}, 1, access_);
}

}  // namespace tandem::pcie::detail
