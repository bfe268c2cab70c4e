// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/base/mutex.hpp"
#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/detail/queue.hpp"
#include "tandem/uacce/detail/reaper.hpp"
#include "tandem/uacce/detail/registry.hpp"
#include "tandem/uacce/detail/scheduler.hpp"
#include "tandem/uacce/detail/tenant.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::uacce {

/// Shared by the Framework and its clients; a client that outlives the Framework finds it closed.
struct Framework::State {
  explicit State(Options chosen) : options(chosen) {}

  const Options options;
  std::shared_ptr<detail::Host> host;
  detail::Registry registry;
  std::unique_ptr<detail::Scheduler> scheduler;

  /// The tenant, with one client more. Errors: ESHUTDOWN.
  Result<std::shared_ptr<detail::Tenant>> tenant(std::uint32_t id, std::uint32_t user)
      TANDEM_EXCLUDES(mutex);
  /// A client is gone.
  void forget(std::uint64_t client, std::uint32_t user, std::uint32_t tenant)
      TANDEM_EXCLUDES(mutex);
  /// How long a call waits for an operation of a queue that died: if it is stuck, the watchdog has
  /// decided by then. One that is only slow is left to the reaper.
  std::chrono::milliseconds let_go_limit() const {
    return options.stuck_after * 2 + std::chrono::milliseconds(100);
  }

  std::atomic<std::uint32_t> next_queue{1};  // handles; unique in the framework's life
  std::atomic<std::uint64_t> next_client{1};
  // What has been cleaned up; written by disconnects.
  std::atomic<std::uint64_t> cleaned_clients{0}, cleaned_queues{0}, cleaned_reserved{0};

  Mutex mutex;
  bool closed TANDEM_GUARDED_BY(mutex) = false;
  struct TenantEntry {
    std::shared_ptr<detail::Tenant> tenant;
    std::uint32_t clients = 0;
  };
  std::map<std::pair<std::uint32_t, std::uint32_t>, TenantEntry> tenants
      TANDEM_GUARDED_BY(mutex);  // by user and id
  /// By user. A thread that is lost keeps its queue, and with it the account.
  std::map<std::uint32_t, std::weak_ptr<detail::UserAccount>> users TANDEM_GUARDED_BY(mutex);
  std::map<std::uint64_t, std::weak_ptr<Client::State>> clients TANDEM_GUARDED_BY(mutex);

  /// Ends what operations use that outlast their client. Stopped by ~Framework, before the rest.
  detail::Reaper reaper;
};

struct Client::State : std::enable_shared_from_this<Client::State> {
  State(std::shared_ptr<Framework::State> owner, std::shared_ptr<detail::Mm> space,
        std::shared_ptr<detail::Engagement> engaged, std::uint32_t of_user)
      : framework(std::move(owner)),
        mm(std::move(space)),
        engagement(std::move(engaged)),
        user(of_user) {}

  Result<std::shared_ptr<detail::Queue>> find(std::uint32_t queue) TANDEM_EXCLUDES(mutex);
  /// Gives back a queue that nobody runs.
  /// A queue that was put is left by its operation.
  void finish_put(const std::shared_ptr<detail::Queue>& queue) TANDEM_EXCLUDES(mutex);
  void give_back(detail::Queue& queue);
  Ended disconnect(tandem_queue_state reason) TANDEM_EXCLUDES(mutex);
  /// Frees everything if no operation runs any more; one that is stuck loses the PASID at least.
  /// After disconnect(); one thread at a time. Returns: whether all is freed.
  bool finish(Ended& ended) TANDEM_EXCLUDES(mutex);

  const std::shared_ptr<Framework::State> framework;
  const std::shared_ptr<detail::Mm> mm;
  const std::shared_ptr<detail::Engagement> engagement;
  const std::uint32_t user;

  /// A queue with an operation that ran at some instant.
  struct Running {
    std::shared_ptr<detail::Queue> queue;
    std::uint64_t operations = 0;  // counted then
  };
  struct Reserved {
    std::shared_ptr<detail::ReservedMemory> memory;
    std::uint64_t size_bytes = 0;
    std::uint64_t address = 0;
    bool attached = false;       // at `address`, in every space
    std::vector<Running> users;  // that may still reach it though it was detached
  };

  Result<void> attach_locked(Reserved& entry, std::uint64_t address) TANDEM_REQUIRES(mutex);
  Result<void> detach_locked(Reserved& entry) TANDEM_REQUIRES(mutex);
  /// The space that queues of devices without SVA use; bound when first asked for.
  Result<std::shared_ptr<detail::Mm>> reserved_space() TANDEM_EXCLUDES(mutex);
  /// `mm`, and the other space if there is one.
  std::vector<std::shared_ptr<detail::Mm>> spaces() const TANDEM_EXCLUDES(mutex);
  std::vector<std::shared_ptr<detail::Mm>> spaces_locked() const TANDEM_REQUIRES(mutex);
  /// Whether the operations that ran then have ended.
  bool over(const std::vector<Running>& users) const;

  mutable Mutex mutex;
  /// Has the reserved memory of `mm` and nothing else.
  std::shared_ptr<detail::Mm> reserved_mm TANDEM_GUARDED_BY(mutex);
  bool connected TANDEM_GUARDED_BY(mutex) = true;
  std::map<std::uint32_t, std::shared_ptr<detail::Queue>> queues TANDEM_GUARDED_BY(mutex);
  /// Handles of queues that were put, the latest last: a second put finds that it is done.
  std::vector<std::uint32_t> put_queues TANDEM_GUARDED_BY(mutex);
  /// Put, or the client disconnected, and an operation may still run.
  std::vector<std::shared_ptr<detail::Queue>> leaving TANDEM_GUARDED_BY(mutex);
  detail::QueueCounters::Values retired TANDEM_GUARDED_BY(mutex);  // of queues that were put
  std::map<std::uint64_t, Reserved> reserved TANDEM_GUARDED_BY(mutex);
  std::uint64_t reserved_bytes TANDEM_GUARDED_BY(mutex) = 0;
  std::uint64_t next_reserved TANDEM_GUARDED_BY(mutex) = 1;
};

}  // namespace tandem::uacce
