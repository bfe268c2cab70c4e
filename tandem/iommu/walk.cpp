// SPDX-License-Identifier: Apache-2.0
#include "tandem/iommu/detail/walk.hpp"

namespace tandem::iommu::detail {
namespace {

/// Whether bits 63 down to the top virtual-address bit are all equal; those above an address of
/// Sv32 are 0.
bool canonical(std::uint64_t address, const Scheme& scheme) {
  if (scheme.is_sv32()) return address >> scheme.address_bits() == 0;
  const auto high = static_cast<std::int64_t>(address) >> (scheme.address_bits() - 1);
  return high == 0 || high == -1;
}

/// Whether the page may be used at all with the request's privilege.
bool privilege_ok(std::uint64_t pte, const Walk& walk) {
  if (!walk.supervisor) return Pte::U::get(pte) != 0;
  if (Pte::U::get(pte) == 0) return true;
  return walk.sum && walk.access != Access::kExecute;
}

/// Whether a leaf is well formed and allows what is asked.
bool usable(std::uint64_t pte, unsigned level, const Walk& walk) {
  if (!privilege_ok(pte, walk)) return false;
  if (!walk.report_permissions && !AccessTypes::of(walk.access).allowed_by(pte)) return false;
  return is_aligned(walk.scheme, pte, level);
}

Translation make_translation(std::uint64_t pte, unsigned level, bool global, const Walk& walk) {
  const unsigned log2_size = log2_size_of(walk.scheme, pte, level);
  Translation translation;
  translation.address = address_in_page(Pte::Ppn::get(pte), log2_size, walk.at.value);
  translation.log2_size = static_cast<std::uint8_t>(log2_size);
  translation.readable = Pte::R::get(pte) != 0;
  translation.writable = Pte::W::get(pte) != 0 && Pte::D::get(pte) != 0;
  translation.executable = Pte::X::get(pte) != 0 && !(walk.supervisor && Pte::U::get(pte) != 0);
  translation.global = global;
  translation.memory_type = static_cast<MemoryType>(Pte::Pbmt::get(pte));
  return translation;
}

/// Where an entry at `address` of the first stage's tables really lies, to be read or written.
[[gnu::always_inline]] inline Result<PhysAddr, WalkFault> locate_entry(TableReader& reader,
                                                                       const Config& config,
                                                                       const Walk& walk,
                                                                       std::uint64_t address,
                                                                       bool write) {
  if (walk.second_stage.is_bare()) return PhysAddr{address};
  const auto page = translate_implicit(reader, config, walk.second_stage, address, write);
  if (page) return page->address;
  return Unexpected{walk_fault(page.error(), walk.access, address, /*implicit=*/true, write)};
}

WalkFault memory_fault(const Walk& walk, memory::Fault why) {
  return {load_cause(why, access_fault(walk.access), Cause::kPageTableCorrupt)};
}

/// The bits that using a leaf sets in it.
std::uint64_t used_bits(std::uint64_t pte, const Walk& walk) {
  const bool dirty = walk.wants_write && Pte::W::get(pte) != 0;
  return Pte::A::kMask | (dirty ? Pte::D::kMask : 0);
}

/// Sets in the leaf `pte` at `address` what makes it `used`. Returns: false when software changed
/// the entry.
[[gnu::noinline]] Result<bool, WalkFault> update_leaf(TableReader& reader, const Config& config,
                                                      const Walk& walk, std::uint64_t address,
                                                      std::uint64_t pte, std::uint64_t used) {
  if (!walk.updates_ad) return Unexpected{WalkFault{page_fault(walk.access)}};
  const auto entry = locate_entry(reader, config, walk, address, /*write=*/true);
  if (!entry) return Unexpected{entry.error()};
  ++reader.loads.first_stage;
  const auto update = update_entry(reader, walk.scheme, *entry, pte, used);
  if (!update) return Unexpected{memory_fault(walk, update.error())};
  if (*update == Update::kGivenUp) return Unexpected{WalkFault{page_fault(walk.access)}};
  return *update == Update::kMade;
}

}  // namespace

Result<Translation, WalkFault> walk_first_stage(TableReader& reader, const Config& config,
                                                const Walk& walk, std::optional<LastTable>* last) {
  const auto fault = [&] { return Unexpected{WalkFault{page_fault(walk.access)}}; };
  const Scheme& scheme = walk.scheme;
  if (!canonical(walk.at.value, scheme)) return fault();

  std::uint64_t table = walk.root_ppn << kPageShift;
  unsigned level = scheme.levels - 1U;
  bool global = false;
  while (true) {
    const std::uint64_t address = table + scheme.offset(level, walk.at.value);
    const auto entry = locate_entry(reader, config, walk, address, /*write=*/false);
    if (!entry) return Unexpected{entry.error()};
    ++reader.loads.first_stage;
    const auto loaded = load_entry(reader, scheme, *entry);
    if (!loaded) return Unexpected{memory_fault(walk, loaded.error())};
    const std::uint64_t pte = *loaded;
    const EntryKind kind = kind_of(config, pte, level);
    if (kind == EntryKind::kInvalid) return fault();
    if (kind == EntryKind::kPointer) {
      global = global || Pte::G::get(pte) != 0;
      table = Pte::Ppn::get(pte) << kPageShift;
      --level;
      continue;
    }

    if (!usable(pte, level, walk)) return fault();
    const std::uint64_t used = pte | used_bits(pte, walk);
    if (used != pte) [[unlikely]] {
      const auto updated = update_leaf(reader, config, walk, address, pte, used);
      if (!updated) return Unexpected{updated.error()};
      if (!*updated) continue;  // judge the new one
    }
    if (last != nullptr && level == 0) {
      *last = LastTable{PhysAddr{entry->value & ~(kPageBytes - 1)}, global};
    }
    return make_translation(used, level, global || Pte::G::get(used) != 0, walk);
  }
}

std::optional<Translation> walk_last_table(TableReader& reader, const Config& config,
                                           const Walk& walk, const LastTable& table) {
  ++reader.loads.first_stage;
  const PhysAddr at = table.page.plus(walk.scheme.offset(0, walk.at.value));
  const auto loaded = load_entry(reader, walk.scheme, at);
  if (!loaded || kind_of(config, *loaded, 0) != EntryKind::kLeaf) return std::nullopt;
  const std::uint64_t pte = *loaded;
  if (!usable(pte, 0, walk) || (pte | used_bits(pte, walk)) != pte) return std::nullopt;
  return make_translation(pte, 0, table.global || Pte::G::get(pte) != 0, walk);
}

}  // namespace tandem::iommu::detail
