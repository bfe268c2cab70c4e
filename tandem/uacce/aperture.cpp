// SPDX-License-Identifier: Apache-2.0
#include "tandem/uacce/detail/aperture.hpp"

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>
#include <vector>

#include "tandem/rcu/rcu.hpp"

namespace tandem::uacce::detail {

using memory::Fault;
using memory::Outcome;

Aperture::~Aperture() {
  windows_.for_each(/*condition=*/true,  // nobody else is left
                    [](std::uint64_t, const Window& window) { delete &window; });
}

Result<std::uint32_t> Aperture::take_number_locked() {
  if (!freed_.empty() && std::chrono::steady_clock::now() - freed_.front().since >= kReuseAfter) {
    const std::uint32_t number = freed_.front().number;
    freed_.pop_front();
    return number;
  }
  if (fresh_ == kWindows) return errno_error(ENOSPC);
  return fresh_++;
}

Result<WindowNumber> Aperture::open(std::shared_ptr<ClientMemory> client, std::uint64_t address) {
  TANDEM_CHECK(address % kWindowBytes == 0);
  auto window = std::make_unique<const Window>(Window{std::move(client), address});
  const MutexLock lock(mutex_);
  const auto number = take_number_locked();
  if (!number) return Unexpected{number.error()};
  const auto stored = windows_.store(*number, *window);
  if (!stored) {
    freed_.push_front({*number, {}});
    return Unexpected{stored.error()};
  }
  (void)window.release();  // windows_ has it
  return WindowNumber{*number};
}

void Aperture::close(std::span<const WindowNumber> windows, bool reuse) {
  std::vector<std::unique_ptr<const Window>> ended;
  for (const WindowNumber number : windows) {
    ended.emplace_back(windows_.erase(static_cast<std::uint32_t>(number)));
  }
  if (ended.empty()) return;
  rcu::rcu_synchronize();
  if (!reuse) return;
  const MutexLock lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  for (const WindowNumber number : windows) {
    freed_.push_back({static_cast<std::uint32_t>(number), now});
  }
}

Aperture::Window Aperture::find(std::uint64_t offset) {
  const std::scoped_lock section(rcu::rcu_default_domain());
  const Window* const window = windows_.load(offset >> kWindowShift);
  return window == nullptr ? Window{} : *window;
}

template <class Copy>
Outcome Aperture::each_window(std::uint64_t offset, std::size_t length, Copy copy) {
  std::size_t done = 0;
  while (done < length) {
    const std::uint64_t at = offset + done;
    const std::uint64_t in_window = at % kWindowBytes;
    const std::size_t piece = std::min<std::size_t>(length - done, kWindowBytes - in_window);
    const Window window = find(at);
    if (window.client == nullptr) return {done, Fault::kRefused};
    const Outcome outcome = copy(*window.client, window.address + in_window, done, piece);
    done += outcome.done_bytes;
    if (!outcome.ok()) return {done, outcome.fault};
  }
  return {done, Fault::kNone};
}

Outcome Aperture::read(std::uint64_t offset, std::span<std::byte> to) {
  return each_window(
      offset, to.size(),
      [&](ClientMemory& client, std::uint64_t address, std::size_t first, std::size_t length) {
        return client.read(address, to.subspan(first, length));
      });
}

Outcome Aperture::write(std::uint64_t offset, std::span<const std::byte> from) {
  return each_window(
      offset, from.size(),
      [&](ClientMemory& client, std::uint64_t address, std::size_t first, std::size_t length) {
        return client.write(address, from.subspan(first, length));
      });
}

}  // namespace tandem::uacce::detail
