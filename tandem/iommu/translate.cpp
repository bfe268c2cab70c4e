// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tandem/iommu/detail/directory.hpp"
#include "tandem/iommu/detail/msi_translate.hpp"
#include "tandem/iommu/detail/state.hpp"
#include "tandem/iommu/detail/walk.hpp"

namespace tandem::iommu {
namespace {

using detail::FirstStage;
using detail::Generations;
using detail::Transaction;
using detail::TransactionFault;

using detail::WalkFault;

FirstStage make_first_stage(const DeviceContext& device, std::uint64_t fsc, std::uint64_t pscid,
                            bool sum) {
  detail::Scheme scheme = detail::scheme_of(static_cast<FirstStageMode>(Fsc::Mode::get(fsc)),
                                            device.has_32_bit_addresses());
  scheme.big_endian = device.has_big_endian_tables();
  return {scheme, Fsc::Ppn::get(fsc), static_cast<std::uint32_t>(pscid), sum};
}

/// The process that a request's contexts and translations are cached under. Without a PASID: that
/// of tc.DPE.
std::uint32_t process_of(const Requester& requester) {
  return requester.pasid ? requester.pasid->value : 0;
}

bool is_translation_request(TransactionType type) {
  return type == TransactionType::kAtsTranslationRequest;
}

bool is_translated(TransactionType type) {
  return type == TransactionType::kTranslatedExecute || type == TransactionType::kTranslatedRead ||
         type == TransactionType::kTranslatedWrite;
}

/// With tc.T2GPA a device is told guest physical addresses. Spec: §3.1.3.1 "Translation control
/// (tc)".
bool answers_with_guest_address(const Transaction& transaction, const DeviceContext& device) {
  return is_translation_request(transaction.type) && device.returns_guest_addresses();
}

/// The address as it is: where the first stage, or no stage, translates.
Translation pass_through(const Transaction& transaction) {
  Translation translation;
  translation.address = PhysAddr{transaction.at.value};
  translation.log2_size = detail::kBareLog2Size;
  translation.readable = translation.writable = translation.executable = true;
  return translation;
}

/// What both stages allow, in the smaller of the two pages. The first stage's memory type, if it
/// names one, is the one that counts.
Translation combined(const Translation& first, const detail::GuestPage& second) {
  Translation translation = first;
  translation.address = second.address;
  translation.log2_size = std::min(first.log2_size, second.log2_size);
  translation.readable = first.readable && Pte::R::get(second.pte) != 0;
  translation.writable =
      first.writable && Pte::W::get(second.pte) != 0 && Pte::D::get(second.pte) != 0;
  translation.executable = first.executable && Pte::X::get(second.pte) != 0;
  if (first.memory_type == MemoryType::kPma) {
    translation.memory_type = static_cast<MemoryType>(Pte::Pbmt::get(second.pte));
  }
  return translation;
}

/// Step 7: whether the device context allows the transaction.
bool type_allowed(const Transaction& transaction, const DeviceContext& context) {
  const bool needs_ats =
      is_translated(transaction.type) || is_translation_request(transaction.type);
  if (needs_ats && !context.ats_enabled()) return false;
  if (!transaction.requester.pasid) return true;
  if (!context.uses_process_directory()) return false;
  const auto mode = static_cast<PdtpMode>(Fsc::Mode::get(context.fsc));
  const std::uint32_t pasid = transaction.requester.pasid->value;
  return pasid >> kPasidBits == 0 && detail::process_id_fits(mode, pasid);
}

}  // namespace

/// Spec: §3.3 "Process to translate an IOVA", steps 1 to 6.
Result<ExtendedDeviceContext, Cause> Iommu::State::locate_device(
    detail::TableReader& reader, const Generations::Snapshot& snapshot, std::uint64_t pointer,
    DeviceId device, detail::WalkCounts* counts) {
  const auto mode = static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(pointer));
  if (mode == Ddtp::ModeValue::kOff) return Unexpected{Cause::kAllInboundDisallowed};
  if (mode == Ddtp::ModeValue::kBare) return Unexpected{Cause::kTtypeBlocked};
  if (!detail::device_id_fits(config, detail::ddt_levels(pointer), device.value)) {
    return Unexpected{Cause::kTtypeBlocked};
  }
  if (const auto cached = contexts.find_device(device)) return *cached;
  if (counts != nullptr) ++counts->device_directory;
  const auto loaded = detail::load_device_context(reader, config, pointer, device.value);
  if (loaded) contexts.fill_device(device, *loaded, snapshot.of_device_context());
  return loaded;
}

Result<ExtendedDeviceContext, Cause> Iommu::State::device_context(DeviceId device,
                                                                  detail::WalkCounts* counts,
                                                                  std::uint64_t* used) {
  detail::TableReader reader(memory);
  const Generations::Snapshot snapshot(generations, device, /*process=*/0);
  const std::uint64_t pointer = ddtp.load(std::memory_order_acquire);
  if (used != nullptr) *used = pointer;
  return locate_device(reader, snapshot, pointer, device, counts);
}

/// Steps 14 and 15.
Result<ProcessContext, WalkFault> Iommu::State::locate_process(
    detail::TableReader& reader, const Generations::Snapshot& snapshot,
    const Transaction& transaction, const DeviceContext& device, std::uint32_t process,
    detail::WalkCounts& counts) {
  if (const auto cached = contexts.find_process(transaction.device, process)) return *cached;
  ++counts.process_directory;
  const auto loaded = detail::load_process_context(reader, config, device, process,
                                                   transaction.access, &counts.second_stage);
  if (loaded) {
    contexts.fill_process(transaction.device, process, *loaded, snapshot.of_process_context());
  }
  return loaded;
}

/// Steps 10 to 16: which first stage translates.
Result<FirstStage, WalkFault> Iommu::State::select_first_stage(
    detail::TableReader& reader, const Generations::Snapshot& snapshot,
    const Transaction& transaction, const DeviceContext& device, detail::WalkCounts& counts) {
  if (!device.uses_process_directory()) {
    return make_first_stage(device, device.fsc, DeviceContext::Ta::Pscid::get(device.ta), false);
  }
  const auto& pasid = transaction.requester.pasid;
  if (!pasid && !device.has_default_process()) return FirstStage{};
  if (static_cast<PdtpMode>(Fsc::Mode::get(device.fsc)) == PdtpMode::kBare) return FirstStage{};
  const std::uint32_t process = process_of(transaction.requester);
  counts.ids.process = Pasid{process};
  const auto found = locate_process(reader, snapshot, transaction, device, process, counts);
  if (!found) return Unexpected{found.error()};
  if (pasid && transaction.requester.privileged && !found->allows_supervisor()) {
    return Unexpected{WalkFault{Cause::kTtypeBlocked}};
  }
  return make_first_stage(device, found->fsc, ProcessContext::Ta::Pscid::get(found->ta),
                          found->supervisor_may_use_user_pages());
}

/// Step 17: to a guest physical address where there is a second stage, else to the result.
Result<Translation, WalkFault> Iommu::State::walk_first(detail::TableReader& reader,
                                                        const Transaction& transaction,
                                                        const detail::Walk& walk) {
  if (walk.scheme.is_bare()) return pass_through(transaction);
  walks.add();
  return detail::walk_first_stage(reader, config, walk);
}

/// Step 18.
Result<Translation, WalkFault> Iommu::State::reach_interrupt_file(
    detail::TableReader& reader, const Transaction& transaction,
    const ExtendedDeviceContext& device, const Translation& first) {
  const auto found = detail::translate_msi(reader, config, device, first.address.value);
  if (!found) return Unexpected{WalkFault{found.error()}};
  if (transaction.access == Access::kExecute && !is_translation_request(transaction.type)) {
    return Unexpected{WalkFault{Cause::kInstructionAccessFault}};
  }
  if (found->mrif && transaction.for_debug) return Unexpected{WalkFault{Cause::kTtypeBlocked}};
  Translation both = first;
  both.guest_address = !found->mrif && answers_with_guest_address(transaction, device);
  if (!both.guest_address) both.address = found->address;
  both.mrif = found->mrif.has_value();
  if (found->mrif && transaction.mrif != nullptr) *transaction.mrif = *found->mrif;
  both.log2_size = kPageShift;
  both.executable = false;
  both.global = false;
  both.msi = true;
  return both;
}

/// Step 19.
Result<Translation, WalkFault> Iommu::State::walk_second(detail::TableReader& reader,
                                                         const Transaction& transaction,
                                                         const ExtendedDeviceContext& device,
                                                         const detail::SecondStage& stage,
                                                         const Translation& first) {
  const std::uint64_t address = first.address.value;
  if (stage.is_bare()) {
    if (address >> memory::kPhysAddrBits == 0) return first;
    return Unexpected{WalkFault{detail::access_fault(transaction.access)}};
  }
  const detail::AccessTypes types = is_translation_request(transaction.type)
                                        ? detail::AccessTypes{}
                                        : detail::AccessTypes::of(transaction.access);
  const auto page =
      detail::translate_guest(reader, config, stage, address, types, transaction.wants_write);
  if (page) {
    Translation both = combined(first, *page);
    both.log2_size =
        static_cast<std::uint8_t>(detail::without_interrupt_files(device, address, both.log2_size));
    both.guest_address = answers_with_guest_address(transaction, device);
    if (both.guest_address) both.address = first.address;
    return both;
  }
  return Unexpected{detail::walk_fault(page.error(), transaction.access, address,
                                       /*implicit=*/false, /*write=*/false)};
}

Result<Translation, TransactionFault> Iommu::State::translate(const Transaction& transaction,
                                                              detail::IotlbContext context) {
  detail::WalkCounts counts{
      .ids = {.device = transaction.device, .process = transaction.requester.pasid}};
  const auto made = translate_counted(transaction, context, counts);
  count_walks(counts);
  return made;
}

Result<Translation, TransactionFault> Iommu::State::translate_counted(
    const Transaction& transaction, detail::IotlbContext context, detail::WalkCounts& counts) {
  iotlb_misses.add();
  detail::TableReader reader(memory);
  Generations::Snapshot snapshot(generations, transaction.device,
                                 process_of(transaction.requester));
  const std::uint64_t pointer = ddtp.load(std::memory_order_acquire);
  const auto mode = static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(pointer));
  if (mode == Ddtp::ModeValue::kBare && !is_translated(transaction.type) &&
      !is_translation_request(transaction.type)) {
    const auto passed =
        walk_second(reader, transaction, ExtendedDeviceContext{}, {}, pass_through(transaction));
    if (!passed) return Unexpected{TransactionFault{passed.error().cause}};
    return *passed;
  }

  const auto device = locate_device(reader, snapshot, pointer, transaction.device, &counts);
  if (!device) return Unexpected{TransactionFault{device.error()}};
  const auto fault = [&](const WalkFault& why) {
    return Unexpected{TransactionFault{why.cause, device->hides_translation_faults(), why.iotval2,
                                       device->returns_guest_addresses()}};
  };
  if (!type_allowed(transaction, *device)) return fault({Cause::kTtypeBlocked});
  if (is_translated(transaction.type) && !device->returns_guest_addresses()) {
    const auto passed =
        walk_second(reader, transaction, ExtendedDeviceContext{}, {}, pass_through(transaction));
    if (!passed) return fault(passed.error());
    snapshot.add_domain(std::nullopt);
    snapshot.add_space({}, transaction.at);
    iotlb.fill(context, transaction.at, *passed, snapshot.of_translation(passed->log2_size));
    return *passed;
  }

  detail::AddressSpaceId space;
  if (device->has_second_stage()) space.gscid = device->gscid();
  snapshot.add_domain(space.gscid);
  FirstStage stage;
  if (!is_translated(transaction.type)) {
    const auto selected = select_first_stage(reader, snapshot, transaction, *device, counts);
    if (!selected) return fault(selected.error());
    stage = *selected;
  }
  space.pscid = stage.pscid;
  snapshot.add_space(space, transaction.at);
  const Requester& requester = transaction.requester;
  detail::Walk walk;
  walk.scheme = stage.scheme;
  walk.root_ppn = stage.root_ppn;
  walk.at = transaction.at;
  walk.access = transaction.access;
  walk.report_permissions = is_translation_request(transaction.type);
  walk.wants_write = transaction.wants_write;
  walk.supervisor = requester.pasid.has_value() && requester.privileged;
  walk.sum = stage.sum;
  walk.updates_ad = device->updates_accessed_dirty();
  walk.second_stage = detail::make_second_stage(config, *device, &counts.second_stage);
  if (!stage.scheme.is_bare()) {
    counts.ids.pscid = stage.pscid;
    ++counts.first_stage;
  }
  if (device->has_second_stage()) counts.ids.gscid = device->gscid();
  ++counts.tlb_misses;
  const auto first = walk_first(reader, transaction, walk);
  if (!first) return fault(first.error());
  const auto made = detail::is_interrupt_file(*device, first->address.value)
                        ? reach_interrupt_file(reader, transaction, *device, *first)
                        : walk_second(reader, transaction, *device, walk.second_stage, *first);
  if (!made) return fault(made.error());
  if (!made->mrif) {
    iotlb.fill(context, transaction.at, *made, snapshot.of_translation(first->log2_size));
  }
  return *made;
}

}  // namespace tandem::iommu
