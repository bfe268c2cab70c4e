// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace tandem {

/// Kernel features that have a fallback. TANDEM_DISABLE names those to do without.
enum class Feature {
  kProcmapQuery,  ///< "procmap_query": ioctl on /proc/PID/maps, Linux 6.11
  kMembarrier,    ///< "membarrier": expedited commands, Linux 4.16
  kPeerPidfd,     ///< "peerpidfd": SO_PEERPIDFD, Linux 6.5
  kProcMem,       ///< "procmem": handing out /proc/self/mem
  kRseq,          ///< "rseq": restartable sequences, Linux 4.18 and glibc 2.35
};

/// Whether TANDEM_DISABLE (a comma-separated list) lets us try `feature`.
///
/// Words that name no feature have no effect, so that one list serves several versions.
/// Read once, at the first call. Says nothing about whether the kernel has the feature.
/// Thread safety: any thread; allocates nothing.
bool feature_allowed(Feature feature) noexcept;

/// The name by which TANDEM_DISABLE knows `feature`.
std::string_view feature_name(Feature feature) noexcept;

}  // namespace tandem
