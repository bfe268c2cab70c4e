// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/itag_table.hpp"

#include <algorithm>
#include <utility>

#include "tandem/base/planted_fault.hpp"

namespace tandem::iommu::detail {

std::optional<ItagTable::Tag> ItagTable::claim(DeviceId device, TimePoint deadline) {
  const MutexLock lock(mutex_);
  for (std::size_t i = 0; i < kCount; ++i) {
    const std::size_t itag = (sequence_ + i) % kCount;
    Request& request = requests_[itag];
    if (request.outstanding) continue;
    sequence_ += static_cast<std::uint32_t>(i) + 1;
    request = {true, device, sequence_, 0, deadline};
    ++outstanding_;
    return Tag{static_cast<std::uint8_t>(itag), sequence_};
  }
  waits_for_.store(Waits::kTag, std::memory_order_relaxed);
  return std::nullopt;
}

bool ItagTable::complete(DeviceId device, std::uint8_t itag, unsigned count,
                         std::optional<std::uint32_t> sequence) {
  const MutexLock lock(mutex_);
  if (itag >= kCount) return false;
  Request& request = requests_[itag];
  if (!request.outstanding) return false;
  if (!planted_fault("iommu-accept-wrong-itag") &&
      (request.device != device || (sequence && request.sequence != *sequence))) {
    return false;
  }
  if (++request.received < count) return false;
  end_locked(request, /*timed_out=*/false);
  return ready_locked();
}

void ItagTable::end_locked(Request& request, bool timed_out) {
  request.outstanding = false;
  --outstanding_;
  timed_out_ = timed_out_ || timed_out;
}

template <class Which>
bool ItagTable::expire_if(Which which) {
  const MutexLock lock(mutex_);
  for (Request& request : requests_) {
    if (request.outstanding && which(request)) end_locked(request, /*timed_out=*/true);
  }
  return ready_locked();
}

bool ItagTable::expire(TimePoint now) {
  return expire_if([&](const Request& request) { return request.deadline <= now; });
}

bool ItagTable::expire(DeviceId device) {
  return expire_if([&](const Request& request) { return request.device == device; });
}

bool ItagTable::expire(Tag tag) {
  return expire_if([&](const Request& request) { return request.sequence == tag.sequence; });
}

void ItagTable::note_time_out() {
  const MutexLock lock(mutex_);
  timed_out_ = true;
}

bool ItagTable::none_outstanding_or_wait() {
  const MutexLock lock(mutex_);
  if (outstanding_ == 0) return true;
  waits_for_.store(Waits::kAll, std::memory_order_relaxed);
  return false;
}

bool ItagTable::take_timed_out() {
  const MutexLock lock(mutex_);
  return std::exchange(timed_out_, false);
}

std::optional<ItagTable::TimePoint> ItagTable::next_deadline() const {
  const MutexLock lock(mutex_);
  if (ready_locked()) return TimePoint{};
  auto earliest = TimePoint::max();
  for (const Request& request : requests_) {
    if (request.outstanding) earliest = std::min(earliest, request.deadline);
  }
  return earliest == TimePoint::max() ? std::nullopt : std::optional(earliest);
}

bool ItagTable::ready_locked() const {
  switch (waits_for_.load(std::memory_order_relaxed)) {
    case Waits::kNothing:
      return false;
    case Waits::kTag:
      return outstanding_ < kCount;
    case Waits::kAll:
      return outstanding_ == 0;
  }
  return false;
}

}  // namespace tandem::iommu::detail
