// SPDX-License-Identifier: Apache-2.0
#include "apps/options/options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

namespace tandem::cli {
namespace {

template <class T>
bool parse_number(const std::string& text, T& number) {
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && after == end;
}

/// Help without "TEXT" after a name such as FILE, which says what it is.
CLI::Option* untyped(CLI::Option* option) {
  return option->get_positional() ? option->type_name("") : option;
}

/// Help with no more than one empty line, and none at the end: CLI11 puts some of its own around
/// footers and hidden options.
class Formatter : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    const std::string text = CLI::Formatter::make_help(app, std::move(name), mode);
    std::string result;
    for (const char c : text) {
      if (c != '\n' || !result.ends_with("\n\n")) result += c;
    }
    while (result.ends_with("\n\n")) result.pop_back();
    return result;
  }
};

/// What CLI11 found wrong with the words of `command`, which `name` calls; where a subcommand is
/// missing or is none, with those that there are.
std::string explain(const CLI::Error& error, const CLI::App& command, const std::string& name) {
  std::vector<std::string> known;
  for (const CLI::App* one : command.get_subcommands([](const CLI::App* app) {
         return !app->get_group().empty();  // else it is hidden
       })) {
    known.push_back(one->get_name());
  }
  if (known.empty()) return error.what();
  if (const auto left = command.remaining(); !left.empty()) {
    return fmt::format("there is no '{} {}'; there are: {}", name, left.front(),
                       fmt::join(known, ", "));
  }
  if (error.get_name() != "RequiredError") return error.what();
  return fmt::format("'{}' needs one of: {}", name, fmt::join(known, ", "));
}

}  // namespace

Check whole_number(std::uint64_t least, std::uint64_t most) {
  return [least, most](const std::string& text) {
    std::uint64_t number = 0;
    // CLI11 would take digits after a zero for octal ones.
    const bool decimal = parse_number(text, number) && text == std::to_string(number);
    if (decimal && number >= least && number <= most) return std::string();
    return fmt::format("'{}' is not a whole number in [{}, {}]", text, least, most);
  };
}

Check number_in(double least, double most) {
  return [least, most](const std::string& text) {
    double number = 0;
    if (parse_number(text, number) && number >= least && number <= most) return std::string();
    return fmt::format("'{}' is not a number in [{}, {}]", text, least, most);
  };
}

Check not_empty() {
  return [](const std::string& text) {
    return text.empty() ? std::string("is an empty name") : std::string();
  };
}

Check one_of(std::vector<std::string> words) {
  return [words = std::move(words)](const std::string& text) {
    if (std::find(words.begin(), words.end(), text) != words.end()) return std::string();
    return fmt::format("'{}' is none of {}", text, fmt::join(words, ", "));
  };
}

Option Option::text(const std::string& what) const {
  option_->option_text(what);
  return *this;
}

Option Option::check(Check check) const {
  const auto ask = [check = std::move(check)](std::string& text) { return check(text); };
  option_->check(CLI::Validator(ask, ""));
  return *this;
}

Option Option::required() const {
  option_->required();
  return *this;
}

Option Option::hidden() const {
  option_->group("");
  return *this;
}

Command Command::subcommand(const std::string& name, const std::string& summary) const {
  return {app_->add_subcommand(name, summary), actions_};
}

void Command::action(std::function<int()> action) const {
  actions_->emplace_back(app_, std::move(action));
}

void Command::footer(std::string_view text) const { app_->footer(std::string(text)); }

void Command::help_column(unsigned columns) const { app_->get_formatter()->column_width(columns); }

void Command::require_subcommand() const { app_->require_subcommand(1); }

void Command::hidden() const { app_->group(""); }

Option Command::flag(const std::string& names, bool& value, const std::string& help) const {
  if (!names.starts_with('!')) return Option(app_->add_flag(names, value, help));
  // CLI11 has such switches, too, but its help says "--no-forks{false}".
  return Option(app_->add_flag_callback(
      names.substr(1), [&value] { value = false; }, help));
}

template <class Value>
Option Command::option(const std::string& names, Value& value, const std::string& help) const {
  return Option(untyped(app_->add_option(names, value, help)));
}
template Option Command::option(const std::string&, std::string&, const std::string&) const;
template Option Command::option(const std::string&, int&, const std::string&) const;
template Option Command::option(const std::string&, unsigned&, const std::string&) const;
template Option Command::option(const std::string&, std::uint64_t&, const std::string&) const;
template Option Command::option(const std::string&, double&, const std::string&) const;
template Option Command::option(const std::string&, std::optional<std::string>&,
                                const std::string&) const;
template Option Command::option(const std::string&, std::optional<int>&, const std::string&) const;
template Option Command::option(const std::string&, std::optional<unsigned>&,
                                const std::string&) const;
template Option Command::option(const std::string&, std::optional<std::uint64_t>&,
                                const std::string&) const;
template Option Command::option(const std::string&, std::optional<double>&,
                                const std::string&) const;
template Option Command::option(const std::string&, std::vector<std::string>&,
                                const std::string&) const;

Option Command::option_read_by(Check take, const std::string& names,
                               const std::string& help) const {
  const auto read = [names, take = std::move(take)](const std::string& text) {
    if (const std::string wrong = take(text); !wrong.empty()) {
      throw CLI::ValidationError(names, wrong);
    }
  };
  return Option(app_->add_option_function<std::string>(names, read, help));
}

bool Command::given(const std::string& name) const { return app_->count(name) > 0; }

std::vector<std::string> Command::option_names() const {
  std::vector<std::string> names;
  for (const CLI::Option* option : std::as_const(*app_).get_options()) {
    names.push_back(option->get_single_name());
  }
  return names;
}

std::string Command::take(const std::string& name, const std::string& value) const {
  CLI::Option* const option = app_->get_option("--" + name);
  try {
    option->add_result(value);
    option->run_callback();
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  return {};
}

struct Program::State {
  CLI::App app;
  Actions actions;
};

Program::Program(const std::string& name, const std::string& what, const std::string& version)
    : Command(nullptr, nullptr), state_(new State{CLI::App(what, name), {}}) {
  app_ = &state_->app;
  actions_ = &state_->actions;
  app_->formatter(std::make_shared<Formatter>());  // subcommands inherit it
  if (!version.empty()) app_->set_version_flag("--version", version);
}

Program::~Program() = default;

std::string Program::help() const { return app_->help(); }

Program::Parsed Program::parse(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      app_->exit(error);
      return {.done = true, .wrong = {}};
    }
    const CLI::App* chosen = app_;
    std::string name = app_->get_name();
    while (!chosen->get_subcommands().empty()) {
      chosen = chosen->get_subcommands().front();
      name += " " + chosen->get_name();
    }
    return {.done = false,
            .wrong = fmt::format("{}; try: {} --help", explain(error, *chosen, name), name)};
  }
  return {};
}

std::optional<int> Program::run() const {
  for (const auto& [command, action] : *actions_) {
    if (command->parsed()) return action();
  }
  return std::nullopt;
}

}  // namespace tandem::cli
