// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tandem/base/test_directory.hpp"
#include "tandem/kxo/match.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::kxo {
namespace {

class MatchFileTest : public testing::Test {
 protected:
  MatchFileTest() {
    MatchSettings settings;
    settings.rules = *Rules::make(5, 4, 4);
    settings.players = {"random", "external:command=exit 0,time=20ms"};
    settings.pairs = 6;
    settings.opening_plies = 3;
    settings.budget = {std::chrono::microseconds(1500), 7};
    settings.seed = 18446744073709551615ULL;
    settings.sprt = Sprt{-0.1, 900.25, 0.01, 1e-3};
    match_ = *Match::make(settings);
    EXPECT_TRUE(match_->play(1, [&] { return match_->played_pairs() < 2; }));
    EXPECT_TRUE(save_match(path_, *match_));
  }

  std::string text() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  /// What load_match() says of a file with this text, without the path.
  std::string error(const std::string& text) const {
    std::ofstream(path_, std::ios::trunc) << text;
    const auto loaded = load_match(path_);
    if (loaded) return "";
    EXPECT_TRUE(loaded.error().starts_with(path_ + ": "));
    return loaded.error().substr(path_.size() + 2);
  }
  /// `text` with another line in the place of one, and a checksum that is right.
  static std::string changed(std::string text, const std::string& line, const std::string& other) {
    text.replace(text.find(line), line.size(), other);
    text.resize(text.rfind("sum "));
    char sum[32];
    std::snprintf(sum, sizeof sum, "sum %016llx\n", static_cast<unsigned long long>(fnv1a(text)));
    return text + sum;
  }

  const TestDirectory directory_;
  const std::string path_ = directory_ / "match";
  std::optional<Match> match_;
};

TEST_F(MatchFileTest, HoldsSettingsAndGames) {
  const auto loaded = load_match(path_);
  ASSERT_TRUE(loaded) << loaded.error();
  const MatchSettings &a = loaded->settings(), &b = match_->settings();
  EXPECT_EQ(a.rules, b.rules);
  EXPECT_EQ(a.players, b.players);
  EXPECT_EQ(a.pairs, b.pairs);
  EXPECT_EQ(a.opening_plies, b.opening_plies);
  EXPECT_EQ(a.budget, b.budget);
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.sprt, b.sprt);
  EXPECT_EQ(loaded->played_pairs(), 2U);
  EXPECT_EQ(loaded->games(), match_->games());
  EXPECT_EQ(loaded->counts(0, 1), match_->counts(0, 1));
}

TEST_F(MatchFileTest, ALoadedMatchGoesOnAsIfItHadNotStopped) {
  Match loaded = *load_match(path_);
  ASSERT_TRUE(loaded.play(2));
  ASSERT_TRUE(match_->play(1));
  EXPECT_EQ(loaded.games(), match_->games());
  EXPECT_EQ(loaded.played_pairs(), 6U);
}

TEST_F(MatchFileTest, EveryCutIsNoticed) {
  const std::string whole = text();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(error(whole.substr(0, size)), size < 17 ? "is no match of kxo" : "is cut short")
        << size;
  }
}

TEST_F(MatchFileTest, EveryChangedByteIsNoticed) {
  const std::string whole = text();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x01);
    EXPECT_NE(error(changed), "") << at;
  }
}

TEST_F(MatchFileTest, SaysWhatIsWrong) {
  const std::string whole = text();
  EXPECT_EQ(error(changed(whole, "match 1", "match 2")), "has version 2, known is 1");
  EXPECT_EQ(error(changed(whole, "player random", "player rnadom")).substr(0, 17),
            "no agent 'rnadom'");
  EXPECT_EQ(error(changed(whole, "seed 1844", "seed 1843")),
            "game 0 does not begin with its opening");
  for (const auto& [line, other] : {std::pair("game 5x4-4", "game 5x4"),
                                    {"pairs 6", "pairs x"},
                                    {"time 1500000", "time -1"},
                                    {"sprt -0.1", "sprt"},
                                    {"games 4", "games 3"},
                                    {"games 4", "games 2"},
                                    {"games 4", "games 6"},
                                    {"opening 3\n", ""}}) {
    EXPECT_EQ(error(changed(whole, line, other)), "is damaged") << other;
  }
  std::filesystem::remove(path_);
  EXPECT_EQ(load_match(path_).error(), path_ + ": No such file or directory");
}

}  // namespace
}  // namespace tandem::kxo
