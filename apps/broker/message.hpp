// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tandem/abi/control.h"
#include "tandem/base/unique_fd.hpp"

namespace tandem::broker {

/// One message as it came off a socket. Nothing in it has been checked but what the kernel says.
struct Incoming {
  enum class Outcome : std::uint8_t { kMessage, kNothing, kHangUp };
  static constexpr std::size_t kMaxDescriptors = 4;  ///< more than any message has

  Outcome outcome = Outcome::kNothing;
  alignas(8) std::array<std::byte, 256> bytes{};
  std::size_t size_bytes = 0;  ///< as sent; above bytes.size() when it was cut
  std::optional<ucred> sender;
  std::array<UniqueFd, kMaxDescriptors> descriptors;
  std::size_t descriptor_count = 0;
  bool descriptors_cut = false;  ///< there were more; the kernel closed those

  /// The header; zeros for what a short message lacks.
  tandem_message_header header() const;
  std::span<const std::byte> body() const;
};

/// What goes back for one message.
struct Outgoing {
  int status = 0;  ///< 0 or a negative errno; the body is sent only with 0
  alignas(8) std::array<std::byte, 1024> body{};
  std::size_t body_size = 0;
  std::vector<UniqueFd> descriptors;

  Outgoing() = default;
  explicit Outgoing(int negative_errno) : status(negative_errno) {}
  template <class T>
  void set_body(const T& value);
};

/// Takes the next message from `socket` without waiting.
Incoming receive(int socket) noexcept;

/// Sends the reply to `request` without waiting.
/// Returns: false when the peer does not take it (full, gone): drop the connection.
bool send_reply(int socket, const tandem_message_header& request, const Outgoing& reply) noexcept;

template <class T>
void Outgoing::set_body(const T& value) {
  static_assert(sizeof(T) <= sizeof(body));
  __builtin_memcpy(body.data(), &value, sizeof(T));
  body_size = sizeof(T);
}

}  // namespace tandem::broker
