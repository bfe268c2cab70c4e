// SPDX-License-Identifier: Apache-2.0
// Two compressions under way at once, each written as if it were alone.
#include "tandem/wd/coroutine.hpp"

#include <cstdio>
#include <string>
#include <vector>

#if defined(__cpp_impl_coroutine)
namespace wd = tandem::wd;

wd::Task<std::size_t> round_trip(wd::Queue& queue, const std::string& text) {
  std::vector<char> packed(tandem_compress_bound(static_cast<std::uint32_t>(text.size())));
  auto deflated = co_await queue.submit(wd::Gzip{packed, text});
  if (!deflated) co_return tandem::Unexpected{deflated.error()};
  std::string again(text.size(), '?');
  auto inflated = co_await queue.submit(wd::GzipInflate{again, {packed.data(), deflated->value}});
  if (!inflated) co_return tandem::Unexpected{inflated.error()};
  co_return again == text ? deflated->value : 0;
}

int main() {
  auto queue = wd::open("gzip").value();
  const std::string zeros(100'000, '0'), word(5'000, 'w');
  auto first = round_trip(queue, zeros), second = round_trip(queue, word);
  const auto a = wd::drive(queue, first), b = wd::drive(queue, second);
  if (!a || !b) return std::fprintf(stderr, "gzip: %s\n", (a ? b : a).error().hint), 1;
  std::printf("%zu bytes became %zu, %zu became %zu\n", zeros.size(), *a, word.size(), *b);
  return *a != 0 && *b != 0 ? 0 : 1;
}
#else
int main() { return std::puts("this compiler has no coroutines in C++20"), 0; }
#endif
