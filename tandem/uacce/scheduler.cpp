// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/scheduler.hpp"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <system_error>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/background_thread.hpp"
#include "tandem/trace/trace.hpp"
#include "tandem/uacce/detail/in_flight.hpp"

namespace tandem::uacce::detail {

Scheduler::Scheduler(std::chrono::microseconds spin_before_park,
                     std::chrono::milliseconds stuck_after)
    : spin_before_park_(spin_before_park),
      stuck_after_(stuck_after),
      process_fence_(register_process_fence()) {}

Result<std::unique_ptr<Scheduler>> Scheduler::create(int threads,
                                                     std::chrono::microseconds spin_before_park,
                                                     std::chrono::milliseconds stuck_after) {
  if (threads < 0) return errno_error(EINVAL);
  std::unique_ptr<Scheduler> scheduler(new Scheduler(spin_before_park, stuck_after));
  scheduler->yield_ = threads >= usable_cpus();
  for (int i = 0; i < threads; ++i) {
    auto lane = std::make_shared<Lane>(*scheduler);
    if (!lane->ready()) return errno_error(EMFILE);
    scheduler->lanes_.push_back(std::move(lane));
  }
  if (threads > 0) {
    const MutexLock lock(scheduler->mutex_);
    for (const auto& lane : scheduler->lanes_) {
      Post& post = scheduler->posts_.emplace_back();
      post.lane = lane;
      if (!scheduler->begin_turn(post)) return errno_error(EAGAIN);
    }
    const SignalsBlocked blocked;  // they are for the program's own threads
    try {
      scheduler->watchdog_ = std::thread([raw = scheduler.get()] { raw->watch(); });
    } catch (const std::system_error& error) {
      return Unexpected{error.code()};
    }
  }
  return scheduler;
}

Scheduler::~Scheduler() {
  stop_.store(true, std::memory_order_seq_cst);
  for (const auto& lane : lanes_) lane->ring();
  std::size_t posts = 0;
  {
    const MutexLock lock(mutex_);
    posts = posts_.size();
  }
  for (std::size_t i = 0; i < posts; ++i) {
    // An operation that hangs is given up by the watchdog; the thread after it sees stop_.
    for (;;) {
      std::shared_ptr<Turn> turn;
      {
        const MutexLock lock(mutex_);
        turn = posts_[i].turn;
      }
      if (turn == nullptr) break;
      if (turn->ended.load(std::memory_order_acquire) && !turn->taken()) break;
      lane_awake();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  if (watchdog_.joinable()) {
    watching_.store(kStopWatching, std::memory_order_seq_cst);
    wake_watchdog();
    watchdog_.join();
  }
  const MutexLock lock(mutex_);
  for (auto& post : posts_) {
    if (post.turn != nullptr && post.turn->thread.joinable()) post.turn->thread.join();
  }
}

/// Puts a new thread on a lane that nobody runs.
///
/// The thread keeps its turn and its lane alive, so that one given up can still return.
bool Scheduler::begin_turn(Post& post) {
  post.turn = nullptr;
  auto turn = std::make_shared<Turn>();
  const SignalsBlocked blocked;  // they are for the program's own threads
  try {
    turn->thread = std::thread([turn, lane = post.lane]() mutable {
      lane->run(*turn);
      turn->ended.store(true, std::memory_order_release);
    });
  } catch (const std::system_error&) {
    return false;
  }
  post.turn = std::move(turn);
  post.operation = 0;
  post.without_cpu = {};
  return true;
}

Result<void> Scheduler::engage(const std::shared_ptr<Engagement>& engagement) {
  if (lanes_.empty()) return {};
  const auto least =
      std::min_element(lanes_.begin(), lanes_.end(),
                       [](const auto& a, const auto& b) { return a->watched() < b->watched(); });
  engagement->home = least->get();
  return (*least)->watch(engagement);
}

void Scheduler::disengage(Engagement& engagement) {
  if (engagement.home != nullptr) engagement.home->unwatch(engagement);
  const MutexLock lock(engagement.mutex);
  engagement.cold.clear();
}

Lane& Scheduler::idlest() {
  return **std::min_element(lanes_.begin(), lanes_.end(),
                            [](const auto& a, const auto& b) { return a->load() < b->load(); });
}

void Scheduler::start(const std::shared_ptr<Queue>& queue) {
  if (lanes_.empty()) return;
  Engagement& engagement = queue->engagement();
  const MutexLock lock(engagement.mutex);
  if (queue->dead()) return;
  if (queue->held || !queue->park()) {  // submitted to before it started
    idlest().adopt(queue);
    return;
  }
  queue->cold = true;
  engagement.cold.push_back(queue);
}

void Scheduler::hold(const std::shared_ptr<Queue>& queue, bool keep_awake) {
  if (lanes_.empty()) return;
  Engagement& engagement = queue->engagement();
  const MutexLock lock(engagement.mutex);
  queue->held = keep_awake;
  if (!keep_awake || !queue->cold) return;
  std::erase(engagement.cold, queue);
  queue->cold = false;
  queue->set_parked(false);
  TANDEM_TRACE(unpark, queue->id(), queue->mm().pasid().value);
  idlest().adopt(queue);
}

bool Scheduler::let_go(const std::shared_ptr<Queue>& queue, std::chrono::milliseconds limit) {
  {
    Engagement& engagement = queue->engagement();
    const MutexLock lock(engagement.mutex);
    if (queue->cold) {
      std::erase(engagement.cold, queue);
      queue->cold = false;
    }
  }
  process_fence_ ? (void)heavy_fence_process() : full_fence();  // see Lane::visit()
  const auto deadline = std::chrono::steady_clock::now() + limit;
  for (int i = 0; visited(*queue); ++i) {
    if (i < 100) {
      std::this_thread::yield();
      continue;
    }
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  queue->announce();
  return true;
}

bool Scheduler::visited(const Queue& queue) const {
  if (queue.inline_claim.load(std::memory_order_seq_cst)) return true;
  const MutexLock lock(mutex_);
  return std::any_of(posts_.begin(), posts_.end(), [&](const Post& post) {
    return post.turn != nullptr && post.turn->current.load(std::memory_order_acquire) == &queue;
  });
}

bool Scheduler::runs(const Queue& queue) const {
  process_fence_ ? (void)heavy_fence_process() : full_fence();  // as in let_go()
  return visited(queue);
}

std::vector<std::shared_ptr<Turn>> Scheduler::take_returned_locked() {
  const auto returned = std::partition(given_up_.begin(), given_up_.end(), [](const auto& turn) {
    return !turn->ended.load(std::memory_order_acquire);
  });
  std::vector<std::shared_ptr<Turn>> taken(std::make_move_iterator(returned),
                                           std::make_move_iterator(given_up_.end()));
  given_up_.erase(returned, given_up_.end());
  for (const auto& turn : taken) {
    turn->kept->engagement().tenant->threads_lost.fetch_sub(1, std::memory_order_relaxed);
  }
  return taken;
}

void Scheduler::collect_returned() {
  std::vector<std::shared_ptr<Turn>> returned;
  const MutexLock lock(mutex_);
  returned = take_returned_locked();
}

bool Scheduler::given_up(const Queue& queue) const {
  const MutexLock lock(mutex_);
  return std::any_of(given_up_.begin(), given_up_.end(), [&](const auto& turn) {
    return turn->kept.get() == &queue && !turn->ended.load(std::memory_order_acquire);
  });
}

void Scheduler::purge() {
  for (const auto& lane : lanes_) lane->ring();
}

namespace {

/// Runs operations on the calling thread; the queue keeps the worker.
class InlineExecutor final : public Executor {
 public:
  std::optional<Completion> execute(Queue& queue, const tandem_descriptor& descriptor) override {
    const InFlight::Operation operation(queue.death());
    const auto worker = [&]() -> Worker& {
      if (!queue.inline_worker) queue.inline_worker = queue.device().engine().make_worker();
      return *queue.inline_worker;
    };
    return Turn::run_operation(worker, queue, descriptor);
  }
};

/// Whether this thread is inside run_here(): an engine must not submit to an inline queue.
thread_local bool running_here = false;

}  // namespace

/// Runs until nothing is pending.
///
/// A thread that finds the queue claimed returns at once; what it submitted is seen by the
/// claimant, who looks again after giving the claim back. Between giving back and looking stands a
/// full fence, between submitting and claiming the seq_cst exchange: either the other finds the
/// claim free, or we see its tail.
std::size_t Scheduler::run_here(Queue& queue) {
  TANDEM_CHECK(!running_here);
  running_here = true;
  InlineExecutor executor;
  std::size_t completed = 0;
  for (;;) {
    if (queue.inline_claim.exchange(true, std::memory_order_seq_cst)) break;
    while (!queue.dead()) {
      const std::uint32_t pending = queue.pending();
      if (pending == 0) break;
      if (pending > queue.depth()) {
        queue.die(TANDEM_QUEUE_BAD_TAIL);
        break;
      }
      completed += queue.run(pending, Queue::kUnlimited, executor).operations;
    }
    const bool dead = queue.dead();
    if (dead) queue.announce();
    const std::uint32_t position = queue.position();
    queue.inline_claim.store(false, std::memory_order_seq_cst);
    full_fence();  // pairs with the exchange of a thread that submitted meanwhile
    if (dead || queue.tail() == position) break;
  }
  running_here = false;
  return completed;
}

}  // namespace tandem::uacce::detail
