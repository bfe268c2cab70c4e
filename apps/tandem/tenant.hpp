// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "apps/tandem/corpus.hpp"
#include "apps/tandem/share_board.hpp"

namespace tandem::cli {

/// Level and block that `demo share` compresses with.
inline constexpr unsigned kShareLevel = 1;

/// Why a gzip member does not inflate, by zlib, to exactly `original`; empty when it does.
std::string verify_with_zlib(std::span<const std::byte> member,
                             std::span<const std::byte> original);

/// Where tenants of `demo share` run.
enum class TenantKind { kProcess, kThread };

/// Works as tenant `number` until the board says stop: takes blocks of the corpus, has the device
/// compress them from half heap, half reserved memory, verifies each. Forks, or submits bad
/// pointers, when the board says so and it is this tenant's part. Failures go to its seat.
void run_tenant(Board& board, unsigned number, Corpus& corpus, TenantKind kind);

/// Starts a process that is tenant `number`, on the board behind `board_fd`; it does not outlive
/// the calling thread. `corpus_list` is what Corpus::save() wrote.
Result<pid_t, Failure> start_tenant_process(int board_fd, unsigned number,
                                            const std::string& corpus_list);
/// `tandem internal-tenant`, which that process is.
int run_tenant_process(int board_fd, unsigned number, const std::string& corpus_list);

}  // namespace tandem::cli
