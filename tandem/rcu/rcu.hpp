// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/check.hpp"
#include "tandem/base/cpu.hpp"
#include "tandem/rcu/detail/queue.hpp"
#include "tandem/rcu/detail/reader.hpp"

/// Read-copy-update with the names of C++26 <rcu>.
///
/// Module overview. Readers enter a section (about a nanosecond, no shared store, never blocking)
/// and follow pointers that updaters replace. An updater publishes the new object, then waits until
/// every section that may hold the old one has ended (`rcu_synchronize`), or hands the old one over
/// to be deleted then (`retire`, `rcu_retire`).
///
///     {
///       const std::scoped_lock section(rcu_default_domain());
///       use(*table.load(std::memory_order_acquire));
///     }
///     Table* old = table.exchange(fresh, std::memory_order_acq_rel);
///     rcu_retire(old);
///
/// How it works. A domain has a 64-bit sequence that every retire and every grace period advances.
/// A reader copies it into its own cache line on entry and stores 0 on exit. A grace period ends
/// once no line holds an older value. The fence that a reader needs between its store and its loads
/// is executed for it by the grace period, through membarrier; where the kernel refuses that, the
/// reader pays for it. What is retired goes to a queue of the thread's own.
///
/// Threads register at their first section or retire and unregister at their exit, by themselves.
/// Deleters run on threads of the domain, started at the first retire, and on threads inside
/// rcu_barrier(), several at a time if there are several such threads; never inside retire itself,
/// unless no thread can be started or the retiring thread's CPU was told so (offload.hpp).
///
/// A signal handler may enter sections of a domain in which its thread has been in one before, and
/// poll grace periods (grace_period.hpp); it must not retire, wait or call barrier. After fork() it
/// may do so in the child, too: fork() makes what it needs of those domains, and blocks the
/// thread's signals meanwhile. Sections and polls leave errno as it was.
///
/// pthread_cancel() takes effect after calls that wait, not in them: neither in a report of a stall
/// nor in deleters that rcu_barrier() runs.
///
/// Fork: a child may use every domain at once, also inside a section that was open. What was
/// retired before the fork is the parent's: the child neither runs nor frees it. A child made by
/// the raw system call, bypassing fork(), must enter a section on its first thread before others
/// rely on one that was open, and before handlers use the domain.
///
/// Threads that end: sections and retires work to the last destructor of a thread. A thread that
/// uses them in a pthread key's destructor after our own blocks its signals from then on.
///
/// Without membarrier (denied by a sandbox, TANDEM_DISABLE=membarrier) readers execute their own
/// fences, about 20 ns, and all promises stay. Where a sandbox denies it later, stats() says so
/// from the first grace period that is refused, and readers fence from their next section on. The
/// sections that were open or being entered then are covered by a wait of a millisecond in each
/// grace period: longer than any processor keeps a store to itself, but no architecture promises
/// that. Programs that cannot accept it set TANDEM_DISABLE, or enter the sandbox first.
///
/// Lock order: queue → registry, both internal. No user code runs under the registry; deleters run
/// under the lock of their queue.
///
/// Beside this header: call.hpp (callbacks without a destructor), grace_period.hpp (polling),
/// expedite.hpp, quiescent.hpp (readers of event loops, fenced readers), offload.hpp, stall.hpp,
/// stats.hpp, srcu.hpp (readers that sleep), tasks.hpp (readers without marks).
///
/// Spec: C++26 [saferecl.rcu].
namespace tandem::rcu {

namespace detail {
union DefaultDomain;
struct DomainAccess;
}  // namespace detail

/// A set of readers and of the objects they protect; satisfies Lockable.
///
/// Further domains than the default one are an extension: their sections do not hold each other's
/// grace periods up. A domain is destroyed after the last call on it has returned and the last
/// section has ended; the destructor, which must not be called in a deleter of the domain's
/// (checked), runs what is still retired. It ends a section of its own thread's, as there is where
/// a program calls exit() in one.
///
/// Spec: [saferecl.rcu.domain].
class rcu_domain {
 public:
  /// Errors: std::bad_alloc.
  rcu_domain();
  rcu_domain(const rcu_domain&) = delete;
  rcu_domain& operator=(const rcu_domain&) = delete;
  ~rcu_domain();

  /// Enters a section. Nests; never blocks. unlock() must run on the same thread.
  ///
  /// Allocates at the thread's first section in this domain, and without memory ends the program;
  /// in the default domain at a forked child's first one only.
  /// Ordering: (A) our state store is visible before any load in the section; pairs with the heavy
  ///           fence (F) of a grace period. (B) the sequence load acquires what updaters did before
  ///           they advanced it to that value.
  void lock() noexcept;
  /// As lock(). Returns true.
  bool try_lock() noexcept {
    lock();
    return true;
  }
  /// Leaves the section that the last lock() on this thread entered.
  ///
  /// Ordering: (C) the state store releases every access of the section; pairs with the scan of a
  ///           grace period. (D) it is visible before the load of `wake`; pairs with (F).
  void unlock() noexcept;

  /// Whether the calling thread is in a section of this domain. For assertions.
  bool in_section() const noexcept {
    const detail::Reader* const self = known_reader();
    return self && self->nesting() != 0;
  }

 private:
  friend union detail::DefaultDomain;
  friend struct detail::DomainAccess;

  explicit constexpr rcu_domain(std::uint64_t id) : id_(id) {}

  detail::Reader& reader() noexcept;
  /// This thread's reader, a new one if it has none; no_reader where there is no memory.
  detail::Reader& find_reader() noexcept;
  /// This thread's reader, registered.
  detail::Reader& attached_reader() noexcept {
    detail::Reader& self = reader();
    if (self.generation != detail::process.generation.load(std::memory_order_relaxed)) attach(self);
    return self;
  }
  /// This thread's reader if it ever was in a section, else null.
  detail::Reader* known_reader() const noexcept;
  /// Registers `reader`, this thread's, which keeps the section it may be in.
  void attach(detail::Reader& reader) noexcept;
  /// lock() for the first time, and always where readers make their own fences.
  void lock_slowly(detail::Reader& reader) noexcept;
  void lock_fenced(detail::Reader& reader) noexcept;
  /// This process's part of the domain; a new one in a forked child.
  detail::Core& core() noexcept;
  /// Queues an object of `bytes` bytes. Returns: false when there was no memory for it.
  template <std::size_t N>
  bool push(const std::array<std::uintptr_t, N>& words, std::size_t bytes) noexcept;
  bool push_slowly(detail::Reader& self, const std::uintptr_t* words, std::size_t count,
                   std::size_t bytes) noexcept;
  void wake_worker(detail::Reader& self) noexcept;
  void retire(detail::Node& node, std::size_t bytes) noexcept;
  void spill(std::uintptr_t word) noexcept;
  void synchronize() noexcept;
  void barrier() noexcept;

  // Written by updaters, read by readers: its line travels as often as the pointers they follow.
  alignas(kCacheLine) std::atomic<std::uint64_t> sequence_{detail::kFirstSequence};
  const std::uint64_t id_;  // never reused within the process; 0 is the default domain
  std::atomic<detail::Core*> core_{nullptr};
};

namespace detail {
/// Keeps the default domain from being destroyed at exit, when threads may still read.
union DefaultDomain {
  constexpr DefaultDomain() : domain(0) {}
  ~DefaultDomain() {}
  rcu_domain domain;
};
extern constinit DefaultDomain default_domain;

/// For the module's own functions that cannot be named as friends.
struct DomainAccess {
  static void retire(rcu_domain& domain, Node& node, std::size_t bytes) noexcept {
    domain.retire(node, bytes);
  }
  template <std::size_t N>
  static bool push(rcu_domain& domain, const std::array<std::uintptr_t, N>& words,
                   std::size_t bytes) noexcept {
    return domain.push(words, bytes);
  }
  static void spill(rcu_domain& domain, std::uintptr_t word) noexcept { domain.spill(word); }
  static std::uint64_t stamp(rcu_domain& domain) noexcept {
    return domain.sequence_.fetch_add(kStep, std::memory_order_acq_rel) + kStep;
  }
  static std::atomic<std::uint64_t>& sequence(rcu_domain& domain) noexcept {
    return domain.sequence_;
  }
  static void attach(rcu_domain& domain, Reader& reader) noexcept { domain.attach(reader); }
  static Reader& reader(rcu_domain& domain) noexcept { return domain.attached_reader(); }
  static Reader* known_reader(rcu_domain& domain) noexcept { return domain.known_reader(); }
  static void lock_fenced(rcu_domain& domain) noexcept {
    domain.lock_fenced(domain.attached_reader());
  }
  static Core& core(rcu_domain& domain) noexcept { return domain.core(); }
  static void synchronize(rcu_domain& domain) noexcept { domain.synchronize(); }
  static void barrier(rcu_domain& domain) noexcept { domain.barrier(); }
  static void expedite(rcu_domain& domain) noexcept;
  static void await(rcu_domain& domain, std::uint64_t cookie, bool expedited) noexcept;
};
}  // namespace detail

/// The domain that everything uses unless told otherwise. Spec: [saferecl.rcu.domain.func].
inline rcu_domain& rcu_default_domain() noexcept { return detail::default_domain.domain; }

/// Returns once every section that began before the call has ended.
///
/// Units:         about 0.3 µs without running readers, else an inter-processor interrupt and the
///                rest of the longest section; 40 ns where all readers are fenced, in quiescent
///                states, or callers themselves. Concurrent callers share grace periods.
/// Thread safety: any thread outside sections of `dom` (checked).
/// Ordering:      what happened before the call is visible to sections that it does not wait for;
///                the ends of the others happen before its return.
/// Spec:          [saferecl.rcu.domain.func].
inline void rcu_synchronize(rcu_domain& dom = rcu_default_domain()) noexcept {
  detail::DomainAccess::synchronize(dom);
}

/// Returns once the deleters of everything retired before the call have returned.
///
/// Inside a section it waits for what was retired before that section began; what call() and free()
/// took is not waited for there. Inside a deleter it does not wait for the deleters below it on
/// this stack, nor for those below another deleter that is in rcu_barrier(). May run deleters of
/// `dom`.
///
/// Deleters that call it run each other, one inside the other: as deep as there are such objects
/// waiting, at some 600 bytes of stack each beside their own. 8 MiB take about 14000.
///
/// Thread safety: any thread that holds no lock that a deleter takes. Deleters of two domains must
///                not call each other's barrier: each may wait for the other on another thread.
/// Spec:          [saferecl.rcu.domain.func].
inline void rcu_barrier(rcu_domain& dom = rcu_default_domain()) noexcept {
  detail::DomainAccess::barrier(dom);
}

/// Base of objects that are retired without an allocation.
///
/// T derives from it publicly, not virtually, and from one of its kind only (checked in retire()).
/// Spec: [saferecl.rcu.base].
template <class T, class D = std::default_delete<T>>
class rcu_obj_base {
 public:
  /// Has a D that was assigned `std::move(d)` called on this object once every section that may
  /// hold it has ended.
  ///
  /// Ownership:     the domain's from here on; the object was unpublished before.
  /// Thread safety: any thread, inside or outside sections, also from deleters. While more than
  ///                65536 words or 16 MiB of objects wait, one call in a few hundred outside
  ///                sections and deleters sleeps until fewer do, at most 1 ms, and longer each time
  ///                that this does not help (128 ms).
  /// Fork:          in a child, objects retired before the fork stay unreclaimed.
  void retire(D d = D(), rcu_domain& dom = rcu_default_domain()) noexcept {
    static_assert(std::derived_from<T, rcu_obj_base>, "T must derive from rcu_obj_base<T, D>");
    static_assert(std::is_same_v<typename T::rcu_obj_base_kind_, D>,
                  "T has two bases of this kind");
    rcu_deleter_ = std::move(d);
    // The node is the first member, so it is where this object is.
    TANDEM_CHECK(static_cast<void*>(&rcu_node_) == static_cast<void*>(this));
    rcu_node_.run = [](callback_head* head) noexcept {
      auto* const self = reinterpret_cast<rcu_obj_base*>(head);
      D deleter;
      deleter = std::move(self->rcu_deleter_);
      deleter(static_cast<T*>(self));
    };
    detail::DomainAccess::retire(dom, rcu_node_, sizeof(T));
  }

  using rcu_obj_base_kind_ = D;  ///< ambiguous where there are two bases of this kind

 protected:
  rcu_obj_base() = default;
  rcu_obj_base(const rcu_obj_base&) = default;
  rcu_obj_base(rcu_obj_base&&) noexcept(std::is_nothrow_move_constructible_v<D>) = default;
  rcu_obj_base& operator=(const rcu_obj_base&) = default;
  rcu_obj_base& operator=(rcu_obj_base&&) noexcept(std::is_nothrow_move_assignable_v<D>) = default;
  ~rcu_obj_base() = default;

 private:
  // Names that a derived class is unlikely to look up.
  detail::Node rcu_node_;
  [[no_unique_address]] D rcu_deleter_{};
};

/// Has `d(p)` called once every section that may hold `*p` has ended; for objects of any type.
///
/// As rcu_obj_base::retire(). Allocates a node if D has a state; a few words in a queue otherwise.
/// Pass deleters that own something by value.
/// Errors: std::bad_alloc, and what moving D throws; then nothing is scheduled.
/// Spec:   [saferecl.rcu.domain.func].
template <class T, class D = std::default_delete<T>>
void rcu_retire(T* p, D d = D(), rcu_domain& dom = rcu_default_domain()) {
  static_assert(std::is_move_constructible_v<D>, "D must be move-constructible");
  static_assert(std::is_invocable_v<D&, T*>, "d(p) must be well-formed");
  constexpr std::size_t kBytes = [] {
    if constexpr (std::is_object_v<T>) {
      return sizeof(T);
    } else {
      return std::size_t{0};
    }
  }();
  if constexpr (std::is_empty_v<D> && std::is_trivially_copyable_v<D> && sizeof(D) == 1) {
    static constexpr detail::Operation kOperation{
        [](void* object) noexcept {
          D deleter = std::bit_cast<D>(std::byte{});  // a copy of any D is a copy of d
          deleter(static_cast<T*>(object));
        },
        /*stamped=*/true};
    const auto object = reinterpret_cast<std::uintptr_t>(p);
    if (object != 0 && (object & detail::kTags) == 0 &&
        detail::DomainAccess::push<3>(
            dom,
            {object | detail::kBare, reinterpret_cast<std::uintptr_t>(&kOperation),
             detail::DomainAccess::stamp(dom)},
            kBytes)) {
      return;
    }
  }
  struct Scheduled : detail::Node {
    Scheduled(T* object, D&& deleter) : object_(object), deleter_(std::move(deleter)) {}
    T* object_;
    [[no_unique_address]] D deleter_;
  };
  auto* const scheduled = new Scheduled(p, std::move(d));
  scheduled->run = [](callback_head* head) noexcept {
    const std::unique_ptr<Scheduled> self(static_cast<Scheduled*>(head));
    self->deleter_(self->object_);
  };
  detail::DomainAccess::retire(dom, *scheduled, kBytes + sizeof(Scheduled));
}

TANDEM_RCU_READER_PATH inline detail::Reader& rcu_domain::reader() noexcept {
  if (this == &detail::default_domain.domain) {
    return detail::here(&detail::default_reader);
  }
  // A volatile access: see last_reader.
  detail::Reader* const last = *const_cast<detail::Reader* volatile*>(&detail::last_reader);
  return last->domain_id == id_ ? *last : find_reader();
}

TANDEM_RCU_READER_PATH inline void rcu_domain::lock() noexcept {
  detail::Reader& self = reader();
  if (self.plain.load(std::memory_order_relaxed) !=
      detail::process.generation.load(std::memory_order_relaxed)) [[unlikely]] {
    return lock_slowly(self);
  }
  const std::uint64_t state = self.state.load(std::memory_order_relaxed);
  if (state != 0) {
    self.nest(state);
    return;
  }
  self.state.store(sequence_.load(std::memory_order_acquire), detail::kReaderOrder);  // (B)
  if constexpr (detail::kInstrumented) {
    full_fence();  // (A)
  } else {
    light_fence();  // (A)
  }
}

TANDEM_RCU_READER_PATH inline void rcu_domain::unlock() noexcept {
  detail::Reader& self = reader();
  const std::uint64_t state = self.state.load(std::memory_order_relaxed);
  if ((state & detail::kNesting) != 1) {
    TANDEM_CHECK(state != 0);
    self.unnest(state);
    return;
  }
  self.state.store(0, detail::kReaderOrder);  // (C)
  light_fence();                              // (D)
  if (self.wake.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    detail::wake_waiters(self);
  }
}

/// Ordering: (G) the words are published before `asleep` is loaded; pairs with the fence that a
///           worker makes on every thread between its store of `asleep` and its look at the queues.
template <std::size_t N>
TANDEM_RCU_READER_PATH inline bool rcu_domain::push(const std::array<std::uintptr_t, N>& words,
                                                    std::size_t bytes) noexcept {
  detail::Reader& self = reader();
  detail::Queue& queue = *self.queue;
  if (self.generation != detail::process.generation.load(std::memory_order_relaxed) ||
      queue.limit - queue.cursor < static_cast<std::ptrdiff_t>(N) ||
      queue.bytes > detail::kChunkObjectBytes) [[unlikely]] {
    return push_slowly(self, words.data(), N, bytes);
  }
  for (std::size_t i = 0; i < N; ++i) queue.cursor[i] = words[i];
  queue.cursor += N;
  queue.bytes += bytes;
  queue.pushed.store(queue.pushed.load(std::memory_order_relaxed) + N, std::memory_order_release);
  light_fence();  // (G)
  if (queue.asleep->load(std::memory_order_relaxed) != 0) [[unlikely]]
    wake_worker(self);
  return true;
}

}  // namespace tandem::rcu
