// SPDX-License-Identifier: Apache-2.0
#include "apps/kxo_mpi/farm.hpp"

#include <mpi.h>

#include <algorithm>
#include <type_traits>

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

}  // namespace

Farm::Farm() {
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks_);
  counts_.resize(static_cast<std::size_t>(ranks_));
  places_.resize(counts_.size());
}

bool Farm::play(const kxo::ValueModel& model, const kxo::Learning& learning, std::uint64_t seed,
                std::uint64_t first, std::uint64_t count, std::vector<kxo::Lesson>& lessons) {
  const auto begin_of = [&](int rank) {
    return first + count * static_cast<std::uint64_t>(rank) / static_cast<std::uint64_t>(ranks_);
  };
  mine_.clear();
  for (std::uint64_t game = begin_of(rank_); game < begin_of(rank_ + 1); ++game) {
    play_game(model, learning, {seed, game}, mine_);
  }
  const auto size = static_cast<int>(mine_.size());
  MPI_Allgather(&size, 1, MPI_INT, counts_.data(), 1, MPI_INT, MPI_COMM_WORLD);
  int all = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    places_[i] = all;
    all += counts_[i];
  }
  lessons.resize(static_cast<std::size_t>(all));
  if (model.kind() != kxo::ValueModel::Kind::kTable) {
    gather(mine_, lessons);
    return true;
  }
  my_entries_.clear();
  for (const kxo::Lesson& lesson : mine_) my_entries_.push_back({lesson.key, lesson.target});
  entries_.resize(lessons.size());
  gather(my_entries_, entries_);
  for (std::size_t i = 0; i < lessons.size(); ++i) {
    lessons[i] = {{}, entries_[i].target, entries_[i].key};
  }
  return true;
}

/// All ranks' things, in the order of the ranks.
template <class T>
void Farm::gather(const std::vector<T>& mine, std::vector<T>& all) const {
  MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), type_of<T>(), all.data(),
                 counts_.data(), places_.data(), type_of<T>(), MPI_COMM_WORLD);
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
