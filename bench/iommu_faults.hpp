// SPDX-License-Identifier: Apache-2.0
/// Page faults, and what a PASID takes, in the framework of devices.
#pragma once

#include <cstdint>

namespace tandem::bench {

/// How a process's memory is reached.
enum class Reach : std::uint8_t {
  kEmbedded,  ///< ordinary memory, from inside the process
  kBroker,    ///< ordinary memory, through descriptors of its /proc/self/mem and maps
  kReserved,  ///< memory that both sides map
};

/// Nanoseconds of a device's read of 64 bytes.
struct ReadTimes {
  double faulting = 0;  ///< translation missing: page request, service, response, retry
  double warm = 0;      ///< the same read right after it
};
/// `elsewhere`: each fault is in another mapping than the last ones, so that the service of the
/// page request has to ask the kernel what is mapped there. Not of reserved memory.
ReadTimes read_times(Reach reach, int rounds, bool elsewhere = false);

/// How many bytes the process grows for each of `count` address spaces that are bound and used
/// once, page tables not counted. As many were bound before: what is there for all is there then.
double bytes_per_pasid(int count);

}  // namespace tandem::bench
