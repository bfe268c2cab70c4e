// SPDX-License-Identifier: Apache-2.0
/// The command lines of programs: commands, their options, what those take. CLI11 does the work
/// behind this file, so that only one source pays the ten seconds that its headers cost.
///
/// Commands and options are handles: cheap to copy, valid as long as the Program they came from.
/// What an option writes to has to live until the program has run. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace tandem::cli {

/// Says what is wrong with what an option was given; empty: nothing.
using Check = std::function<std::string(const std::string&)>;

// CLI11 by itself reads -1 as the largest number, 010 as eight, a number that is too large as the
// largest one, and finds nan in every range.

/// A whole number in [least, most], in decimal digits, without zeros in front.
Check whole_number(std::uint64_t least = 0,
                   std::uint64_t most = std::numeric_limits<std::uint64_t>::max());
/// A number in [least, most].
Check number_in(double least, double most);
/// A name of a file: "" would be taken for none, and what should be kept be lost.
Check not_empty();
/// One of these words.
Check one_of(std::vector<std::string> words);

class Option {
 public:
  /// What help shows after the name: "N [6]" for a number that is 6 when it is not given.
  Option text(const std::string& what) const;
  Option check(Check check) const;
  Option required() const;
  /// Help does not tell of it.
  Option hidden() const;

 private:
  friend class Command;
  explicit Option(CLI::Option* option) : option_(option) {}

  CLI::Option* option_;
};

class Command {
 public:
  Command subcommand(const std::string& name, const std::string& summary) const;
  /// What happens when it is chosen; returns the program's exit code.
  void action(std::function<int()> action) const;
  /// Help ends with this: examples.
  void footer(std::string_view text) const;
  /// How many columns help gives to the names of options.
  void help_column(unsigned columns) const;
  /// A subcommand has to be named.
  void require_subcommand() const;
  /// Help does not tell of it.
  void hidden() const;

  /// A switch: "-q,--quiet" sets `value`; "!--no-forks" clears it.
  Option flag(const std::string& names, bool& value, const std::string& help) const;
  /// "-o,--output", or "FILE" for one that is known by its place. `Value` is std::string, int,
  /// unsigned, std::uint64_t, double, one of these in a std::optional, or std::vector<std::string>
  /// for any number of words. A number without a check is read as CLI11 reads numbers.
  template <class Value>
  Option option(const std::string& names, Value& value, const std::string& help) const;
  /// One that `take` reads, which says what is wrong, or nothing.
  Option option_read_by(Check take, const std::string& names, const std::string& help) const;

  /// Whether "--seed" was on the command line.
  bool given(const std::string& name) const;
  /// The options' names without dashes, as help lists them.
  std::vector<std::string> option_names() const;
  /// As if "--NAME VALUE" had been on the command line. Returns: what is wrong, or nothing.
  std::string take(const std::string& name, const std::string& value) const;

 protected:
  using Actions = std::vector<std::pair<const CLI::App*, std::function<int()>>>;
  Command(CLI::App* app, Actions* actions) : app_(app), actions_(actions) {}

  CLI::App* app_;
  Actions* actions_;
};

/// The command that a program is.
class Program : public Command {
 public:
  /// `version` is what --version prints; without it there is no such option.
  Program(const std::string& name, const std::string& what, const std::string& version = {});
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  std::string help() const;

  /// What reading the arguments led to.
  struct Parsed {
    bool done = false;  ///< help or the version was asked for, and printed
    std::string wrong;  ///< else what is wrong, with what to try: "…; try: tandem kxo --help"
    /// Whether there is something to do.
    explicit operator bool() const { return !done && wrong.empty(); }
  };
  Parsed parse(int argc, char** argv);

  /// Does what the command that was chosen does. Returns: its exit code; nothing when none was.
  std::optional<int> run() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::cli
