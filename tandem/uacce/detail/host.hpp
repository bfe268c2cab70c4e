// SPDX-License-Identifier: Apache-2.0
/// The operating system's part of shared virtual addressing: what a kernel's IOMMU driver and mm
/// do.
///
/// A Host owns physical memory and the IOMMU, and drives the IOMMU as the specification says:
/// device and process directories, page tables and queues in physical memory, registers, commands.
/// An Mm is one bound address space: a PASID, a first-stage (Sv48) table, and what stands behind
/// its pages: reserved memory (host RAM) or an aperture onto a process's ordinary memory.
///
/// Page requests are served on the thread that made them. Order of a change: page-table write,
/// IOTINVAL, ATS.INVAL to the endpoints, their completions, IOFENCE, then free.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tandem/base/result.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/memory/memory.hpp"
#include "tandem/pcie/pcie.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::uacce::detail {

/// A memfd that this process and a client both map.
class ReservedMemory;
class TableQuota;

/// What an address is, for the status of an operation that faulted there.
enum class AddressKind : std::uint8_t {
  kUnmapped,
  kAccessible,    ///< some access is allowed
  kNeedsStaging,  ///< mapped, but reading it could block (FUSE, network file, device, userfaultfd)
};

struct MmStats {
  std::uint64_t page_faults = 0;  ///< page requests answered "success"
  std::uint64_t page_faults_refused = 0;
};

class Host;

/// One bound address space. Thread safety: all calls, from any thread.
class Mm {
 public:
  ~Mm();  ///< unbind()
  iommu::Pasid pasid() const;

  /// Creates reserved memory: a sealed memfd of whole pages, mapped here as host RAM.
  Result<std::shared_ptr<ReservedMemory>> reserve(std::uint64_t size_bytes);
  static const UniqueFd& descriptor(const ReservedMemory& memory);
  static std::uint64_t size(const ReservedMemory& memory);
  /// The range [address, address + size) of this space is `memory` from now on; superpages where
  /// alignment allows. Errors: EINVAL not page-aligned or not a user address, EEXIST overlap.
  Result<void> attach(const std::shared_ptr<ReservedMemory>& memory, std::uint64_t address);
  /// Ends that, whatever is returned; invalidation is complete on success. Errors: ENOENT;
  /// ETIMEDOUT when an access that began before did not end: the memory is kept until forget().
  Result<void> detach(const ReservedMemory& memory);
  /// Drops memory kept by detach(). No operation that ran then runs any more.
  void forget(const ReservedMemory& memory);

  /// Copies from ordinary memory that engines may read. Errors: EFAULT.
  Result<void> read(std::uint64_t address, std::span<std::byte> to) const;
  /// Whether the address space behind the aperture still exists. Reserved-only spaces say true.
  bool alive() const;
  /// A reserved-only space cannot know and says kNeedsStaging for what is not reserved.
  AddressKind classify(std::uint64_t address) const;
  MmStats stats() const;
  /// Drops the translation of one page; `refuse`: page requests for it are answered "invalid
  /// request" from now on.
  void revoke_page(std::uint64_t address, bool refuse);

  /// Whether some access to this space's ordinary memory, or the service of a page request for it,
  /// has been running for longer than `age`. For watchdogs; false after it ended.
  bool stuck_for(std::chrono::milliseconds age) const;
  /// Says that an engine may go on using the PASID after unbind(), for an operation that does not
  /// end: unbind() will not wait for it and quarantine the PASID.
  void condemn();

  /// Takes the PASID away from every device: process-directory entry, IODIR, ATS.INVAL, fence; then
  /// frees tables and windows. Idempotent. When an endpoint's invalidation times out or an access
  /// does not end within a second, the PASID and everything it could reach are quarantined: kept
  /// and not reused until reclaim().
  ///
  /// No engine uses the PASID any more, or condemn() was called: the next owner of the PASID must
  /// not get an operation of this one.
  /// Returns: false when quarantined.
  bool unbind();
  /// Frees what unbind() quarantined. No engine uses the PASID any more.
  /// Returns: false when an access to this space still runs, or an endpoint does not complete its
  ///          invalidation: call it again later.
  bool reclaim();

 private:
  friend class Host;
  struct State;
  explicit Mm(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

class Host {
 public:
  /// Memory, IOMMU in 1LVL..3LVL mode, queues on, page requests served.
  static Result<std::unique_ptr<Host>> create();
  ~Host();

  memory::Memory& memory();
  iommu::Iommu& iommu();

  /// Creates the endpoint of a new device: a device context that allows PASID, ATS and PRI.
  Result<std::unique_ptr<pcie::Endpoint>> add_endpoint();
  /// Invalidates its context and forgets it; call before destroying the endpoint.
  void remove_endpoint(pcie::Endpoint& endpoint);

  /// Binds an address space. Checks the descriptors: both from procfs, named for one process, of
  /// one live mm. Page tables count against `quota`. Errors: EACCES, ENOSPC.
  Result<std::shared_ptr<Mm>> bind(MmAccess access, std::shared_ptr<TableQuota> quota = nullptr);

  std::vector<std::string> describe_walk(iommu::Pasid pasid, std::uint64_t address) const;
  /// PASIDs out of use now, since something may still use them.
  std::uint64_t quarantined_pasids() const;
  std::uint64_t freed_table_pages() const;

 private:
  friend class Mm;
  struct State;
  explicit Host(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace tandem::uacce::detail
