// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tandem/iommu/detail/test_board.hpp"

/// Random changes of contexts and tables, random invalidations, and a model that remembers every
/// past value: a translation must have been possible at some time since the last invalidation that
/// subsumes it.
namespace tandem::iommu::detail {
namespace {

/// A value in memory, and those that a cache may still hold.
template <class T>
class Remembered {
 public:
  void set(T value) {
    current_ = value;
    possible_.push_back(value);
  }
  void invalidate() { possible_ = {current_}; }
  T current() const { return current_; }
  const std::vector<T>& possible() const { return possible_; }

 private:
  T current_{};
  std::vector<T> possible_{T{}};
};

constexpr std::uint64_t kUnmapped = 0;
constexpr std::uint32_t kGscid = 6;
constexpr std::size_t kSpaces = 3;     // of each device, each with a table
constexpr std::size_t kProcesses = 3;  // of each device
constexpr std::size_t kGuestPages = 24;
/// The host's device and the guest's: two domains.
constexpr std::size_t kDomains = 2;
constexpr DeviceId kDevices[kDomains] = {{0x22}, {0x23}};
constexpr std::uint32_t kPscids[kSpaces] = {1, 2, 1025};

/// What a first stage maps by one entry: pages of 4 KiB, of 64 KiB and of 2 MiB.
struct Piece {
  std::uint64_t iova;
  unsigned log2_size;
};
constexpr Piece kPieces[] = {{0x1000, 12},   {0x2000, 12},    {0x9000, 12},   {0x1'0000, 16},
                             {0x3'0000, 16}, {0x20'0000, 21}, {0x40'0000, 21}};
constexpr std::size_t kPieceCount = std::size(kPieces);

class MustNotHit : public Board {
 protected:
  static constexpr Scheme kGuest{3, 2};
  static constexpr std::uint64_t kGuestBase = 0x4000'0000;  // guest pages of data
  static constexpr std::uint64_t kGuestStep = 0x20'0000;    // one in each 2 MiB

  MustNotHit() : Board(kAllCapabilities) {
    enable_queues();
    write(reg::kFqcsr, 0);
    set_ddtp(Ddtp::ModeValue::k1Lvl);
    guest_root_ = allocate_pages_aligned(std::uint64_t{4} << kPageShift);
    // Tables lie where the guest believes: identity.
    map(guest_root_, kGuest, kRamBase, kRamBase >> kPageShift, kLeaf, 2);
    for (std::size_t page = 0; page < kGuestPages; ++page) change_guest_page(page);
    second_port_ = std::move(*iommu_->attach(kDevices[1], device_));
    using Tc = DeviceContext::Tc;
    for (std::size_t domain = 0; domain < kDomains; ++domain) {
      pdt_[domain] = allocate_page();
      for (std::uint64_t& root : roots_[domain]) root = allocate_page();
      ExtendedDeviceContext context;
      context.tc = Tc::V::make(1) | Tc::Pdtv::make(1);
      context.fsc = Fsc::make(PdtpMode::kPd8, pdt_[domain]);
      if (domain == 1) {
        context.iohgatp =
            DeviceContext::Iohgatp::make(SecondStageMode::kSv39x4, guest_root_, kGscid);
      }
      set_device(kDevices[domain], context);
      for (std::size_t process = 0; process < kProcesses; ++process) {
        change_process(domain, process, process % kSpaces);
      }
    }
    submit({iodir_inval_ddt(std::nullopt)});
  }

  // ---- changes, without a command
  void change_process(std::size_t domain, std::size_t process, std::size_t space) {
    set_process(PdtpMode::kPd8, pdt_[domain], Pasid{static_cast<std::uint32_t>(process)},
                process_context(FirstStageMode::kSv39, roots_[domain][space], 0, kPscids[space]));
    processes_[domain][process].set(space);
  }
  void change_entry(std::size_t domain, std::size_t space, std::size_t piece, bool mapped) {
    const auto [iova, log2_size] = kPieces[piece];
    // The host's pieces never share an address; the guest's point at a guest page of data.
    const std::uint64_t frame =
        domain == 0 ? next_frame_ += kGuestStep : kGuestBase + random(kGuestPages) * kGuestStep;
    const std::uint64_t value = mapped ? frame : kUnmapped;
    entries_[domain][space][piece].set(value);
    const unsigned level = log2_size == 21 ? 1 : 0;
    const bool napot = log2_size == 16;
    const std::uint64_t entry =
        !mapped ? 0
                : kLeaf | Pte::Ppn::make(frame >> kPageShift | (napot ? Pte::kNapotPattern : 0)) |
                      Pte::N::make(napot);
    for (std::uint64_t at = iova; at < iova + (napot ? 0x10000U : 1U); at += kPageBytes) {
      store(pte_slot(roots_[domain][space], 3, at, level), entry);
    }
  }
  /// All pieces of the first 2 MiB at once, by a new table for them. Few take turns.
  void change_table(std::size_t domain, std::size_t space) {
    auto& tables = leaf_tables_[domain][space];
    std::uint64_t& table = tables[++table_turns_ % std::size(tables)];
    if (table == 0) table = allocate_page();
    for (std::uint64_t at = 0; at < kPageBytes; at += 8) store((table << kPageShift) + at, 0);
    store(pte_slot(roots_[domain][space], 3, 0, 1), Pte::make_pointer(table));
    for (std::size_t piece = 0; kPieces[piece].log2_size < 21; ++piece) {
      change_entry(domain, space, piece, random(4) != 0);
    }
  }
  /// A guest page of data is mapped in its first 4 KiB only, or nowhere.
  void change_guest_page(std::size_t page) {
    const bool mapped = random(8) != 0;
    const std::uint64_t frame = next_frame_ += kGuestStep;
    guest_pages_[page].set(mapped ? frame : kUnmapped);
    map(guest_root_, kGuest, kGuestBase + page * kGuestStep, frame >> kPageShift,
        mapped ? kLeaf : 0);
  }

  // ---- commands
  static bool meets(const Piece& piece, std::uint64_t first, std::uint64_t last) {
    return first < piece.iova + (std::uint64_t{1} << piece.log2_size) && last >= piece.iova;
  }
  /// What IOTINVAL.VMA subsumes; AV is whether [first, last] counts.
  void subsume_vma(std::size_t domain, std::optional<std::uint32_t> pscid, std::uint64_t first,
                   std::uint64_t last) {
    for (std::size_t space = 0; space < kSpaces; ++space) {
      if (pscid && kPscids[space] != *pscid) continue;
      for (std::size_t i = 0; i < kPieceCount; ++i) {
        if (meets(kPieces[i], first, last)) entries_[domain][space][i].invalidate();
      }
    }
  }
  void random_vma() {
    const std::size_t domain = random(kDomains);
    std::optional<std::uint32_t> pscid;
    if (random(4) != 0) pscid = kPscids[random(kSpaces)];
    const auto gscid = domain == 1 ? std::optional(kGscid) : std::nullopt;
    if (random(3) == 0) {
      submit({iotinval_vma(std::nullopt, pscid, gscid)});
      return subsume_vma(domain, pscid, 0, ~std::uint64_t{0});
    }
    const Piece& piece = kPieces[random(kPieceCount)];
    const std::uint64_t at = piece.iova + random(1ULL << piece.log2_size);
    Command command = iotinval_vma(at, pscid, gscid);
    std::uint64_t size = kPageBytes;
    if (random(2) == 0) {
      const auto log2_pages = static_cast<unsigned>(1 + random(10));
      size = kPageBytes << log2_pages;
      const std::uint64_t ones = (std::uint64_t{1} << (log2_pages - 1)) - 1;
      command.words[1] =
          Iotinval::S::kMask | Iotinval::Addr::make(((at & ~(size - 1)) >> kPageShift) | ones);
    }
    if (random(8) == 0) command.words[0] |= Iotinval::Nl::kMask;
    submit({command});
    subsume_vma(domain, pscid, at & ~(size - 1), at | (size - 1));
  }
  void random_gvma() {
    const std::uint64_t kind = random(3);
    if (kind == 0) {
      submit({iotinval_gvma(std::nullopt)});
    } else {
      submit({iotinval_gvma(kGscid)});
    }
    for (auto& page : guest_pages_) page.invalidate();
  }
  void random_iodir() {
    const std::size_t domain = random(kDomains);
    const std::size_t process = random(kProcesses);
    switch (random(4)) {
      case 0:
        submit({iodir_inval_ddt(std::nullopt)});
        for (auto& of_domain : processes_) {
          for (auto& one : of_domain) one.invalidate();
        }
        break;
      case 1:
        submit({iodir_inval_ddt(kDevices[domain].value)});
        for (auto& one : processes_[domain]) one.invalidate();
        break;
      default:
        submit({iodir_inval_pdt(kDevices[domain].value, static_cast<std::uint32_t>(process))});
        processes_[domain][process].invalidate();
    }
  }

  // ---- requests
  struct Allowed {
    std::vector<std::uint64_t> addresses;  // of the piece's first byte
    bool fault = false;
  };
  Allowed allowed(std::size_t domain, std::size_t process, std::size_t piece) const {
    Allowed found;
    const auto add = [&](std::uint64_t address) {
      if (address != kUnmapped) found.addresses.push_back(address);
    };
    for (const std::size_t space : processes_[domain][process].possible()) {
      const auto& entry = entries_[domain][space][piece];
      // What is not mapped is not cached: a fault comes from the tables as they are.
      found.fault |= entry.current() == kUnmapped;
      for (const std::uint64_t address : entry.possible()) {
        if (domain == 0 || address == kUnmapped) {
          add(address);
          continue;
        }
        const auto& page = guest_pages_[(address - kGuestBase) / kGuestStep];
        found.fault |= address == entry.current() && page.current() == kUnmapped;
        for (const std::uint64_t frame : page.possible()) add(frame);
      }
    }
    return found;
  }
  void random_request() {
    const std::size_t domain = random(kDomains);
    const std::size_t process = random(kProcesses);
    const std::size_t piece = random(kPieceCount);
    const std::uint64_t reach = domain == 0 ? 1ULL << kPieces[piece].log2_size : kPageBytes;
    const std::uint64_t offset = random(reach);
    Port& port = domain == 0 ? *port_ : *second_port_;
    const auto got = port.translate({Pasid{static_cast<std::uint32_t>(process)}, false},
                                    Iova{kPieces[piece].iova + offset}, Access::kRead);
    const Allowed possible = allowed(domain, process, piece);
    if (!got) {
      EXPECT_TRUE(possible.fault) << "cause " << static_cast<int>(got.error());
      return;
    }
    ++answers_;
    EXPECT_NE(std::ranges::find(possible.addresses, got->address.value - offset),
              possible.addresses.end())
        << std::hex << got->address.value << " domain " << domain << " process " << process
        << " piece " << piece;
  }

  std::uint64_t random(std::uint64_t below) { return random_() % below; }

  std::mt19937_64 random_{1};
  std::unique_ptr<Port> second_port_;
  std::uint64_t guest_root_ = 0;
  std::uint64_t pdt_[kDomains] = {};
  std::uint64_t roots_[kDomains][kSpaces] = {};
  std::uint64_t leaf_tables_[kDomains][kSpaces][3] = {};
  std::uint64_t table_turns_ = 0;
  std::uint64_t next_frame_ = std::uint64_t{1} << 40;
  std::uint64_t answers_ = 0;
  Remembered<std::size_t> processes_[kDomains][kProcesses];  // the address space of each
  Remembered<std::uint64_t> entries_[kDomains][kSpaces][kPieceCount];
  Remembered<std::uint64_t> guest_pages_[kGuestPages];
};

// [iommu §3.8] [iommu §4.1.1] [iommu §4.1.3] [iommu §9.2] [iommu §9.3]
TEST_F(MustNotHit, ATranslationWasPossibleSinceItsLastInvalidation) {
  const char* const given = std::getenv("TANDEM_SEED");
  const std::uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device{}();
  SCOPED_TRACE("TANDEM_SEED=" + std::to_string(seed));
  random_.seed(seed);
  for (int i = 0; i < 200'000 && !HasFailure(); ++i) {
    const std::uint64_t kind = random(100);
    if (kind < 80) {
      random_request();
    } else if (kind < 81) {
      change_table(random(kDomains), random(kSpaces));
    } else if (kind < 88) {
      change_entry(random(kDomains), random(kSpaces), random(kPieceCount), random(4) != 0);
    } else if (kind < 91) {
      change_guest_page(random(kGuestPages));
    } else if (kind < 93) {
      change_process(random(kDomains), random(kProcesses), random(kSpaces));
    } else if (kind < 97) {
      random_vma();
    } else if (kind < 98) {
      random_gvma();
    } else {
      random_iodir();
    }
  }
  EXPECT_TRUE(idle());
  EXPECT_GT(iommu_->stats().iotlb_hits, answers_ / 4) << "it has to hit now and then";
}

}  // namespace
}  // namespace tandem::iommu::detail
