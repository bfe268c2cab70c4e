// SPDX-License-Identifier: Apache-2.0
/// The device framework: what a kernel's uacce does, for the host of some engines (a broker, or the
/// embedded library).
///
/// A Framework owns memory, an IOMMU, devices (each an engine behind a PCIe endpoint) and engine
/// threads. A Client is one address space (mm) of one tenant: it gets a PASID at connect and loses
/// it when the Client is disconnected. A queue belongs to a Client; its states are INIT → STARTED →
/// ZOMBIE; its regions (0 MMIO, 1 DUS) are handed out once each.
///
/// Life of a queue's request: doorbell → an engine thread copies the descriptor → Worker::execute →
/// completion. Engine threads poll hot queues, round robin by bytes between tenants, and park
/// when nothing happens; the clients' wake descriptors get them back.
///
/// Lock order: Framework registry → Client → Queue.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tandem/abi/control.h"
#include "tandem/base/unique_fd.hpp"
#include "tandem/iommu/iommu.hpp"
#include "tandem/uacce/device.hpp"

namespace tandem::uacce {

/// How engines reach a client's ordinary memory.
struct MmAccess {
  enum class Kind : std::uint8_t {
    kReservedOnly,  ///< not at all
    kDescriptors,   ///< `mem` and `maps`: descriptors of the client's own /proc/self/{mem,maps}
    kSelf,          ///< the client is this process (embedded)
  };
  Kind kind = Kind::kReservedOnly;
  UniqueFd mem, maps;
};

enum class QueueState : std::uint8_t { kInit, kStarted, kZombie };

struct QueueInfo {
  std::uint32_t queue = 0;
  std::string device;
  std::uint32_t depth = 0;
  std::uint32_t device_flags = 0;
  std::uint64_t region_mmio_size = 0, region_dus_size = 0;
};

struct ReservedInfo {
  std::uint64_t id = 0;
  std::uint64_t size_bytes = 0;
  UniqueFd fd;  ///< map it shared, close it, then attach_reserved()
};

class Framework;

/// One address space of one tenant. Thread safety: all calls, from any thread.
///
/// Every error is an errno: ENOENT unknown queue or id, EINVAL wrong state or argument, EEXIST a
/// region handed out twice or an address range taken, EMFILE/ENOMEM quotas, ESHUTDOWN disconnected.
class Client {
 public:
  ~Client();  ///< disconnects

  Result<QueueInfo> open(const std::string& algorithm_or_device, std::uint32_t depth);
  /// The descriptor of a region, once per region (EEXIST); DUS at its exact size (EINVAL).
  Result<UniqueFd> map(std::uint32_t queue, std::uint32_t region, std::uint64_t size_bytes);
  Result<void> start(std::uint32_t queue);
  /// Ends the queue. ETIMEDOUT when its operation goes on for seconds: then the queue is dead for
  /// every call, its doorbell page says so when the operation has ended, and what it counted for
  /// is given back then.
  Result<void> put(std::uint32_t queue);
  Result<void> hold(std::uint32_t queue, bool keep_awake);
  /// A descriptor that becomes readable when a waiting word TANDEM_WAIT_FD is served.
  Result<UniqueFd> event(std::uint32_t queue);

  Result<ReservedInfo> reserve(std::uint64_t size_bytes);
  /// The client mapped reserved memory `id` at `address` (page-aligned).
  Result<void> attach_reserved(std::uint64_t id, std::uint64_t address);
  /// Ends that. Errors: ETIMEDOUT too: it is detached, but an operation that began before still
  /// works there.
  Result<void> detach_reserved(std::uint64_t id);
  /// Gives it back; on success no engine reaches it. Errors: ETIMEDOUT too: it is given back, and
  /// stays in the tenant's quota until the operation that still works there has ended.
  Result<void> release_reserved(std::uint64_t id);

  /// Runs what `queue` has pending on the calling thread; for frameworks without engine threads.
  /// Returns: how many requests completed.
  Result<std::size_t> run_in_caller(std::uint32_t queue);

  /// A duplicate of this client's wake eventfd: the client writes it when an engine says `parked`.
  Result<UniqueFd> wake_descriptor() const;
  tandem_stats_reply stats() const;
  iommu::Pasid pasid() const;
  /// Copies from the client's ordinary memory what engines may read, and nothing that could block.
  /// Errors: EFAULT some of it is not such memory, or the client gave none.
  Result<void> read_memory(std::uint64_t address, std::span<std::byte> to) const;
  /// Whether the address space still lives (mem descriptor reads more than 0 bytes).
  bool alive() const;
  /// What disconnect() came to.
  struct Ended {
    std::uint64_t reserved_bytes_freed = 0;
    /// Within reach of an operation that has not ended; freed when it does.
    std::uint64_t reserved_bytes_kept = 0;
    /// An access has not returned: the PASID was revoked and is out of use until it does.
    bool stuck = false;
  };
  /// Puts every queue with `reason`, revokes the PASID, frees everything. Idempotent. Bounded: what
  /// an operation that goes on can reach is freed, and given back to the tenant's quota, when it
  /// ends.
  Ended disconnect(tandem_queue_state reason);

  /// Tests only: revokes the page-table entry of one page; refuse: page requests for it are
  /// answered "invalid request" from now on.
  void revoke_page(std::uint64_t address, bool refuse);

 private:
  friend class Framework;
  struct State;
  explicit Client(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

/// Thread safety: all calls, from any thread. The destructor alone; clients that outlive it are
///                disconnected, and say ESHUTDOWN.
class Framework {
 public:
  struct Options {
    /// Engine threads; 0: none, the caller runs requests (inline).
    int engine_threads = 1;
    std::chrono::microseconds spin_before_park{100};
    /// \name Quotas: what one tenant may have, over all its clients
    /// @{
    std::uint64_t reserved_bytes_per_tenant = std::uint64_t{4} << 30;  ///< else ENOMEM
    std::uint32_t queues_per_tenant = 256;                             ///< else EMFILE
    /// Of all its queues; else ENOMEM. A queue of the default depth has 28 KiB.
    std::uint64_t ring_bytes_per_tenant = std::uint64_t{256} << 20;
    /// Page tables. A client that reaches this, or 16 MiB of its own, loses its translations, which
    /// come back by page requests: it is slower, not refused.
    std::uint64_t table_bytes_per_tenant = std::uint64_t{256} << 20;
    /// @}
    /// How long one access to a client's memory may take before its queue is declared stuck.
    std::chrono::milliseconds stuck_after{5000};
  };

  static Result<std::unique_ptr<Framework>> create(Options options);
  ~Framework();  ///< every queue reports TANDEM_QUEUE_DEVICE_REMOVED

  /// Adds a device. Errors: EEXIST for a name taken, EINVAL for traits that do not fit the ABI (see
  /// DeviceTraits); others when the IOMMU or the endpoint has no room for it.
  Result<void> add_device(std::unique_ptr<Engine> engine);
  /// Removes a device: puts all its queues first. Errors: ENOENT.
  Result<void> remove_device(const std::string& name);
  std::vector<tandem_devices_reply> devices() const;

  /// Binds an address space: allocates its PASID. `tenant` is whom it is accounted to; `user`, by
  /// default the tenant, whom the tenant's lost engine threads are: their number is limited over
  /// all tenants of one user. Errors: EACCES when the descriptors are not what they should be, or
  /// not of one live mm; ENOSPC
  ///         when no PASID is left.
  Result<std::unique_ptr<Client>> connect(std::uint32_t tenant, MmAccess access,
                                          std::optional<std::uint32_t> user = std::nullopt);

  iommu::Stats iommu_stats() const;
  /// Shows PCIe messages of device `name` to `tap`: Endpoint::set_tap(). Errors: ENOENT.
  Result<void> set_tap(const std::string& name, pcie::Endpoint::Tap tap);
  /// The walk of one address as text lines "level, entry address, entry, meaning"; empty when
  /// unbound.
  std::vector<std::string> describe_walk(iommu::Pasid pasid, std::uint64_t address) const;

  struct Cleanup {
    std::uint64_t clients = 0, queues = 0, reserved_bytes = 0, page_tables = 0;
    std::uint64_t quarantined_pasids = 0;  ///< out of use now
  };
  /// What has been cleaned up since start.
  Cleanup cleanup() const;

 private:
  struct State;
  friend class Client;
  explicit Framework(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace tandem::uacce
