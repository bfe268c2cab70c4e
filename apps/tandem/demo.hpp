// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "apps/tandem/cli.hpp"

namespace tandem::cli {

struct ShareSettings {
  std::vector<std::string> files;
  bool embedded = false;
  double seconds = 6;
};

/// Each returns an exit code: kOk only when everything that the demo claims has been checked.
int demo_share(const ShareSettings& settings);
int demo_fork();
int demo_pasid();
int demo_rcu();
int demo_kxo();

/// `tandem internal-exec-probe`: what the fork demo's second child becomes by exec.
int run_exec_probe(int ready_fd, int go_fd);

}  // namespace tandem::cli
