// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {
namespace {

using detail::IotlbContext;
using detail::Transaction;

/// The untranslated request that the registers ask for: for execution, for reading, or for both
/// reading and writing, which a page that can be written always allows. Exe without NW is
/// UNSPECIFIED: execution.
Transaction make_transaction(const detail::DebugTranslation::Request& request) {
  const std::uint64_t control = request.control;
  Transaction transaction;
  transaction.type = TransactionType::kUntranslatedRead;
  transaction.access = Access::kRead;
  if (TrReqCtl::Exe::get(control) != 0) {
    transaction.type = TransactionType::kUntranslatedExecute;
    transaction.access = Access::kExecute;
  } else if (TrReqCtl::Nw::get(control) == 0) {
    transaction.type = TransactionType::kUntranslatedWrite;
    transaction.access = Access::kWrite;
    transaction.wants_write = true;
  }
  transaction.device = DeviceId{static_cast<std::uint32_t>(TrReqCtl::Did::get(control))};
  if (TrReqCtl::Pv::get(control) != 0) {
    transaction.requester.pasid = Pasid{static_cast<std::uint32_t>(TrReqCtl::Pid::get(control))};
    transaction.requester.privileged = TrReqCtl::Priv::get(control) != 0;
  }
  transaction.at = Iova{request.iova};
  transaction.for_debug = true;
  return transaction;
}

/// The size goes into the low bits of PPN: a 0 above as many ones as make it.
std::uint64_t make_response(const Translation& translation) {
  const std::uint64_t ppn = translation.address.value >> kPageShift;
  const std::uint64_t type =
      TrResponse::Pbmt::make(static_cast<std::uint64_t>(translation.memory_type));
  if (translation.log2_size == kPageShift) return type | TrResponse::Ppn::make(ppn);
  const std::uint64_t pages = std::uint64_t{1} << (translation.log2_size - kPageShift);
  return type | TrResponse::S::make(1) |
         TrResponse::Ppn::make((ppn & ~(pages - 1)) | (pages / 2 - 1));
}

}  // namespace

namespace detail {

std::uint64_t DebugTranslation::iova() const {
  const MutexLock lock(mutex_);
  return request_.iova;
}

std::uint64_t DebugTranslation::control() const {
  const MutexLock lock(mutex_);
  return request_.control;
}

std::uint64_t DebugTranslation::response() const {
  const MutexLock lock(mutex_);
  return response_;
}

void DebugTranslation::write_iova(std::uint64_t value, std::uint64_t mask) {
  const MutexLock lock(mutex_);
  if (TrReqCtl::Go::get(request_.control) != 0) return;  // UNSPECIFIED: ignored
  request_.iova = merged(request_.iova, value, mask) & TrReqIova::Vpn::kMask;
}

std::optional<DebugTranslation::Request> DebugTranslation::write_control(std::uint64_t value,
                                                                         std::uint64_t mask) {
  const MutexLock lock(mutex_);
  if (TrReqCtl::Go::get(request_.control) != 0) return std::nullopt;  // UNSPECIFIED: ignored
  request_.control = merged(request_.control, value, mask) & TrReqCtl::kDefined;
  if (TrReqCtl::Go::get(request_.control) == 0) return std::nullopt;
  return request_;
}

void DebugTranslation::respond(std::uint64_t response) {
  const MutexLock lock(mutex_);
  response_ = response;
  request_.control &= ~TrReqCtl::Go::kMask;
}

void DebugTranslation::reset() {
  const MutexLock lock(mutex_);
  request_ = {};
  response_ = 0;
}

}  // namespace detail

/// As an untranslated request, faults included, but past the IOTLB. (What it finds is cached.)
void Iommu::State::translate_for_debug(const detail::DebugTranslation::Request& request) {
  const Transaction transaction = make_transaction(request);
  Leftover left;
  count_request(HpmEvent::kUntranslatedRequest, transaction.device, transaction.requester, left);
  const auto made = translate(
      transaction, IotlbContext::untranslated(transaction.device, transaction.requester), left);
  if (!made) left.refusal = {made.error(), transaction.type, transaction.at};
  finish(left, transaction.device, transaction.requester);
  debug.respond(made ? make_response(*made) : TrResponse::Fault::make(1));
}

}  // namespace tandem::iommu
