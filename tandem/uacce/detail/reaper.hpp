// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <thread>
#include <vector>

#include "tandem/base/mutex.hpp"

namespace tandem::uacce::detail {

/// Ends later what could not be ended at once, because an operation still used it: tries again
/// until it works. Its thread starts with the first attempt and sleeps while there are none.
///
/// Thread safety: any thread. Attempts run on the reaper's thread, one after the other, with no
/// lock held.
class Reaper {
 public:
  /// Returns: whether it is done and need not be tried again.
  using Attempt = std::function<bool()>;

  Reaper() = default;
  ~Reaper() { stop(); }
  Reaper(const Reaper&) = delete;
  Reaper& operator=(const Reaper&) = delete;

  void add(Attempt attempt) TANDEM_EXCLUDES(mutex_);
  /// Forgets what is left; attempts added later are forgotten at once. Not from an attempt.
  void stop() TANDEM_EXCLUDES(mutex_);

 private:
  void run() TANDEM_EXCLUDES(mutex_);

  Mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<Attempt> attempts_ TANDEM_GUARDED_BY(mutex_);
  bool stopped_ TANDEM_GUARDED_BY(mutex_) = false;
  std::thread thread_ TANDEM_GUARDED_BY(mutex_);
};

}  // namespace tandem::uacce::detail
