// SPDX-License-Identifier: Apache-2.0
/// What people would use instead of a Tandem ring. Each call starts its other thread, measures, and
/// joins it, so that no peer takes CPU time from the next sample.
#pragma once

#include <cstddef>

namespace tandem::bench {

/// Nanoseconds to pass the cache lines of one nop back and forth between two threads: descriptor
/// and tail one way, a completion the other. slots: how many descriptors and completions take
/// turns, a power of two; with 1 the same lines go back and forth.
double line_ping_pong(int rounds, std::size_t slots);

/// 64-byte items a second through a boost::lockfree::spsc_queue, pushed and popped 32 at a time.
double spsc_stream(int items);

/// Nops a second, 32 to a tail, through rings laid out as a queue's are, with nothing else around
/// them: what the layout allows.
double bare_ring_stream(int items);

/// Nanoseconds for 64 bytes one way and 32 back over a unix socket pair.
double socket_echo(int rounds, bool spinning);

/// Nanoseconds for a copy posted to a one-thread pool and awaited, spinning.
enum class Pool { kTbb, kAsio };
double pool_copy(Pool pool, int rounds, std::byte* to, const std::byte* from,
                 std::size_t size_bytes);

/// Nanoseconds from before waking a thread that sleeps on a futex until its answer is seen; one
/// wake after every `idle_us` microseconds.
double futex_wake_up(int rounds, int idle_us);

}  // namespace tandem::bench
