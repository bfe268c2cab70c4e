// SPDX-License-Identifier: Apache-2.0
// Five lines: open a device, compress, use the result.
#include <cstdio>
#include <string>
#include <vector>

#include "tandem/wd/wd.hpp"

int main() {
  const std::string text(100'000, 'x');
  std::vector<char> packed(1000);

  auto queue = tandem::wd::open("gzip").value();
  auto done = queue.run(tandem::wd::Gzip{packed, text});
  if (!done) return std::fprintf(stderr, "gzip: %s\n", done.error().hint), 1;
  std::printf("%zu bytes became %zu on %s\n", text.size(), done->value, done->device.data());
  return 0;
}
