// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tandem/base/result.hpp"
#include "tandem/base/unique_fd.hpp"

namespace tandem::wd::detail {

/// Connects to the broker's socket at `path`, if both place and peer are to be trusted.
///
/// A broker that we send our mem descriptor can read and write all of this process. So: the socket
/// stands in a directory that belongs to root, to us or to the uid in TANDEM_TRUST_UID and that
/// nobody else can write; whoever listens runs as one of these; and a set-id program (AT_SECURE)
/// trusts nobody. The directory is opened once and the socket reached through it, so that it cannot
/// be exchanged between check and connect.
///
/// Errors: EACCES not to be trusted, or not for this user; else the errno of open() or connect().
Result<UniqueFd> connect_to_trusted(const std::string& path);

/// Whether the program runs with more rights than its caller: then neither environment nor brokers
/// are believed.
bool runs_secure() noexcept;

/// Whether TANDEM_TRUST and TANDEM_TRUST_UID say something that has a meaning, or nothing. Who
/// meant to give a broker less than usual, and misspelt it, must not give it everything.
bool trust_is_understood() noexcept;

/// Whether to hand the broker this process's memory: not with TANDEM_TRUST=reserved-only, nor with
/// procmem in TANDEM_DISABLE.
bool memory_may_be_sent() noexcept;

}  // namespace tandem::wd::detail
