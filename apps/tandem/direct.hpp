// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "apps/tandem/corpus.hpp"

namespace tandem::cli {

/// The same corpus through the device and by a direct call of the codec, in bytes per second.
struct DirectComparison {
  double direct = 0, device = 0;
  std::uint64_t bytes = 0;
};

/// Measures both, in turns, the best of several each; about a second. Level 1, 64 KiB blocks, one
/// gzip member each; the device works on reserved and on heap blocks in turn.
Result<DirectComparison, Failure> compare_with_direct(Corpus& corpus);

}  // namespace tandem::cli
