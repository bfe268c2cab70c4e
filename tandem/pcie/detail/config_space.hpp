// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

#include "tandem/pcie/detail/controls.hpp"
#include "tandem/pcie/detail/register_file.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/pcie/spec.hpp"

namespace tandem::pcie::detail {

/// Whether an access to a configuration space is one: 1, 2 or 4 bytes, naturally aligned.
constexpr bool is_config_access(std::uint32_t offset, unsigned size_bytes) {
  return (size_bytes == 1 || size_bytes == 2 || size_bytes == 4) && offset % size_bytes == 0 &&
         offset < config::kBytes;
}

/// The registers of one function: what its options say it can do, and what software enabled.
/// Not for use by several threads at once.
class ConfigSpace {
 public:
  /// A message of the MSI capability, as software wants it.
  struct Msi {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
    unsigned vector = 0;
    std::uint64_t resets = 0;  // before it was taken
  };
  static constexpr bool has_room_for_msis(unsigned vectors) {
    return vectors == 0 || (std::has_single_bit(vectors) && vectors <= config::kMsiVectors);
  }

  /// What a write asks for beside the values that registers hold.
  struct Request {
    bool function_level_reset = false;
    bool page_request_reset = false;
  };
  /// What changes without software: read by software.
  struct Live {
    bool transactions_pending = false;
    bool page_requests_outstanding = false;
  };

  /// As reset leaves it; with Endpoint::Options::enabled as firmware that enables everything does.
  explicit ConfigSpace(const Endpoint::Options& options);

  std::uint32_t read(std::uint32_t offset, unsigned size_bytes, const Live& live);
  Request write(std::uint32_t offset, std::uint32_t value, unsigned size_bytes);
  /// The registers as a function-level reset leaves them: of ours it spares Max_Payload_Size.
  void reset();

  /// Which messages software allows the function to send.
  unsigned permissions() const;
  unsigned log2_smallest_translation_unit() const;
  std::uint32_t page_request_allocation() const;
  bool msi_enabled() const;
  /// The message of `vector`, of those that software gave to the function; none where it is masked,
  /// and pending from now on.
  std::optional<Msi> take_msi(unsigned vector);
  /// One that is pending and not masked any more, nor pending.
  std::optional<Msi> take_pending_msi();
  /// One that was taken and could not go out is pending again, unless a reset came between, which
  /// forgets what is pending.
  void put_back(const Msi& message);
  bool bus_master_enabled() const;
  /// Where bar number `index` of the options decodes; none when nowhere.
  std::optional<std::uint64_t> bar_address(std::size_t index) const;

  /// Sets RW1C bits of the Page Request Status Register.
  void set_page_request_status(std::uint64_t bits);

 private:
  static constexpr std::uint32_t kPcie = 0x40;
  static constexpr std::uint32_t kMsi = 0x80;

  void define_header(const Endpoint::Options& options);
  void define_pcie(const Endpoint::Options& options);
  void define_msi(unsigned vectors);
  Msi make_msi(unsigned vector) const;
  unsigned msi_vectors_given() const;
  void define_extended(const Endpoint::Options& options);
  void enable_all(const Endpoint::Options& options);
  void keep_while_ats_is_enabled(std::uint32_t before_pasid, std::uint32_t before_ats);

  RegisterFile file_;
  // Where the extended capabilities lie; 0 for one that is not there.
  std::uint32_t pasid_ = 0, ats_ = 0, page_request_ = 0;
  bool has_msi_ = false;
  std::uint64_t resets_ = 0;
  std::vector<std::uint32_t> bar_offsets_;  // of the options' bars
  std::vector<bool> bar_is_wide_;
};

}  // namespace tandem::pcie::detail
