// SPDX-License-Identifier: Apache-2.0
/// tandem-kxo-mpi: what `tandem kxo train` does, by the processes that mpirun starts.
#include <mpi.h>

#include <csignal>
#include <exception>

#include "apps/kxo_mpi/farm.hpp"
#include "apps/options/options.hpp"
#include "apps/standard_descriptors.hpp"
#include "apps/tandem/kxo_train.hpp"

namespace tandem::cli {
namespace {

constexpr std::string_view kExamples = R"(
Examples:
  mpirun -n 4 tandem-kxo-mpi train --game 4x4-4 --seconds 60
  mpirun -n 8 tandem-kxo-mpi train --resume --out run-7 --games 50000000

Options, files and result are those of `tandem kxo train`, bit by bit, whatever
the number of processes: either goes on with the other's checkpoint. When a
process is lost all of them end; --resume goes on. docs/kxo-training.md
)";

Crew crew_of(Farm& farm) {
  Crew crew;
  crew.leads = farm.rank() == 0;
  crew.players = [&farm](const kxo::ValueModel& model, const kxo::Learning& learning,
                         std::uint64_t seed, std::uint64_t first, std::uint64_t count,
                         const kxo::Training::Learn& learn) {
    return farm.play(model, learning, seed, first, count, learn);
  };
  crew.agree = [&farm](bool said) { return farm.agree(said ? 1 : 0) != 0; };
  crew.share = [&farm](std::string said) { return farm.share(std::move(said)); };
  return crew;
}

/// The first rank, which alone reads options and files. Where it fails, the others are told by
/// nothing to train.
int lead(const Crew& crew, int argc, char** argv) {
  Program app("tandem-kxo-mpi", "Train models of games of rows with many processes.");
  app.footer(kExamples);
  app.require_subcommand();
  TrainSettings settings;
  const Command train = app.subcommand("train", "Let a model learn from games against itself");
  train.footer(kExamples);
  add_train_options(train, settings);
  const auto parsed = app.parse(argc, argv);
  if (!parsed) {
    crew.share({});
    return parsed.done ? kOk : report({kUsage, parsed.wrong});
  }
  if (const auto failure = read_train_config(train, settings)) {
    crew.share({});
    return report(*failure);
  }
  return run_train(settings, crew);
}

/// Returns: the exit code, the first rank's in all of them.
int run(int argc, char** argv) {
  Farm farm;
  const Crew crew = crew_of(farm);
  return farm.agree(crew.leads ? lead(crew, argc, argv) : run_train({}, crew));
}

}  // namespace
}  // namespace tandem::cli

int main(int argc, char** argv) {
  if (!tandem::reserve_standard_descriptors()) return tandem::cli::kFailure;
  std::signal(SIGXFSZ, SIG_IGN);  // the write fails, and is told
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return tandem::cli::kFailure;
  int code = tandem::cli::kFailure;
  try {
    code = tandem::cli::run(argc, argv);
  } catch (const std::exception& error) {
    // The others wait for this one.
    tandem::cli::report({tandem::cli::kFailure, error.what()});
    MPI_Abort(MPI_COMM_WORLD, tandem::cli::kFailure);
  }
  MPI_Finalize();
  return code;
}
