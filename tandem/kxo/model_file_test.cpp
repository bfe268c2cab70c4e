// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tandem/base/test_directory.hpp"
#include "tandem/kxo/detail/test_agents.hpp"
#include "tandem/kxo/learner.hpp"
#include "tandem/kxo/value_model.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::kxo {
namespace {

const Rules kRules = *Rules::make(3, 3, 3);

class ModelFileTest : public testing::Test {
 protected:
  ModelFileTest() {
    model_ = ValueModel::make(kRules);
    for (std::uint64_t game = 0; game < 50; ++game) learn_from_game(*model_, {}, {1, game});
  }

  std::string bytes() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }
  /// What load_model() says, without the path.
  std::string error(const Rules& rules = kRules) const {
    const auto loaded = load_model(path_, rules);
    if (loaded) return "";
    EXPECT_TRUE(loaded.error().starts_with(path_ + ": "));
    return loaded.error().substr(path_.size() + 2);
  }

  const TestDirectory directory_;
  std::string path_ = directory_ / "model";
  std::unique_ptr<ValueModel> model_;
};

TEST_F(ModelFileTest, HoldsTheModelAndTheNumberOfGames) {
  ASSERT_TRUE(save_model(path_, *model_, 50));
  const auto loaded = load_model(path_, kRules);
  ASSERT_TRUE(loaded) << loaded.error();
  EXPECT_EQ(loaded->games, 50U);
  EXPECT_EQ(loaded->model->save(), model_->save());
  const auto network = ValueModel::make(*Rules::make(6, 5, 4));
  ASSERT_TRUE(save_model(path_, *network, 0));
  EXPECT_TRUE(load_model(path_, network->rules()));
}

TEST_F(ModelFileTest, AppearsWholeOrNotAtAll) {
  ASSERT_TRUE(save_model(path_, *model_, 1));
  ASSERT_TRUE(save_model(path_, *model_, 2));  // in the place of the first one
  EXPECT_EQ(load_model(path_, kRules)->games, 2U);
  // Nothing else is left behind, also where it failed.
  const std::string taken = directory_ / "taken";
  std::filesystem::create_directory(taken);
  EXPECT_FALSE(save_model(taken, *model_, 3));
  EXPECT_FALSE(save_model(directory_ / "none/model", *model_, 3));
  const std::filesystem::directory_iterator entries(directory_.path());
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 2);
}

TEST_F(ModelFileTest, EveryCutIsNoticed) {
  ASSERT_TRUE(save_model(path_, *model_, 50));
  const std::string whole = bytes();
  for (std::size_t size = 0; size < whole.size(); size += size < 64 ? 1 : 37) {
    write(whole.substr(0, size));
    EXPECT_EQ(error(), size < 8 ? "is no model of kxo" : "is cut short") << size;
  }
  write(whole + '\0');
  EXPECT_EQ(error(), "is too long");
}

TEST_F(ModelFileTest, EveryChangedByteIsNoticed) {
  ASSERT_TRUE(save_model(path_, *model_, 50));
  const std::string whole = bytes();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    write(changed);
    EXPECT_NE(error(), "") << at;
  }
}

TEST_F(ModelFileTest, SaysWhatIsWrong) {
  EXPECT_EQ(error(), "No such file or directory");
  write("magic");
  EXPECT_EQ(error(), "is no model of kxo");
  ASSERT_TRUE(save_model(path_, *model_, 50));
  EXPECT_EQ(error(Rules::standard()), "is a model of 3x3-3, not of 4x4-3");
  std::string newer = bytes();
  newer[8] = 2;
  write(newer);
  EXPECT_EQ(error(), "has version 2, known is 1");
  std::filesystem::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(error(), "is no regular file");
  path_ = directory_.path();
  EXPECT_EQ(error(), "is no regular file");
  path_ = "/dev/zero";
  EXPECT_EQ(error(), "is no regular file");
}

TEST_F(ModelFileTest, OfALargeFileThatIsNoneNoMoreIsReadThanItsBeginning) {
  write("another thing");
  std::filesystem::resize_file(path_, std::uintmax_t{1} << 30);  // sparse
  EXPECT_EQ(read_whole_file(path_, std::uint64_t{1} << 30, "some").value().size(), 4U);
  EXPECT_EQ(read_whole_file(path_, std::uint64_t{1} << 29, "another").error(),
            path_ + ": is too large");
  EXPECT_EQ(error(), "is no model of kxo");
  write("another thing");
  EXPECT_EQ(read_whole_file(path_, 100, "another").value(), "another thing");
  EXPECT_EQ(read_whole_file(path_, 100, "another thing and more").value(), "another thing");
  EXPECT_EQ(read_whole_file(path_, 100).value(), "another thing");
}

TEST_F(ModelFileTest, AgentsPlayByIt) {
  ASSERT_TRUE(save_model(path_, *model_, 50));
  const auto agent = make_agent("td:model=" + path_, kRules);
  ASSERT_TRUE(agent) << agent.error();
  EXPECT_TRUE((*agent)->choose({}));
  EXPECT_EQ(make_agent("q:model=" + path_, Rules::standard()).error(),
            "q: " + path_ + ": is a model of 3x3-3, not of 4x4-3");
}

}  // namespace
}  // namespace tandem::kxo
