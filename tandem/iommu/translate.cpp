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

using detail::WalkFault;

/// Sets in `to` what `fsc`, of the device context or of a process context, says.
inline void set_tables(FirstStage& to, const DeviceContext& device, std::uint64_t fsc) {
  to.scheme = detail::scheme_of(static_cast<FirstStageMode>(Fsc::Mode::get(fsc)),
                                device.has_32_bit_addresses());
  to.scheme.big_endian = device.has_big_endian_tables();
  to.root_ppn = Fsc::Ppn::get(fsc);
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
void combine(Translation& first, const detail::GuestPage& second) {
  first.address = second.address;
  first.log2_size = std::min(first.log2_size, second.log2_size);
  first.readable = first.readable && Pte::R::get(second.pte) != 0;
  first.writable = first.writable && Pte::W::get(second.pte) != 0 && Pte::D::get(second.pte) != 0;
  first.executable = first.executable && Pte::X::get(second.pte) != 0;
  if (first.memory_type == MemoryType::kPma) {
    first.memory_type = static_cast<MemoryType>(Pte::Pbmt::get(second.pte));
  }
}

/// What of a walk the transaction says.
inline void set_request(detail::Walk& to, const Transaction& transaction) {
  const Requester& requester = transaction.requester;
  to.at = transaction.at;
  to.access = transaction.access;
  to.report_permissions = is_translation_request(transaction.type);
  to.wants_write = transaction.wants_write;
  to.supervisor = requester.pasid.has_value() && requester.privileged;
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
[[gnu::always_inline]] inline Result<void, Cause> Iommu::State::locate_device(
    detail::TableReader& reader, const Generations::Snapshot& snapshot, std::uint64_t pointer,
    DeviceId device, ExtendedDeviceContext& to) {
  const auto mode = static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(pointer));
  if (mode == Ddtp::ModeValue::kOff) return Unexpected{Cause::kAllInboundDisallowed};
  if (mode == Ddtp::ModeValue::kBare) return Unexpected{Cause::kTtypeBlocked};
  if (!detail::device_id_fits(config, detail::ddt_levels(pointer), device.value)) {
    return Unexpected{Cause::kTtypeBlocked};
  }
  if (contexts.find_device(device, to)) [[likely]]
    return {};
  const auto loaded = detail::load_device_context(reader, config, pointer, device.value);
  if (!loaded) return Unexpected{loaded.error()};
  contexts.fill_device(device, *loaded, snapshot.of_device_context());
  to = *loaded;
  return {};
}

Result<ExtendedDeviceContext, Cause> Iommu::State::device_context(DeviceId device,
                                                                  detail::TableLoads* loads,
                                                                  std::uint64_t* used) {
  detail::TableReader reader(memory);
  const Generations::Snapshot snapshot(generations, device, /*process=*/0);
  const std::uint64_t pointer = ddtp.load(std::memory_order_acquire);
  if (used != nullptr) *used = pointer;
  ExtendedDeviceContext context;
  const auto located = locate_device(reader, snapshot, pointer, device, context);
  if (loads != nullptr) *loads = reader.loads;
  if (!located) return Unexpected{located.error()};
  return context;
}

/// Steps 14 and 15.
[[gnu::always_inline]] inline Result<void, WalkFault> Iommu::State::locate_process(
    detail::TableReader& reader, const Generations::Snapshot& snapshot,
    const Transaction& transaction, const DeviceContext& device, std::uint32_t process,
    ProcessContext& to) {
  if (contexts.find_process(transaction.device, process, to)) [[likely]]
    return {};
  const auto loaded =
      detail::load_process_context(reader, config, device, process, transaction.access);
  if (!loaded) return Unexpected{loaded.error()};
  contexts.fill_process(transaction.device, process, *loaded, snapshot.of_process_context());
  to = *loaded;
  return {};
}

/// Steps 10 to 16: which first stage translates.
[[gnu::always_inline]] inline Result<void, WalkFault> Iommu::State::select_first_stage(
    detail::TableReader& reader, const Generations::Snapshot& snapshot,
    const Transaction& transaction, const DeviceContext& device, FirstStage& to,
    detail::EventIds& ids) {
  if (!device.uses_process_directory()) {
    set_tables(to, device, device.fsc);
    to.pscid = static_cast<std::uint32_t>(DeviceContext::Ta::Pscid::get(device.ta));
    return {};
  }
  const auto& pasid = transaction.requester.pasid;
  if (!pasid && !device.has_default_process()) return {};
  const std::uint32_t process = process_of(transaction.requester);
  ids.process = Pasid{process};
  if (static_cast<PdtpMode>(Fsc::Mode::get(device.fsc)) == PdtpMode::kBare) return {};
  ProcessContext context;
  const auto located = locate_process(reader, snapshot, transaction, device, process, context);
  if (!located) return located;
  if (pasid && transaction.requester.privileged && !context.allows_supervisor()) {
    return Unexpected{WalkFault{Cause::kTtypeBlocked}};
  }
  set_tables(to, device, context.fsc);
  to.pscid = static_cast<std::uint32_t>(ProcessContext::Ta::Pscid::get(context.ta));
  to.sum = context.supervisor_may_use_user_pages();
  return {};
}

/// Step 17: to a guest physical address where there is a second stage, else to the result.
[[gnu::always_inline]] inline Result<Translation, WalkFault> Iommu::State::walk_first(
    detail::TableReader& reader, const Transaction& transaction, const detail::Walk& walk,
    std::optional<detail::LastTable>& last) {
  if (walk.scheme.is_bare()) return pass_through(transaction);
  walks.add();
  return detail::walk_first_stage(reader, config, walk, &last);
}

/// Step 18.
Result<void, WalkFault> Iommu::State::reach_interrupt_file(detail::TableReader& reader,
                                                           const Transaction& transaction,
                                                           const ExtendedDeviceContext& device,
                                                           Translation& found) {
  const auto target = detail::translate_msi(reader, config, device, found.address.value);
  if (!target) return Unexpected{WalkFault{target.error()}};
  if (transaction.access == Access::kExecute && !is_translation_request(transaction.type)) {
    return Unexpected{WalkFault{Cause::kInstructionAccessFault}};
  }
  if (target->mrif && transaction.for_debug) return Unexpected{WalkFault{Cause::kTtypeBlocked}};
  found.guest_address = !target->mrif && answers_with_guest_address(transaction, device);
  if (!found.guest_address) found.address = target->address;
  found.mrif = target->mrif.has_value();
  if (target->mrif && transaction.mrif != nullptr) *transaction.mrif = *target->mrif;
  found.log2_size = kPageShift;
  found.executable = false;
  found.global = false;
  found.msi = true;
  return {};
}

/// Step 19.
[[gnu::always_inline]] inline Result<void, WalkFault> Iommu::State::walk_second(
    detail::TableReader& reader, const Transaction& transaction,
    const ExtendedDeviceContext& device, const detail::SecondStage& stage, Translation& found) {
  const std::uint64_t address = found.address.value;
  if (stage.is_bare()) {
    if (address >> memory::kPhysAddrBits == 0) return {};
    return Unexpected{WalkFault{detail::access_fault(transaction.access)}};
  }
  const detail::AccessTypes types = is_translation_request(transaction.type)
                                        ? detail::AccessTypes{}
                                        : detail::AccessTypes::of(transaction.access);
  const auto page =
      detail::translate_guest(reader, config, stage, address, types, transaction.wants_write);
  if (!page) {
    return Unexpected{detail::walk_fault(page.error(), transaction.access, address,
                                         /*implicit=*/false, /*write=*/false)};
  }
  combine(found, *page);
  found.log2_size =
      static_cast<std::uint8_t>(detail::without_interrupt_files(device, address, found.log2_size));
  found.guest_address = answers_with_guest_address(transaction, device);
  if (found.guest_address) found.address = PhysAddr{address};
  return {};
}

/// The address as it is, if there is such an address.
Result<Translation, WalkFault> Iommu::State::pass(detail::TableReader& reader,
                                                  const Transaction& transaction) {
  Translation passed = pass_through(transaction);
  const auto checked = walk_second(reader, transaction, {}, {}, passed);
  if (!checked) return Unexpected{checked.error()};
  return passed;
}

/// Steps 17 and 19 from a cached table on. The table's stamp, which the new translation takes over,
/// speaks for the contexts that led to it; a context read now has to be of the same time.
[[gnu::always_inline]] inline std::optional<Translation> Iommu::State::translate_from_table(
    detail::TableReader& reader, const Transaction& transaction, detail::IotlbContext context,
    detail::WalkCounts& counts, Stamp& stamp) {
  iotlb_misses.add();
  if (transaction.for_debug || !detail::pasid_exists(transaction.requester)) return std::nullopt;
  detail::CachedTable cached;
  Generations::LeafSnapshot snapshot(generations);
  detail::Walk walk;
  if (!tables.find(context, transaction.at, cached, walk, snapshot)) return std::nullopt;
  set_request(walk, transaction);
  auto made = detail::walk_last_table(reader, config, walk, cached.table);
  if (!made) return std::nullopt;
  const unsigned leaf_log2_size = made->log2_size;
  if (cached.gscid) {
    ExtendedDeviceContext device;
    if (!contexts.find_device(transaction.device, device) || !snapshot.table_holds() ||
        detail::is_interrupt_file(device, made->address.value)) {
      return std::nullopt;
    }
    const auto stage = detail::make_second_stage(config, device);
    if (!walk_second(reader, transaction, device, stage, *made)) return std::nullopt;
  }
  walks.add();
  ++counts.tlb_misses;
  counts.ids.gscid = cached.gscid;
  counts.ids.pscid = walk.pscid;
  if (cached.default_process) counts.ids.process = Pasid{0};
  stamp = snapshot.of_translation(leaf_log2_size);
  iotlb.fill(context, transaction.at, *made, stamp);
  return *made;
}

Result<Translation, TransactionFault> Iommu::State::translate(const Transaction& transaction,
                                                              detail::IotlbContext context,
                                                              Leftover& left) {
  detail::WalkCounts counts{
      .ids = {.device = transaction.device, .process = transaction.requester.pasid}};
  const auto made = [&]() -> Result<Translation, TransactionFault> {
    detail::TableReader reader(memory);
    const auto found = translate_from_table(reader, transaction, context, counts, left.stamp);
    if (found) [[likely]] {
      counts.loads = reader.loads;
      return *found;
    }
    const auto translated = translate_counted(reader, transaction, context, counts, left.stamp);
    counts.loads = reader.loads;
    return translated;
  }();
  count_walks(counts, left);
  return made;
}

Result<Translation, TransactionFault> Iommu::State::translate_counted(
    detail::TableReader& reader, const Transaction& transaction, detail::IotlbContext context,
    detail::WalkCounts& counts, Stamp& stamp) {
  Generations::Snapshot snapshot(generations, transaction.device,
                                 process_of(transaction.requester));
  const std::uint64_t pointer = ddtp.load(std::memory_order_acquire);
  const auto mode = static_cast<Ddtp::ModeValue>(Ddtp::Mode::get(pointer));
  if (mode == Ddtp::ModeValue::kBare && !is_translated(transaction.type) &&
      !is_translation_request(transaction.type)) {
    const auto passed = pass(reader, transaction);
    if (!passed) return Unexpected{TransactionFault{passed.error().cause}};
    stamp = snapshot.of_device_context();
    return *passed;
  }

  ExtendedDeviceContext device;
  const auto located = locate_device(reader, snapshot, pointer, transaction.device, device);
  if (!located) return Unexpected{TransactionFault{located.error()}};
  const auto fault = [&](const WalkFault& why) {
    return Unexpected{TransactionFault{why.cause, device.hides_translation_faults(), why.iotval2,
                                       device.returns_guest_addresses()}};
  };
  if (!type_allowed(transaction, device)) return fault({Cause::kTtypeBlocked});
  if (is_translated(transaction.type) && !device.returns_guest_addresses()) {
    const auto passed = pass(reader, transaction);
    if (!passed) return fault(passed.error());
    snapshot.add_domain(std::nullopt);
    snapshot.add_space({}, transaction.at);
    stamp = snapshot.of_translation(passed->log2_size);
    iotlb.fill(context, transaction.at, *passed, stamp);
    return *passed;
  }

  detail::AddressSpaceId space;
  if (device.has_second_stage()) space.gscid = counts.ids.gscid = device.gscid();
  snapshot.add_domain(space.gscid);
  detail::Walk walk;
  if (!is_translated(transaction.type)) {
    const auto selected =
        select_first_stage(reader, snapshot, transaction, device, walk, counts.ids);
    if (!selected) return fault(selected.error());
  }
  space.pscid = walk.pscid;
  snapshot.add_space(space, transaction.at);
  set_request(walk, transaction);
  walk.updates_ad = device.updates_accessed_dirty();
  walk.second_stage = detail::make_second_stage(config, device);
  if (!walk.scheme.is_bare()) counts.ids.pscid = walk.pscid;
  ++counts.tlb_misses;
  std::optional<detail::LastTable> last;
  auto made = walk_first(reader, transaction, walk, last);
  if (!made) return fault(made.error());
  const unsigned leaf_log2_size = made->log2_size;
  const auto reached = detail::is_interrupt_file(device, made->address.value)
                           ? reach_interrupt_file(reader, transaction, device, *made)
                           : walk_second(reader, transaction, device, walk.second_stage, *made);
  if (!reached) return fault(reached.error());
  stamp = snapshot.of_translation(leaf_log2_size);
  if (!made->mrif) iotlb.fill(context, transaction.at, *made, stamp);
  if (last && !made->msi) {
    const bool default_process = counts.ids.process && !transaction.requester.pasid;
    tables.fill(context, transaction.at, {*last, space.gscid, default_process}, walk,
                snapshot.of_translation(detail::TableCache::kLog2Region));
  }
  return *made;
}

}  // namespace tandem::iommu
