// SPDX-License-Identifier: Apache-2.0
/// For commands that have something to save, or to give back, before they end.
#pragma once

#include <initializer_list>

namespace tandem::cli {

/// From now on the first SIGINT, SIGTERM or SIGHUP, and the first one of `more`, is only noted. The
/// same signal a second time ends the process as ever. Those that are ignored (nohup) stay so.
/// System calls that wait are interrupted.
void note_stop_signals(std::initializer_list<int> more = {});
/// The last one that was noted, or 0. Thread safety: any thread.
int stop_signal() noexcept;

/// Ends this process by `signal`, as if nobody had handled it.
[[noreturn]] void end_by(int signal);

}  // namespace tandem::cli
