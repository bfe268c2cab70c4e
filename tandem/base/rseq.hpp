// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(__SANITIZE_THREAD__) && \
    __has_include(<sys/rseq.h>)
#define TANDEM_HAS_RSEQ 1
#endif
#if defined(TANDEM_HAS_RSEQ) && defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef TANDEM_HAS_RSEQ
#endif
#endif

#ifdef TANDEM_HAS_RSEQ
#include <sys/rseq.h>
#endif

/// Restartable sequences: per-CPU counters that threads advance without an atomic instruction.
///
/// Spec: Linux kernel <linux/rseq.h>; rseq(2); The GNU C Library Reference Manual, "Restartable
///       Sequences" (the library registers each thread and tells where the area is).
namespace tandem {

/// Whether this process may use rseq_add(): the C library registered its threads, ThreadSanitizer
/// does not watch, and TANDEM_DISABLE does not name "rseq". The same for the life of the process.
///
/// Thread safety: any thread; after the first call async-signal-safe.
/// Fork:          a child keeps the answer and the registration.
bool rseq_available() noexcept;

/// The CPU that the calling thread runs on; it may be another one when the caller looks at it.
/// Returns: from the registered area where rseq is available, else sched_getcpu(); -1 if unknown.
int rseq_cpu() noexcept;

/// How many counters an array needs that is indexed by CPU number: one more than the highest
/// number of a CPU that is present (not of one that could be plugged in). At least 1.
///
/// Thread safety: any thread; reads a file of sysfs at the first call.
/// Spec:          Linux kernel documentation, "CPU hotplug in the Kernel", /sys/devices/system/cpu.
std::uint32_t present_cpus() noexcept;

/// Adds `delta` to the counter of the CPU that the thread runs on, about 0.6 ns.
///
/// The counters are 2^kLog2Stride bytes apart, and that of CPU 0 is `first`. The sequence starts
/// again when the thread is preempted, migrated or interrupted by a signal in its middle, so each
/// CPU's counter advances as if by an atomic addition, provided that everybody writes it with this
/// function. Others may load it at any time.
///
/// Returns:       false, with nothing done, if the CPU's number is not below `cpus` or the thread
///                is not registered.
/// Thread safety: any thread and any signal handler, if rseq_available().
/// Ordering:      release. Not an acquire: later accesses may be made before it.
/// Unloading:     the thread's area keeps a pointer into this code until it is next preempted, so a
///                shared object that has it must not be unloaded.
template <unsigned kLog2Stride>
[[gnu::always_inline]] inline bool rseq_add(std::atomic<std::uint64_t>* first, std::uint64_t delta,
                                            std::uint32_t cpus) noexcept;

/// Adds to a word that only the calling thread and its signal handlers write, without losing what a
/// handler in the middle adds: one instruction. Thread safety: async-signal-safe.
inline void add_on_this_thread(std::uint32_t& word, std::uint32_t delta) noexcept {
#if defined(__x86_64__)
  asm volatile("addl %[delta], %[word]" : [word] "+m"(word) : [delta] "ir"(delta) : "cc");
#else
  __atomic_fetch_add(&word, delta, __ATOMIC_RELAXED);
#endif
}

#if !defined(TANDEM_HAS_RSEQ)

template <unsigned kLog2Stride>
inline bool rseq_add(std::atomic<std::uint64_t>*, std::uint64_t, std::uint32_t) noexcept {
  return false;
}

#else

static_assert(sizeof(std::atomic<std::uint64_t>) == sizeof(std::uint64_t));
static_assert(offsetof(struct rseq, cpu_id) == 4 && offsetof(struct rseq, rseq_cs) == 8);

// The descriptor (struct rseq_cs) says: from 1, up to 2, on interruption go to 4, which stands
// after the registered signature. The commit is the last instruction before 2. "?" puts both
// sections into the function's group, so that the linker drops them with a duplicate of it.
#define TANDEM_RSEQ_DESCRIPTOR        \
  ".pushsection __rseq_cs, \"aw?\"\n" \
  ".balign 32\n"                      \
  "3: .long 0, 0\n"                   \
  ".quad 1f, 2f - 1f, 4f\n"           \
  ".popsection\n"

#if defined(__x86_64__)

template <unsigned kLog2Stride>
inline bool rseq_add(std::atomic<std::uint64_t>* first, std::uint64_t delta,
                     std::uint32_t cpus) noexcept {
  static_assert(RSEQ_SIG == 0x53053053);
  asm goto(TANDEM_RSEQ_DESCRIPTOR
           "0: leaq 3b(%%rip), %%rax\n"
           "movq %%rax, %%fs:8(%[area])\n"
           "1: movl %%fs:4(%[area]), %%eax\n"
           "cmpl %[cpus], %%eax\n"
           "jae %l[foreign]\n"
           "shlq %[stride], %%rax\n"
           "addq %[delta], (%[first], %%rax)\n"
           "2:\n"
           ".pushsection __rseq_failure, \"ax?\"\n"
           ".byte 0x0f, 0xb9, 0x3d\n"  // ud1, whose operand is the signature
           ".long 0x53053053\n"
           "4: jmp 0b\n"
           ".popsection\n"
           :
           : [area] "r"(__rseq_offset), [cpus] "rm"(cpus), [stride] "i"(kLog2Stride),
             [delta] "er"(delta), [first] "r"(first)
           : "rax", "cc", "memory"
           : foreign);
  return true;
foreign:
  return false;
}

#else

template <unsigned kLog2Stride>
inline bool rseq_add(std::atomic<std::uint64_t>* first, std::uint64_t delta,
                     std::uint32_t cpus) noexcept {
  static_assert(RSEQ_SIG_CODE == 0xd428bc00);
  char* const area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  asm goto(TANDEM_RSEQ_DESCRIPTOR
           "0: adrp x9, 3b\n"
           "add x9, x9, :lo12:3b\n"
           "str x9, [%[area], #8]\n"
           "1: ldr w9, [%[area], #4]\n"
           "cmp w9, %w[cpus]\n"
           "b.hs %l[foreign]\n"
           "add x9, %[first], x9, lsl %[stride]\n"
           "ldr x10, [x9]\n"
           "add x10, x10, %[delta]\n"
           "stlr x10, [x9]\n"
           "2:\n"
           ".pushsection __rseq_failure, \"ax?\"\n"
           ".inst 0xd428bc00\n"
           "4: b 0b\n"
           ".popsection\n"
           :
           : [area] "r"(area), [cpus] "r"(cpus), [stride] "i"(kLog2Stride), [delta] "r"(delta),
             [first] "r"(first)
           : "x9", "x10", "cc", "memory"
           : foreign);
  return true;
foreign:
  return false;
}

#endif
#undef TANDEM_RSEQ_DESCRIPTOR
#endif  // TANDEM_HAS_RSEQ

}  // namespace tandem
