// SPDX-License-Identifier: Apache-2.0
/// The ordinary memory of one process, reached through capabilities on its address space.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "tandem/memory/memory.hpp"
#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/detail/in_flight.hpp"
#include "tandem/uacce/detail/mapping_kind.hpp"
#include "tandem/uacce/detail/vma.hpp"

namespace tandem::uacce::detail {

/// Another process's memory through its mem and maps descriptors, or this process's own.
///
/// The mem descriptor ignores page protection, so every access first asks for the mapping: its
/// permission and its kind. What happens between the question and the access can only be the doing
/// of the process whose memory it is. Own memory is reached by process_vm_readv(), which respects
/// protection; there a mapping that blocks hurts nobody else, so every kind is accepted.
///
/// Thread safety: any thread. May block where the kernel blocks; in_flight() tells for how long.
class ClientMemory {
 public:
  /// Checks and takes the descriptors; `classifier` outlives the result.
  /// Errors: EACCES when they are not both from procfs, for one process and of one live mm, or
  ///         `mem` is not open for reading and writing.
  static Result<std::shared_ptr<ClientMemory>> open(MmAccess access, MappingClassifier& classifier);

  /// Copies until the first byte that may not be accessed: Fault::kRefused there.
  memory::Outcome read(std::uint64_t address, std::span<std::byte> to);
  memory::Outcome write(std::uint64_t address, std::span<const std::byte> from);

  /// The mapping at `address` if engines may read (and, for `write`, write) it.
  /// Errors: EFAULT unmapped or not permitted, EOPNOTSUPP a kind that may block.
  Result<Vma> usable(std::uint64_t address, bool read, bool write);
  AddressKind classify(std::uint64_t address);
  bool alive() const;
  /// How many accesses were refused: after one, what usable() said before may hold no more.
  std::uint64_t refusals() const { return refusals_.load(std::memory_order_relaxed); }

  InFlight& in_flight() { return in_flight_; }

 private:
  ClientMemory(MappingClassifier& classifier, bool self, UniqueFd mem, UniqueFd maps);
  memory::Outcome access(std::uint64_t address, std::byte* bytes, std::size_t length, bool write);
  memory::Outcome refused(std::size_t done_bytes);
  std::size_t transfer(std::uint64_t address, std::byte* bytes, std::size_t length, bool write);
  bool may_block(const Vma& vma);

  MappingClassifier& classifier_;
  const bool self_;
  bool process_vm_ = false;  // constant after open()
  const pid_t pid_;
  const UniqueFd mem_;
  const UniqueFd maps_;
  const VmaSource vmas_;
  std::atomic<std::uint64_t> refusals_{0};
  InFlight in_flight_;
};

}  // namespace tandem::uacce::detail
