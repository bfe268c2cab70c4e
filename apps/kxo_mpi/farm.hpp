// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mpi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/kxo/training.hpp"

namespace tandem::cli {

/// All ranks of MPI_COMM_WORLD, who play the games of a generation together. Each has the model and
/// learns from all games: what crosses the network are lessons, not models.
///
/// A generation is cut into pieces, large ones first. A rank that has nothing to do takes the next
/// one, by a ticket whose number is counted in the first rank's memory: who is slower, or loses its
/// CPU for a moment, plays fewer games, and nobody waits longer than the last pieces take. Who
/// played which is known afterwards, so that lessons are learned in the order of the games.
///
/// A rank that is lost ends all of them, as MPI does by itself.
/// Thread safety: one thread a rank. Every rank has to make the same calls in the same order.
class Farm {
 public:
  /// MPI has been started.
  Farm();
  ~Farm();
  Farm(const Farm&) = delete;
  Farm& operator=(const Farm&) = delete;

  int rank() const noexcept { return rank_; }
  int ranks() const noexcept { return ranks_; }

  /// kxo::Training::Players: plays its part of the games and learns from all of them.
  bool play(const kxo::ValueModel& model, const kxo::Learning& learning, std::uint64_t seed,
            std::uint64_t first, std::uint64_t count, const kxo::Training::Learn& learn);
  /// What the first rank says.
  int agree(int said);
  std::string share(std::string said);

 private:
  /// All that a table learns by: a third of a lesson's bytes.
  struct Entry {
    std::uint32_t key = 0;
    float target = 0;
  };

  void cut(std::uint64_t games);
  std::uint64_t take_ticket();
  void play_piece(const kxo::ValueModel& model, const kxo::Learning& learning, kxo::GameKey first,
                  std::uint64_t games);
  void pack();
  void tell_who_played();
  template <class T>
  void gather(const std::vector<T>& mine, std::vector<T>& all);
  template <class T, class Make>
  void teach(const std::vector<T>& all, const kxo::Training::Learn& learn, Make make);

  int rank_ = 0, ranks_ = 1;
  bool looks_ = false;               // for tickets that others ask for
  MPI_Win counter_ = MPI_WIN_NULL;   // of tickets that were taken, in the first rank
  std::uint64_t next_ticket_ = 0;    // the first one of this generation
  std::uint64_t games_ = 0;          // that are cut
  std::vector<std::uint64_t> cuts_;  // where pieces begin, and the end
  /// Of each piece: the number of lessons above, its player below.
  std::vector<std::uint64_t> pieces_;
  std::vector<kxo::Lesson> mine_, all_, next_;  // to keep their memory, as the others
  std::vector<Entry> my_entries_, entries_;
  std::vector<int> counts_, places_;  // of ranks, in what is gathered
};

}  // namespace tandem::cli
