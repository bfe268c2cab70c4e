// SPDX-License-Identifier: Apache-2.0
#include "tandem/kxo/agent_options.hpp"

#include <gtest/gtest.h>

namespace tandem::kxo {
namespace {

using namespace std::chrono_literals;

TEST(AgentOptionsTest, GiveWhatTheTextSaysOrElseTheFallback) {
  AgentOptions options = *AgentOptions::parse("n=12,c=0.5,time=1.5ms,path=a\\,b\\\\c=d,empty=");
  EXPECT_EQ(options.number("n", 1, 0, 100), 12U);
  EXPECT_EQ(options.number("m", 1, 0, 100), 1U);
  EXPECT_EQ(options.real("c", 1, 0, 2), 0.5);
  EXPECT_EQ(options.real("d", 1, 0, 2), 1);
  EXPECT_EQ(options.time("time", 0ns), 1500us);
  EXPECT_EQ(options.time("pause", 2s), 2s);
  EXPECT_EQ(options.text("path", ""), "a,b\\c=d");
  EXPECT_EQ(options.text("empty", "x"), "");
  EXPECT_EQ(options.text("other", "x"), "x");
  EXPECT_EQ(options.error(), "");
}

TEST(AgentOptionsTest, UnitsOfTime) {
  AgentOptions options = *AgentOptions::parse("a=7ns,b=7us,c=7ms,d=7s");
  EXPECT_EQ(options.time("a", 0ns), 7ns);
  EXPECT_EQ(options.time("b", 0ns), 7us);
  EXPECT_EQ(options.time("c", 0ns), 7ms);
  EXPECT_EQ(options.time("d", 0ns), 7s);
}

TEST(AgentOptionsTest, ATimeIsANumberWithAUnit) {
  EXPECT_EQ(*parse_time("1.5ms"), 1500us);
  EXPECT_EQ(*parse_time("0s"), 0ns);
  for (const char* text : {"", "1", "ms", "-1ms", "1 ms", "1e9s", "nans", "infs", "1m"}) {
    EXPECT_EQ(parse_time(text).error(), "'" + std::string(text) +
                                            "' is not a time of at most a day, such as 500us, 1ms "
                                            "or 2s");
  }
}

TEST(AgentOptionsTest, TellWhichThereAre) {
  AgentOptions options;
  options.number("n", 7, 1, 9);
  options.number("most", 0, 1, 9);
  options.real("c", 1.4, 0, 9);
  options.time("time", 0ns);
  options.time("pause", 1500us);
  options.time("wait", 10s);
  options.text("path", "");
  options.text("kind", "any");
  std::string known;
  for (const auto& [name, fallback] : options.known()) known += name + "=" + fallback + " ";
  EXPECT_EQ(known, "n=7 most=N c=1.4 time=TIME pause=1500us wait=10s path=TEXT kind=any ");
}

TEST(AgentOptionsTest, TextThatIsNoListOfOptionsIsRefused) {
  EXPECT_EQ(AgentOptions::parse("n").error(), "'n' is no NAME=VALUE");
  EXPECT_EQ(AgentOptions::parse("=3").error(), "'=3' is no NAME=VALUE");
  EXPECT_EQ(AgentOptions::parse("n=3,").error(), "'' is no NAME=VALUE");
  EXPECT_EQ(AgentOptions::parse("n=3,n=4").error(), "option 'n' is given twice");
  EXPECT_EQ(AgentOptions::parse("")->error(), "");
}

TEST(AgentOptionsTest, ValuesOutOfTheirRangeAreTold) {
  for (const char* text :
       {"n=0", "n=101", "n=-1", "n=", "n=3x", "n= 3", "n=99999999999999999999"}) {
    AgentOptions options = *AgentOptions::parse(text);
    EXPECT_EQ(options.number("n", 5, 1, 100), 5U);
    EXPECT_EQ(options.error(),
              "option n: '" + std::string(text + 2) + "' is not a number in [1, 100]");
  }
  for (const char* text : {"c=nan", "c=-0.1", "c=2.6", "c=inf", "c=1,5"}) {
    auto options = AgentOptions::parse(text);
    if (!options) continue;
    EXPECT_EQ(options->real("c", 1, 0, 2.5), 1);
    EXPECT_EQ(options->error(),
              "option c: '" + std::string(text + 2) + "' is not a number in [0, 2.5]");
  }
  for (const char* text : {"t=1", "t=ms", "t=-1ms", "t=90000s", "t=nans"}) {
    AgentOptions options = *AgentOptions::parse(text);
    EXPECT_EQ(options.time("t", 3ns), 3ns);
    EXPECT_NE(options.error(), "") << text;
  }
}

TEST(AgentOptionsTest, AnOptionThatNobodyAskedForIsToldWithThoseThereAre) {
  AgentOptions options = *AgentOptions::parse("depht=3");
  EXPECT_EQ(options.error(), "no option 'depht'; there are none");
  options.number("depth", 1, 1, 64);
  options.text("order", "");
  EXPECT_EQ(options.error(), "no option 'depht'; there are: depth, order");
}

}  // namespace
}  // namespace tandem::kxo
