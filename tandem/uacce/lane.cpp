// SPDX-License-Identifier: Apache-2.0
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/uacce/detail/scheduler.hpp"

namespace tandem::uacce::detail {
namespace {

using std::chrono::microseconds;

// All of these are costs, in bytes.
constexpr std::int64_t kQuantum = 256 * 1024;  // what a tenant gets in a round
constexpr std::uint64_t kLead = 1024 * 1024;   // how far ahead of the last one a tenant may run
constexpr std::uint64_t kMaxLag = 16 * 1024 * 1024;  // how much a tenant may have to catch up
constexpr std::uint64_t kMoveLag = 8 * 1024 * 1024;  // when a lane that lags hands over a queue
constexpr std::uint64_t kBill = 64 * 1024;
constexpr int kCloseLooks = 16;            // at a queue that is alone, in one pass
constexpr std::int64_t kIdlePasses = 256;  // between looks at the clock; a pass costs 1,
constexpr unsigned kCostPerCredit = 8;     // work of cost 2^8 costs 1
constexpr microseconds kPollEvery{20};     // at most: wakes of cold queues, while others are hot
constexpr microseconds kBalanceEvery{200};
constexpr std::uint64_t kBell = 0;  // epoll datum; client ids start at 1
constexpr std::uint64_t kNoFloor = std::numeric_limits<std::uint64_t>::max();

/// Empties an eventfd without waiting, whatever has become of its O_NONBLOCK.
void drain(const UniqueFd& eventfd) noexcept {
  std::uint64_t count = 0;
  iovec to{&count, sizeof count};
  [[maybe_unused]] const ssize_t got = ::preadv2(eventfd.get(), &to, 1, -1, RWF_NOWAIT);
}

}  // namespace

Lane::Lane(Scheduler& scheduler)
    : scheduler_(scheduler),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      bell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      least_served_(kNoFloor) {
  if (!ready()) return;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = kBell;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, bell_.get(), &event) != 0) epoll_.reset();
}

void Lane::ring() {
  mail_flag_.store(true, std::memory_order_release);
  (void)::eventfd_write(bell_.get(), 1);
}

void Lane::adopt(std::shared_ptr<Queue> queue) {
  load_.fetch_add(1, std::memory_order_relaxed);
  {
    const MutexLock lock(mutex_);
    mail_.push_back(std::move(queue));
  }
  ring();
}

/// Every successful write to an eventfd gives an edge. The client's children have the same open
/// file and could spoil that in two ways. They read the count before we look: then it is still
/// writable, so the edge is reported, as EPOLLOUT. They fill it up, so that the client cannot
/// write: then it is not writable, which poll_wakes() takes for the sign to empty it.
Result<void> Lane::watch(std::shared_ptr<Engagement> engagement) {
  const MutexLock lock(mutex_);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLET;
  event.data.u64 = engagement->id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, engagement->wake.get(), &event) != 0) {
    return last_errno();
  }
  const std::uint64_t id = engagement->id;
  watched_.emplace(id, std::move(engagement));
  return {};
}

void Lane::unwatch(Engagement& engagement) {
  const MutexLock lock(mutex_);
  // Closing our descriptor would not do: the client has the same open file.
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, engagement.wake.get(), nullptr);
  watched_.erase(engagement.id);
}

std::size_t Lane::watched() const {
  const MutexLock lock(mutex_);
  return watched_.size();
}

std::shared_ptr<Queue> Lane::find_hot(const Queue* queue) const {
  for (const auto& tenant : hot_) {
    for (const auto& hot : tenant.queues) {
      if (hot.queue.get() == queue) return hot.queue;
    }
  }
  return nullptr;
}

void Lane::run(Turn& turn) {
  turn.looked = Clock::now();
  while (!scheduler_.stop_.load(std::memory_order_relaxed)) {
    if (mail_flag_.load(std::memory_order_relaxed)) open_mail(turn);
    if (hot_.empty()) {
      sleep();
      turn.looked = Clock::now();
      continue;
    }
    const Visit visited = pass(turn);
    if (visited == Visit::kLost) return;  // nothing here is ours any more
    if (visited == Visit::kIdle && hot_.size() > 1) cpu_pause();
    if (dead_seen_) drop_dead();
    if (--credit_ <= 0) housekeep(turn);
  }
}

/// One round over the hot tenants.
///
/// With one tenant nothing is weighed. Else `lead_` is set a little above the tenant served least
/// among those that have work; whoever is beyond waits, unless nobody else had anything to do.
Lane::Visit Lane::pass(Turn& turn) {
  if (hot_.size() == 1) {
    hot_.front().returned = false;
    return visit(turn, hot_.front());
  }
  limit_lag();
  bool worked = false;
  bool passed_over = false;
  for (auto& tenant : hot_) {
    if (tenant.served() > lead_) {
      passed_over = true;
      continue;
    }
    const Visit visited = visit(turn, tenant);
    if (visited == Visit::kLost) return visited;
    worked |= visited == Visit::kWorked;
  }
  if (!worked && passed_over) {
    for (auto& tenant : hot_) {
      if (tenant.served() <= lead_) continue;
      const Visit visited = visit(turn, tenant);
      if (visited == Visit::kLost) return visited;
      worked |= visited == Visit::kWorked;
    }
  }
  return worked ? Visit::kWorked : Visit::kIdle;
}

/// Sets `lead_`; a tenant that was slow on a thread of its own has at most kMaxLag to catch up
/// with, or it would keep the others out for as long; more only when somebody got more in one
/// piece. One that was away has at most kMaxLag behind the least served of those that were not.
void Lane::limit_lag() {
  const auto lag = [](std::uint64_t served, std::uint64_t most) {
    return served > most ? served - most : 0;
  };
  std::uint64_t least = kNoFloor;
  std::uint64_t most = 0;
  std::uint64_t floor = 0;
  for (const auto& tenant : hot_) {
    const std::uint64_t served = tenant.served();
    most = std::max(most, served);
    if (!tenant.worked || tenant.returned) continue;
    least = std::min(least, served);
    floor = std::max(floor, lag(served, std::max(kMaxLag, tenant.stride())));
  }
  const std::uint64_t floor_returned =
      least == kNoFloor ? lag(most, kMaxLag) : std::max(floor, lag(least, kMaxLag));
  least = kNoFloor;
  for (auto& tenant : hot_) {
    const std::uint64_t from = std::exchange(tenant.returned, false) ? floor_returned : floor;
    std::uint64_t served = tenant.served();
    if (served < from) {
      tenant.tenant->served.fetch_add(from - served, std::memory_order_relaxed);
      served = from;
    }
    if (tenant.worked) least = std::min(least, served);
  }
  lead_ = least == kNoFloor ? kNoFloor : least + kLead;
}

/// Runs batches of a tenant's queues in turn until they have cost a quantum. What the last one cost
/// beyond is not taken off the next round: `served` has it, and a tenant that worked off such a
/// debt would pass for one without work, whom nobody waits for.
Lane::Visit Lane::visit(Turn& turn, HotTenant& tenant) {
  tenant.deficit = kQuantum;
  if (tenant.queues.size() == 1) {
    const Visit visited = visit(turn, tenant, tenant.queues.front());
    if (visited != Visit::kLost) tenant.worked = visited == Visit::kWorked;
    return visited;
  }
  bool worked = false;
  for (std::size_t left = tenant.queues.size(); left > 0 && tenant.deficit > 0; --left) {
    if (tenant.next >= tenant.queues.size()) tenant.next = 0;
    const Visit visited = visit(turn, tenant, tenant.queues[tenant.next]);
    if (visited == Visit::kLost) return visited;
    ++tenant.next;
    worked |= visited == Visit::kWorked;
  }
  tenant.worked = worked;
  return worked ? Visit::kWorked : Visit::kIdle;
}

/// Runs one batch of a queue.
///
/// `current` tells let_go() that we are here; it stands before the look at death, and die() before
/// the look at `current`, with a full fence between on both sides (heavy on die()'s when the kernel
/// has it): either we see the death, or let_go() sees us and waits.
Lane::Visit Lane::visit(Turn& turn, HotTenant& tenant, HotQueue& hot) {
  Queue& queue = *hot.queue;
  std::uint32_t pending = queue.pending();
  if (pending == 0) {
    if (hot_.size() != 1 || tenant.queues.size() != 1) return Visit::kIdle;
    // Alone: look more closely than the way around the lane allows, though not so closely that the
    // client has to fight for the line it is about to write.
    for (int looks = kCloseLooks; pending == 0; pending = queue.pending()) {
      if (--looks == 0) {
        credit_ -= kCloseLooks;
        return Visit::kIdle;
      }
      cpu_pause();
    }
  }
  queue.prefetch();
  if (pending > queue.depth()) {
    queue.die(TANDEM_QUEUE_BAD_TAIL);
    dead_seen_ = true;  // run() drops and announces it after this pass
    return Visit::kWorked;
  }
  turn.current.store(&queue, std::memory_order_relaxed);
  scheduler_.process_fence_ ? light_fence() : full_fence();
  Visit visited = Visit::kWorked;
  if (queue.dead()) {
    dead_seen_ = true;
  } else {
    const Queue::Batch batch = queue.run(pending, static_cast<std::uint64_t>(tenant.deficit), turn);
    if (batch.lost) return Visit::kLost;
    dead_seen_ |= queue.dead();
    hot.worked = true;
    tenant.deficit -= static_cast<std::int64_t>(batch.cost);
    tenant.unbilled += batch.cost;
    if (tenant.unbilled >= kBill) tenant.tenant->bill(std::exchange(tenant.unbilled, 0));
    credit_ -= static_cast<std::int64_t>(batch.cost >> kCostPerCredit);
  }
  turn.current.store(nullptr, std::memory_order_release);
  return visited;
}

void Lane::bill() {
  for (auto& tenant : hot_) {
    if (tenant.unbilled != 0) tenant.tenant->bill(std::exchange(tenant.unbilled, 0));
  }
}

void Lane::housekeep(Turn& turn) {
  // Who wants queues parked at once gets a look at every pass.
  credit_ = scheduler_.spin_before_park_.count() == 0 ? 1 : kIdlePasses;
  const auto now = Clock::now();
  turn.looked = now;
  expel();
  park_idle(now);
  if (now - last_poll_ >= std::min(kPollEvery, scheduler_.spin_before_park_)) {
    last_poll_ = now;
    poll_wakes(0);
    if (scheduler_.yield_) ::sched_yield();
  }
  if (now - last_balance_ >= kBalanceEvery) {
    last_balance_ = now;
    bill();
    balance();
  }
}

void Lane::open_mail(Turn& turn) {
  mail_flag_.store(false, std::memory_order_seq_cst);  // before the look: what comes later rings
  std::vector<std::shared_ptr<Queue>> mail;
  {
    const MutexLock lock(mutex_);
    mail.swap(mail_);
  }
  const auto now = Clock::now();
  for (auto& queue : mail) make_hot(std::move(queue), now);
  drop_dead();
  turn.purge_workers();
}

void Lane::make_hot(std::shared_ptr<Queue> queue, Clock::time_point now) {
  const auto& owner = queue->engagement().tenant;
  auto at = std::find_if(hot_.begin(), hot_.end(),
                         [&](const HotTenant& tenant) { return tenant.tenant == owner; });
  if (at == hot_.end()) {
    HotTenant tenant;
    tenant.tenant = owner;
    at = hot_.insert(hot_.end(), std::move(tenant));
  }
  HotQueue hot;
  hot.queue = std::move(queue);
  hot.last_work = now;
  at->queues.push_back(std::move(hot));
}

/// Ends the queues of tenants that have cost too many engine threads.
void Lane::expel() {
  for (auto& tenant : hot_) {
    if (!tenant.tenant->expelled()) continue;
    for (auto& hot : tenant.queues) hot.queue->die(TANDEM_QUEUE_STUCK);
    dead_seen_ = true;
  }
}

/// Nobody else runs what is hot here, and this thread is in no operation: the deaths can be told.
void Lane::drop_dead() {
  dead_seen_ = false;
  for (auto& tenant : hot_) {
    std::erase_if(tenant.queues, [](const HotQueue& hot) {
      if (!hot.queue->dead()) return false;
      hot.queue->announce();
      return true;
    });
  }
  bill();
  std::erase_if(hot_, [](const HotTenant& tenant) { return tenant.queues.empty(); });
}

void Lane::park_idle(Clock::time_point now) {
  bool emptied = false;
  for (auto& tenant : hot_) {
    std::erase_if(tenant.queues, [&](HotQueue& hot) {
      if (std::exchange(hot.worked, false)) {
        hot.working = true;
        hot.last_work = now;
        return false;
      }
      if (now - hot.last_work < scheduler_.spin_before_park_) return false;
      return try_park(hot.queue);
    });
    emptied |= tenant.queues.empty();
  }
  if (!emptied) return;
  bill();
  std::erase_if(hot_, [](const HotTenant& tenant) { return tenant.queues.empty(); });
}

/// Makes a hot queue cold, unless it is held or has work. See Queue::park() for why no submission
/// is missed; the engagement's mutex is held from before `parked` is published until the queue is
/// where on_wake() looks. Returns: whether the queue left the lane (cold, or dead).
bool Lane::try_park(const std::shared_ptr<Queue>& queue) {
  Engagement& engagement = queue->engagement();
  const MutexLock lock(engagement.mutex);
  if (queue->dead()) {
    queue->announce();
    return true;
  }
  if (queue->held) return false;
  if (!queue->park()) return false;
  queue->cold = true;
  engagement.cold.push_back(queue);
  return true;
}

/// Takes back those cold queues of a client that have work. Whoever found the eventfd full has not
/// written to it but published its tail before: emptying comes first, the look at tails second.
void Lane::on_wake(std::uint64_t client, bool full) {
  std::shared_ptr<Engagement> engagement;
  {
    const MutexLock lock(mutex_);
    const auto at = watched_.find(client);
    if (at == watched_.end()) return;
    engagement = at->second;
  }
  if (full) drain(engagement->wake);
  const auto now = Clock::now();
  const MutexLock lock(engagement->mutex);
  std::erase_if(engagement->cold, [&](std::shared_ptr<Queue>& queue) {
    if (!queue->dead() && queue->pending() == 0) return false;
    queue->cold = false;
    queue->set_parked(false);
    TANDEM_TRACE(unpark, queue->id(), queue->mm().pasid().value);
    if (!queue->dead()) make_hot(std::move(queue), now);
    return true;
  });
}

void Lane::poll_wakes(int timeout_ms) {
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 != kBell) on_wake(event.data.u64, (event.events & EPOLLOUT) == 0);
  }
}

void Lane::sleep() {
  load_.store(0, std::memory_order_relaxed);
  least_served_.store(kNoFloor, std::memory_order_relaxed);
  asleep_.store(true, std::memory_order_seq_cst);
  poll_wakes(-1);
  asleep_.store(false, std::memory_order_seq_cst);
  scheduler_.lane_awake();
  credit_ = 0;
}

/// Says how busy this lane is and hands a queue over when another is less so: by two queues or
/// more, or when all tenants there are well ahead of the last one here.
void Lane::balance() {
  if (scheduler_.lanes_.size() < 2) return;
  std::uint32_t working = 0;
  std::uint64_t least = kNoFloor;
  for (auto& tenant : hot_) {
    bool any = false;
    for (auto& hot : tenant.queues) {
      hot.working = hot.working || hot.worked || hot.queue->pending() != 0;
      working += hot.working ? 1u : 0u;
      any |= hot.working;
    }
    if (any) least = std::min(least, tenant.served());
  }
  load_.store(working, std::memory_order_relaxed);
  least_served_.store(least, std::memory_order_relaxed);
  if (working >= 2) {
    for (const auto& lane : scheduler_.lanes_) {
      if (lane.get() == this) continue;
      const std::uint32_t theirs = lane->load();
      const std::uint64_t their_least = lane->least_served_.load(std::memory_order_relaxed);
      const bool idler = working >= theirs + 2;
      const bool ahead =
          working > theirs && their_least != kNoFloor && their_least > least + kMoveLag;
      if ((idler || ahead) && shed(*lane)) break;
    }
  }
  for (auto& tenant : hot_) {
    for (auto& hot : tenant.queues) hot.working = false;
  }
}

/// Hands over a working queue: of the tenant with the most of them, the least served among equals.
bool Lane::shed(Lane& to) {
  HotTenant* from = nullptr;
  std::size_t most = 0;
  for (auto& tenant : hot_) {
    const auto working =
        static_cast<std::size_t>(std::count_if(tenant.queues.begin(), tenant.queues.end(),
                                               [](const HotQueue& hot) { return hot.working; }));
    if (working == 0) continue;
    if (from == nullptr || working > most ||
        (working == most && tenant.served() < from->served())) {
      from = &tenant;
      most = working;
    }
  }
  if (from == nullptr) return false;
  const auto at = std::find_if(from->queues.begin(), from->queues.end(),
                               [](const HotQueue& hot) { return hot.working; });
  std::shared_ptr<Queue> queue = std::move(at->queue);
  from->queues.erase(at);
  load_.fetch_sub(1, std::memory_order_relaxed);
  bill();
  std::erase_if(hot_, [](const HotTenant& tenant) { return tenant.queues.empty(); });
  to.adopt(std::move(queue));
  return true;
}

}  // namespace tandem::uacce::detail
