// SPDX-License-Identifier: Apache-2.0
#include "tandem/memory/detail/io_access.hpp"

#include <algorithm>
#include <bit>

#include "tandem/base/check.hpp"
#include "tandem/base/futex.hpp"
#include "tandem/memory/detail/region.hpp"
#include "tandem/memory/transfer.hpp"

namespace tandem::memory {
namespace {

constinit thread_local unsigned nesting = 0;

struct Nested {
  Nested() { ++nesting; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;
  ~Nested() { --nesting; }
};

}  // namespace

unsigned io_nesting() noexcept { return nesting; }

namespace detail {

bool well_formed(const AccessSizes& sizes) {
  if (!std::has_single_bit(sizes.min_bytes)) return false;
  return sizes.max_bytes == 0 ||
         (std::has_single_bit(sizes.max_bytes) && sizes.max_bytes >= sizes.min_bytes);
}

std::size_t first_piece(const AccessSizes& sizes, std::uint64_t offset, std::size_t length) {
  std::size_t piece =
      sizes.max_bytes == 0 ? length : std::min<std::size_t>(length, sizes.max_bytes);
  if (sizes.aligned) {
    piece = std::bit_floor(piece);
    if (offset != 0) piece = std::min<std::size_t>(piece, offset & (~offset + 1));
  }
  return piece < sizes.min_bytes ? 0 : piece;
}

namespace {

/// Makes the accesses of which one to `bytes` consists, by `call(offset, piece)`.
template <class Byte, class Call>
Outcome in_pieces(const AccessSizes& sizes, std::uint64_t offset, std::span<Byte> bytes,
                  Call call) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const std::size_t piece = first_piece(sizes, offset + done, bytes.size() - done);
    if (piece == 0) return {done, Fault::kAccessSize};
    const Outcome outcome = call(offset + done, bytes.subspan(done, piece));
    TANDEM_CHECK(outcome.done_bytes <= piece && outcome.ok() == (outcome.done_bytes == piece));
    done += outcome.done_bytes;
    if (!outcome.ok()) return {done, outcome.fault};
  }
  return {done, Fault::kNone};
}

}  // namespace
}  // namespace detail

IoPin::~IoPin() {
  if (region_ == nullptr) return;
  // (P) releases our use of the region to remove(), which may free it at once: only the address of
  // the word is used after this.
  std::atomic<std::uint32_t>& pins = region_->pins;
  constexpr std::uint32_t kLast = detail::Region::kRemoving | 1;
  if (pins.fetch_sub(1, std::memory_order_acq_rel) == kLast) futex_wake(pins);
}

bool IoPin::looks_after_accesses() const { return region_->looks_after_accesses; }

Outcome IoPin::read(std::span<std::byte> to) const {
  const Nested nested;
  return detail::in_pieces(region_->sizes, offset_, to, [&](std::uint64_t at, auto piece) {
    return region_->io->read(at, piece);
  });
}

Outcome IoPin::write(std::span<const std::byte> from) const {
  const Nested nested;
  return detail::in_pieces(region_->sizes, offset_, from, [&](std::uint64_t at, auto piece) {
    return region_->io->write(at, piece);
  });
}

}  // namespace tandem::memory
