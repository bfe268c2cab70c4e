// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/state.hpp"

namespace tandem::iommu {
namespace {

using detail::Iotlb;
using detail::IotlbContext;
using detail::Transaction;

/// How a failed translation request is answered; a success without permissions reports no fault.
/// Spec: §3.6 "PCIe ATS translation request handling".
AtsCompletion::Status ats_status(Cause cause) {
  switch (cause) {
    case Cause::kInstructionPageFault:
    case Cause::kReadPageFault:
    case Cause::kWritePageFault:
    case Cause::kInstructionGuestPageFault:
    case Cause::kReadGuestPageFault:
    case Cause::kWriteGuestPageFault:
    case Cause::kPdtNotValid:
    case Cause::kMsiPteNotValid:
      return AtsCompletion::Status::kSuccess;
    case Cause::kAllInboundDisallowed:
    case Cause::kDdtLoadFault:
    case Cause::kDdtNotValid:
    case Cause::kDdtMisconfigured:
    case Cause::kTtypeBlocked:
      return AtsCompletion::Status::kUnsupportedRequest;
    default:
      return AtsCompletion::Status::kCompleterAbort;
  }
}

/// What of `allowed`, the table's permissions, the requester is told. What it did not get is no
/// fault: write without NW, read, execute. X comes only with R, and only when asked for; Global
/// takes a PASID.
Translation granted(Translation allowed, const Requester& requester, bool execute) {
  allowed.writable = allowed.readable && allowed.writable;
  allowed.executable = execute && allowed.readable && allowed.executable;
  allowed.global = allowed.global && requester.pasid.has_value();
  return allowed;
}

}  // namespace

/// Spec: §3.6 "PCIe ATS translation request handling". An execute request is known by the PASID
/// prefix that carries it. N and AMA of the completion are always 0.
AtsCompletion Port::ats_translate(const Requester& requester, Iova at, const AtsRequest& request) {
  Leftover left;
  const AtsCompletion completion = answer(requester, at, request, left);
  finish(requester, left);
  return completion;
}

AtsCompletion Port::answer(const Requester& requester, Iova at, const AtsRequest& request,
                           Leftover& left) {
  Iommu::State& state = *iommu_.state_;
  state.count_request(HpmEvent::kTranslationRequest, id_, requester, left);
  const auto context = IotlbContext::translation_request(id_, requester);
  const bool execute = request.execute && requester.pasid;
  detail::Attributes need = Iotlb::kNeedRead;
  if (!request.no_write) need |= Iotlb::kNeedWrite;
  if (execute) need |= Iotlb::kNeedExecute;
  AtsCompletion completion;
  completion.privileged = requester.pasid && requester.privileged;
  const auto succeed = [&](const Translation& allowed) {
    completion.translation = granted(allowed, requester, execute);
    completion.untranslated_only = allowed.mrif;
    // Where the text leaves the bit open it is 0.
    completion.cxl_io = request.cxl && (allowed.msi || allowed.guest_address ||
                                        allowed.memory_type != MemoryType::kPma);
    return completion;
  };
  if (detail::pasid_exists(requester)) {
    if (const auto hit = state.iotlb.lookup(context, at, need, left.stamp)) {
      state.iotlb_hits.add();
      return succeed(hit->translation(at));
    }
  }
  const Transaction transaction{TransactionType::kAtsTranslationRequest,
                                id_,
                                requester,
                                at,
                                execute ? Access::kExecute : Access::kRead,
                                !request.no_write};
  const auto made = state.translate(transaction, context, left);
  if (made) return succeed(*made);
  completion.status = ats_status(made.error().cause);
  if (completion.status == AtsCompletion::Status::kSuccess) {
    Translation nothing;
    nothing.guest_address = made.error().guest_addresses;
    return succeed(nothing);
  }
  left.refusal = {made.error(), transaction.type, at};
  return completion;
}

}  // namespace tandem::iommu
