// SPDX-License-Identifier: Apache-2.0
/// A directory for the files of a test. For tests; not installed.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

namespace tandem {

/// A new, empty directory, removed at the end with all that is in it by then. Nobody else has the
/// same, unlike one named after the process, whose id comes again: what is left in it by a program
/// that outlived a test is met by none.
class TestDirectory {
 public:
  TestDirectory() : path_(testing::TempDir() + "tandem-test-XXXXXX") {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
  }
  ~TestDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;

  const std::string& path() const { return path_; }
  /// The path of `name` in it.
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tandem
