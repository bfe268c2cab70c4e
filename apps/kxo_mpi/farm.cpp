// SPDX-License-Identifier: Apache-2.0
#include "apps/kxo_mpi/farm.hpp"

#include <mpi.h>

#include <algorithm>
#include <exception>
#include <numeric>
#include <span>
#include <type_traits>

#include "tandem/base/field.hpp"

namespace tandem::cli {
namespace {

constexpr std::uint64_t kPiece = 1 << 30;  // MPI counts in int

/// Things as they are in memory: the ranks are of one kind.
template <class T>
MPI_Datatype type_of() {
  static_assert(std::is_trivially_copyable_v<T>);
  static const MPI_Datatype type = [] {
    MPI_Datatype made = MPI_DATATYPE_NULL;
    MPI_Type_contiguous(static_cast<int>(sizeof(T)), MPI_BYTE, &made);
    MPI_Type_commit(&made);
    return made;
  }();
  return type;
}

/// What is known of a piece of games once it is played.
using Player = Field<31, 0>;
using Lessons = Field<63, 32>;

/// A piece is this part of a rank's share of what is left, so that the last ones are small, but not
/// smaller than so many games.
constexpr std::uint64_t kPartOfShare = 4;
constexpr std::uint64_t kFewestGames = 2;
/// Where there is no shared memory between ranks, the first one looks as often for tickets that
/// others ask for, which are given only then. A look takes some microseconds.
constexpr std::uint64_t kGamesPerLook = 16;
/// So many lessons are made at a time of what was gathered: they stay in the nearest cache, and
/// leave the others to the table.
constexpr std::size_t kLessonsAtATime = 512;

}  // namespace

Farm::Farm() {
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks_);
  counts_.resize(static_cast<std::size_t>(ranks_));
  places_.resize(counts_.size());
  std::uint64_t* taken = nullptr;
  MPI_Win_allocate(rank_ == 0 ? sizeof *taken : 0, sizeof *taken, MPI_INFO_NULL, MPI_COMM_WORLD,
                   &taken, &counter_);
  if (rank_ == 0) {
    MPI_Win_lock(MPI_LOCK_EXCLUSIVE, 0, 0, counter_);
    *taken = 0;
    MPI_Win_unlock(0, counter_);
  }
  MPI_Comm here = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &here);
  int ranks_here = 0;
  MPI_Comm_size(here, &ranks_here);
  MPI_Comm_free(&here);
  looks_ = rank_ == 0 && ranks_here != ranks_;
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Win_lock_all(0, counter_);
}

Farm::~Farm() {
  if (std::uncaught_exceptions() != 0) return;  // the others do not know, and are ended
  MPI_Win_unlock_all(counter_);
  MPI_Win_free(&counter_);
}

void Farm::cut(std::uint64_t games) {
  if (games == games_) return;
  games_ = games;
  cuts_.assign(1, 0);
  const std::uint64_t parts = kPartOfShare * static_cast<std::uint64_t>(ranks_);
  while (cuts_.back() != games) {
    const std::uint64_t left = games - cuts_.back();
    const std::uint64_t piece = ranks_ == 1 ? left : std::max(left / parts, kFewestGames);
    cuts_.push_back(cuts_.back() + std::min(piece, left));
  }
}

std::uint64_t Farm::take_ticket() {
  const std::uint64_t one = 1;
  std::uint64_t number = 0;
  MPI_Fetch_and_op(&one, &number, MPI_UINT64_T, 0, 0, MPI_SUM, counter_);
  MPI_Win_flush(0, counter_);
  return number;
}

void Farm::play_piece(const kxo::ValueModel& model, const kxo::Learning& learning,
                      kxo::GameKey first, std::uint64_t games) {
  for (std::uint64_t i = 0; i < games; ++i) {
    play_game(model, learning, {first.seed, first.game + i}, mine_);
    if (looks_ && i % kGamesPerLook == 0) {
      int any = 0;
      MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &any, MPI_STATUS_IGNORE);
    }
  }
}

/// All ranks learn who played which piece, and how many lessons that gave.
void Farm::tell_who_played() {
  // Others have nothing to add to the pieces of this one.
  MPI_Allreduce(MPI_IN_PLACE, pieces_.data(), static_cast<int>(pieces_.size()), MPI_UINT64_T,
                MPI_SUM, MPI_COMM_WORLD);
  std::fill(counts_.begin(), counts_.end(), 0);
  for (const std::uint64_t piece : pieces_) {
    counts_[Player::get(piece)] += static_cast<int>(Lessons::get(piece));
  }
  std::exclusive_scan(counts_.begin(), counts_.end(), places_.begin(), 0);
}

/// What was played becomes what a table learns by, while it is in the nearest cache.
void Farm::pack() {
  const std::size_t before = my_entries_.size();
  my_entries_.resize(before + mine_.size());
  std::transform(mine_.begin(), mine_.end(), my_entries_.data() + before,
                 [](const kxo::Lesson& lesson) {
                   return Entry{lesson.key, lesson.target};
                 });
  mine_.clear();
}

bool Farm::play(const kxo::ValueModel& model, const kxo::Learning& learning, std::uint64_t seed,
                std::uint64_t first, std::uint64_t count, const kxo::Training::Learn& learn) {
  cut(count);
  pieces_.assign(cuts_.size() - 1, 0);
  mine_.clear();
  my_entries_.clear();
  const bool is_table = model.kind() == kxo::ValueModel::Kind::kTable;
  for (;;) {
    const std::uint64_t piece = take_ticket() - next_ticket_;
    if (piece >= pieces_.size()) break;
    const std::size_t before = mine_.size();
    play_piece(model, learning, {seed, first + cuts_[piece]}, cuts_[piece + 1] - cuts_[piece]);
    pieces_[piece] =
        Player::make(static_cast<std::uint64_t>(rank_)) | Lessons::make(mine_.size() - before);
    if (is_table) pack();
  }
  next_ticket_ += pieces_.size() + static_cast<std::uint64_t>(ranks_);  // each took one in vain
  tell_who_played();
  if (is_table) {
    gather(my_entries_, entries_);
    teach(entries_, learn, [](const Entry& entry) {
      return kxo::Lesson{{}, entry.target, entry.key};
    });
  } else {
    gather(mine_, all_);
    teach(all_, learn, [](const kxo::Lesson& lesson) { return lesson; });
  }
  return true;
}

/// All ranks' things, in the order of the ranks.
template <class T>
void Farm::gather(const std::vector<T>& mine, std::vector<T>& all) {
  all.resize(static_cast<std::size_t>(places_.back()) + static_cast<std::size_t>(counts_.back()));
  MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), type_of<T>(), all.data(),
                 counts_.data(), places_.data(), type_of<T>(), MPI_COMM_WORLD);
}

/// What was gathered, in the order of the games: each rank's pieces are in it one after the other.
template <class T, class Make>
void Farm::teach(const std::vector<T>& all, const kxo::Training::Learn& learn, Make make) {
  next_.resize(kLessonsAtATime);
  for (const std::uint64_t piece : pieces_) {
    int& place = places_[Player::get(piece)];
    std::span<const T> rest(all.data() + place, Lessons::get(piece));
    place += static_cast<int>(rest.size());
    while (!rest.empty()) {
      const std::span<const T> some = rest.first(std::min(rest.size(), kLessonsAtATime));
      std::transform(some.begin(), some.end(), next_.begin(), make);
      learn(std::span(next_).first(some.size()));
      rest = rest.subspan(some.size());
    }
  }
}

int Farm::agree(int said) {
  MPI_Bcast(&said, 1, MPI_INT, 0, MPI_COMM_WORLD);
  return said;
}

std::string Farm::share(std::string said) {
  std::uint64_t size = said.size();
  MPI_Bcast(&size, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  said.resize(size);
  for (std::uint64_t done = 0; done < size; done += kPiece) {
    const auto piece = static_cast<int>(std::min(kPiece, size - done));
    MPI_Bcast(said.data() + done, piece, MPI_BYTE, 0, MPI_COMM_WORLD);
  }
  return said;
}

}  // namespace tandem::cli
