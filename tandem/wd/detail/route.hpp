// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/wd/wd.h"

namespace tandem::wd::detail {

/// One way to reach devices: a broker's socket, or this process.
struct Route {
  wd_path path = WD_PATH_EMBEDDED;  // never WD_PATH_AUTO
  std::string socket;               // of WD_PATH_BROKER

  bool operator==(const Route&) const = default;
};

struct Routes {
  std::vector<Route> candidates;  // in the order to try
  bool explicit_choice = false;   // one was asked for: its error is the answer
};

/// What TANDEM=auto|embedded|inline|unix:PATH and a queue's `path` ask for. A queue's own wish goes
/// first; WD_PATH_BROKER without a unix:PATH means the usual places.
///
/// auto: $XDG_RUNTIME_DIR/tandem/broker.sock, /run/tandem/broker.sock, embedded; with one usable
/// CPU inline stands for embedded. A set-id program has no brokers and no environment. Errors:
/// EINVAL for a value that means nothing, where a broker may be met also of TANDEM_TRUST and
/// TANDEM_TRUST_UID.
Result<Routes> choose_routes(std::uint32_t path);

}  // namespace tandem::wd::detail
