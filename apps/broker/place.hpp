// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>

#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::broker {

/// Where a broker of this user listens unless told: /run/tandem/broker.sock for root, else
/// $XDG_RUNTIME_DIR/tandem/broker.sock; empty without XDG_RUNTIME_DIR.
std::string default_socket_path();

/// A listening socket that removes its name when it goes.
class Place {
 public:
  /// Listens at `path` with permissions `mode`; makes the directory if only that is missing: 0755
  /// for root and where `mode` lets others in, else 0700. One that others can write is refused, as
  /// clients do. A name that a dead broker left is replaced; a living one is respected.
  /// Errors: text "why; try: …" for people.
  static Result<Place, std::string> listen(const std::string& path, mode_t mode);
  Place() = default;
  Place(Place&& other) noexcept;
  Place& operator=(Place&& other) noexcept;
  ~Place();

  int fd() const { return listener_.get(); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  UniqueFd listener_, lock_;
};

}  // namespace tandem::broker
