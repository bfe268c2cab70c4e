// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "tandem/base/cpu.hpp"

namespace tandem::rcutorture {

/// What to torture, and how.
struct Options {
  double seconds = 5;
  std::uint64_t seed = 1;
  unsigned readers = 2 * static_cast<unsigned>(usable_cpus());
  std::string domain = "all";
  bool barriers = true;
  bool churn = true;
  bool domains = true;
  bool floods = true;
  bool forks = true;
  bool offload = true;
  bool signals = true;
  bool stalls = true;
};

}  // namespace tandem::rcutorture
