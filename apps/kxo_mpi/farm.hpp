// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/kxo/training.hpp"

namespace tandem::cli {

/// All ranks of MPI_COMM_WORLD, who play the games of a generation together. Each has the model and
/// learns from all games: what crosses the network are lessons, not models.
///
/// A rank that is lost ends all of them, as MPI does by itself.
/// Thread safety: one thread a rank. Every rank has to make the same calls in the same order.
class Farm {
 public:
  /// MPI has been started.
  Farm();

  int rank() const noexcept { return rank_; }
  int ranks() const noexcept { return ranks_; }

  /// kxo::Training::Players: plays this rank's games, in one piece, and gets those of the others,
  /// in the order of the ranks and so of the games.
  bool play(const kxo::ValueModel& model, const kxo::Learning& learning, std::uint64_t seed,
            std::uint64_t first, std::uint64_t count, std::vector<kxo::Lesson>& lessons);
  /// What the first rank says.
  int agree(int said);
  std::string share(std::string said);

 private:
  /// All that a table learns by: a third of a lesson's bytes.
  struct Entry {
    std::uint32_t key = 0;
    float target = 0;
  };

  template <class T>
  void gather(const std::vector<T>& mine, std::vector<T>& all) const;

  int rank_ = 0, ranks_ = 1;
  std::vector<kxo::Lesson> mine_;  // to keep their memory, as the others
  std::vector<Entry> my_entries_, entries_;
  std::vector<int> counts_, places_;
};

}  // namespace tandem::cli
