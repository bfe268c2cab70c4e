// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/base/cpu.hpp"

#if defined(__SANITIZE_THREAD__)
#define TANDEM_RCU_INSTRUMENTED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TANDEM_RCU_INSTRUMENTED 1
#endif
#endif

/// Keeps UndefinedBehaviorSanitizer from asking whether the address of a thread-local variable is
/// null: g++ takes the answer from the flags of the addition that makes the address, and the linker
/// relaxes that addition into an instruction that sets none. (g++ makes one check of null and
/// alignment, and decides after inlining: only naming both leaves it out.)
#define TANDEM_RCU_READER_PATH __attribute__((no_sanitize("null", "alignment")))

/// What the inline reader path touches. Private: rcu.hpp alone includes it from outside the module.
namespace tandem::rcu::detail {

struct Core;

/// Whether ThreadSanitizer watches. It knows neither membarrier nor stand-alone fences, so readers
/// then use sequentially consistent stores and full fences.
#ifdef TANDEM_RCU_INSTRUMENTED
inline constexpr bool kInstrumented = true;
#else
inline constexpr bool kInstrumented = false;
#endif
inline constexpr std::memory_order kReaderOrder =
    kInstrumented ? std::memory_order_seq_cst : std::memory_order_release;

/// Reader::generation of a reader that no domain knows of; never a process generation.
inline constexpr std::uint64_t kDetached = ~std::uint64_t{0};

/// One thread in one domain. `state` is 0 outside sections, else the sequence at the outermost
/// lock(); the line belongs to the thread, and others touch it only in grace periods.
struct alignas(kCacheLine) Reader {
  std::atomic<std::uint64_t> state{0};   // owner writes; grace periods read
  std::atomic<std::uint32_t> wake{0};    // a sleeping grace period sets; owner clears
  std::uint32_t nesting = 0;             // owner only
  std::uint64_t generation = kDetached;  // owner only: process generation in which it was attached
  Core* core = nullptr;                  // owner only: holds a reference
  Reader* next = nullptr;                // under core->registry
  Reader* previous = nullptr;            // under core->registry
};
static_assert(sizeof(Reader) == kCacheLine);

/// The reader that the thread used last in a domain other than the default one.
struct LastReader {
  std::uint64_t domain_id = 0;
  Reader* reader = nullptr;
};

// Initial-exec: one addition to the thread pointer instead of a call, also in shared libraries.
#define TANDEM_RCU_TLS __attribute__((tls_model("initial-exec")))
extern constinit thread_local Reader default_reader TANDEM_RCU_TLS;
extern constinit thread_local LastReader last_reader TANDEM_RCU_TLS;
#undef TANDEM_RCU_TLS

/// What all domains of a process share.
struct Process {
  /// Points to the generation word, on a page that the kernel wipes in a forked child; before the
  /// first use to a word that stays 0. Written once.
  std::atomic<std::atomic<std::uint64_t>*> generation;
  /// Whether readers may leave the fence to membarrier. Written once, false to true.
  std::atomic<bool> light;
};
extern constinit Process process;

/// An object waiting for its grace period. Copying copies nothing: the links belong to the domain.
struct Node {
  Node* next = nullptr;
  std::uint64_t stamp = 0;                // the first sequence whose readers cannot hold the object
  void (*run)(Node*) noexcept = nullptr;  // evaluates the deleter; the node is gone afterwards

  Node() = default;
  Node(const Node&) noexcept {}
  Node& operator=(const Node&) noexcept { return *this; }
  ~Node() = default;
};

/// Wakes the grace periods that sleep until `reader` leaves its section.
void wake_waiters(Reader& reader) noexcept;

}  // namespace tandem::rcu::detail
