// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::broker {

/// Tells when an address space ends: a client maps its token, not inherited by fork, so that exit,
/// exec and crash close the token's last writable file, whoever else holds the client's socket.
///
/// A close may also mean less (the client let go of the descriptor it was sent): confirm.
/// Thread safety: one thread.
class TokenWatch {
 public:
  /// Works without a watch when the kernel gives none (descriptors are then negative); the broker's
  /// sweep finds the dead.
  TokenWatch();

  struct Token {
    UniqueFd fd;     ///< send it
    int watch = -1;  ///< names it in take_closed()
  };
  /// Errors: the errno of memfd_create().
  Result<Token> make();
  void forget(int watch) noexcept;

  int fd() const { return inotify_.get(); }
  struct Closed {
    std::vector<int> watches;
    bool overflow = false;  ///< some were lost: look at everybody
  };
  Closed take_closed();

 private:
  UniqueFd inotify_;
};

}  // namespace tandem::broker
