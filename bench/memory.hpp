// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string_view>

namespace tandem::bench {

/// What this process holds of memory, as /proc/self/smaps_rollup counts it under `what`:
/// "Anonymous"; "Pss", where a page that is mapped twice is one. What was freed is given back
/// first, so that it does not serve unseen what comes next.
double held_bytes(std::string_view what);

/// Bytes by which `work` made a process grow, at its height: a child forked for it.
double peak_bytes(const std::function<void()>& work);

}  // namespace tandem::bench
