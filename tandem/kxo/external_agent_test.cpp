// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tandem/base/test_directory.hpp"
#include "tandem/base/unique_fd.hpp"
#include "tandem/kxo/detail/test_agents.hpp"

namespace tandem::kxo::detail {
namespace {

using namespace std::chrono_literals;

/// An agent whose program is this text for the shell. It has `timeout` for each answer.
std::unique_ptr<Agent> external(const std::string& script, const std::string& timeout = "10s",
                                const Rules& rules = Rules::standard()) {
  std::string escaped;
  for (const char c : script) {
    if (c == ',' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return agent_of("external:timeout=" + timeout + ",command=" + escaped, rules);
}

/// Says OK to START, and what `answers` say when it is asked for a move.
std::string engine(const std::string& answers) {
  return "while read -r l; do case $l in START*|RECTSTART*) echo OK;; DONE) " + answers +
         ";; END) exit;; esac; done";
}

int open_descriptors() {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

/// Whether this process has a child, dead or alive.
bool has_children() { return ::waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD; }

TEST(ExternalAgentTest, PlaysWhatItsProgramSays) {
  const auto agent = external(engine("echo 2,1"));
  EXPECT_EQ(*agent->choose({}), 6);
  EXPECT_EQ(*agent->choose(after(0)), 6);
}

TEST(ExternalAgentTest, IsToldTheBoardTheGoalAndTheTime) {
  const TestDirectory directory;  // outlives the program, which writes down its END too
  const std::string path = directory / "told";
  const std::string script = "while read -r l; do echo $l >>" + path +
                             "; case $l in RECTSTART*) echo OK;; DONE) echo 4,0;; END) exit;; "
                             "esac; done";
  const auto agent = external(script, "10s", *Rules::make(5, 3, 3));
  EXPECT_EQ(*agent->choose(after(0, 7, 14), {250ms, 0}), 4);
  std::ifstream file(path);
  const std::string told{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(told,
            "RECTSTART 5,3\nINFO goal 3\nINFO timeout_turn 250\nBOARD\n"
            "0,0,2\n2,1,1\n4,2,2\nDONE\n");
}

TEST(ExternalAgentTest, LinesForPeopleAreNoAnswers) {
  const auto agent = external(engine("echo MESSAGE thinking; echo DEBUG 1,1; echo; echo 3,3"));
  EXPECT_EQ(*agent->choose({}), 15);
}

TEST(ExternalAgentTest, LinesMayEndAsInDos) {
  const auto agent = external(engine("printf '3,3\\r\\n'"));
  EXPECT_EQ(*agent->choose({}), 15);
}

TEST(ExternalAgentTest, IllegalAnswersAreErrors) {
  for (const char* answer :
       {"4,0", "0,4", "-1,0", "1", "1,", ",1", "1,1,1", "a,b", "99999999999,0", "0,0", "1.0,1"}) {
    const auto agent = external(engine("echo '" + std::string(answer) + "'"));
    EXPECT_EQ(agent->choose(after(0)).error().value(), EPROTO) << answer;
  }
}

TEST(ExternalAgentTest, AProgramThatIsNoneOrEndsIsAnError) {
  for (const char* command : {"exit 0", "/no/such/program", "kill -9 $$", "echo OK; exit 1"}) {
    const auto agent = external(command);
    EXPECT_EQ(agent->choose({}).error().value(), EPIPE) << command;
    EXPECT_EQ(agent->choose({}).error().value(), EPIPE) << command;
  }
  const auto crashes = external(engine("kill -9 $$"));
  EXPECT_EQ(crashes->choose({}).error().value(), EPIPE);
}

TEST(ExternalAgentTest, ARefusalToStartIsAnError) {
  const auto agent = external("echo ERROR too large; cat >/dev/null");
  EXPECT_EQ(agent->choose({}).error().value(), EPROTO);
}

TEST(ExternalAgentTest, ASilentProgramIsNotWaitedForForEver) {
  for (const std::string& command : {std::string("cat >/dev/null"), std::string("sleep 1000"),
                                     engine("sleep 1000"), engine("printf 1,")}) {
    const auto agent = external(command, "50ms");
    EXPECT_EQ(agent->choose({}).error().value(), ETIMEDOUT) << command;
  }
  // It neither reads nor ends, and ignores whoever asks it to.
  const auto stubborn = external("trap '' TERM INT HUP; while :; do sleep 1; done", "50ms");
  EXPECT_EQ(stubborn->choose({}).error().value(), ETIMEDOUT);
}

TEST(ExternalAgentTest, AProgramThatBabblesIsStopped) {
  for (const std::string& command :
       {std::string("yes MESSAGE"), std::string("tr '\\0' x </dev/zero"),
        std::string("cat /dev/zero"), engine("yes MESSAGE"),
        engine("head -c 5000 /dev/zero; echo; echo 1,1")}) {
    const auto agent = external(command);
    EXPECT_EQ(agent->choose({}).error().value(), EMSGSIZE) << command;
  }
}

// A late answer to the last question is none to the next one.
TEST(ExternalAgentTest, AFailureIsFollowedByANewProgram) {
  const TestDirectory directory;
  const std::string once = directory / "once";
  const auto agent = external(engine("if [ -e " + once + " ]; then echo 1,1; else touch " + once +
                                     "; sleep 1000; echo 2,2; fi"),
                              "100ms");
  EXPECT_EQ(agent->choose({}).error().value(), ETIMEDOUT);
  for (int i = 0; i < 20; ++i) {  // a loaded machine may need longer to start a shell
    const Result<int> cell = agent->choose({});
    if (!cell && cell.error().value() == ETIMEDOUT) continue;
    EXPECT_EQ(*cell, 5);
    break;
  }
}

TEST(ExternalAgentTest, LeavesNoProcessAndNoDescriptor) {
  const int before = open_descriptors();
  for (int i = 0; i < 3; ++i) {
    for (const std::string& command :
         {engine("echo 1,1"), std::string("exit 3"), std::string("sleep 1000 & sleep 1000"),
          std::string("yes"), engine("echo 9,9")}) {
      const auto agent = external(command, "50ms");
      (void)agent->choose({});
    }
  }
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_FALSE(has_children());
}

TEST(ExternalAgentTest, TheProgramHasNoDescriptorsOfOurs) {
  // Not closed by exec: as a careless application opens it.
  const UniqueFd careless(::dup(STDIN_FILENO));
  const auto agent =
      external(engine("set -- /proc/self/fd/*; n=0; for f; do [ -e $f ] && n=$((n+1)); done; "
                      "[ $n -le 4 ] && echo 0,0 || echo 1,1"));
  EXPECT_EQ(*agent->choose({}), 0);
}

TEST(ExternalAgentTest, NeedsAProgram) {
  EXPECT_EQ(make_agent("external", Rules::standard()).error(),
            "external: it needs a program: external:command=PROGRAM");
}

}  // namespace
}  // namespace tandem::kxo::detail
