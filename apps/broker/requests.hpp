// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "apps/broker/message.hpp"
#include "tandem/uacce/framework.hpp"

namespace tandem::broker {

/// The body size of requests of `type`; nothing for a type that is none.
std::optional<std::size_t> request_body_size(std::uint32_t type);

/// Whether requests of `type` wait for a device: serve them on the lane.
bool may_wait(std::uint32_t type);

/// What is wrong with the form of a message, as a negative errno; 0: nothing.
///
/// -EPROTO   unknown type, or descriptors where none are due
/// -EBADMSG  shorter or longer than its type, or than its own header says
int check_form(const Incoming& incoming);

/// Serves one well-formed request of a client that has said HELLO.
Outgoing serve(uacce::Framework& framework, uacce::Client& client, std::uint32_t type,
               std::span<const std::byte> body);

/// What HELLO says before anybody trusts it: the version to speak, or a negative errno.
/// -EPROTONOSUPPORT no common version; -EINVAL unknown flags; -EPROTO too few or many descriptors.
int check_hello(const tandem_hello& hello, std::size_t descriptor_count);

/// Binds the address space that `hello` and its descriptors name. May wait for the client's memory.
/// Errors: EACCES the descriptors are not of the memory that holds the nonce, and connect()'s.
Result<std::unique_ptr<uacce::Client>> bind_client(uacce::Framework& framework,
                                                   std::uint32_t tenant, std::uint32_t user,
                                                   const tandem_hello& hello, UniqueFd mem,
                                                   UniqueFd maps);

}  // namespace tandem::broker
