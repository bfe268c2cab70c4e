// SPDX-License-Identifier: Apache-2.0
#include "team.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace tandem::rcutorture {

void Team::add(std::string name, std::function<void()> body) {
  members_.push_back(std::make_unique<Member>());
  Member& member = *members_.back();
  member.name = std::move(name);
  member.thread = std::thread([this, &member, work = std::move(body)] {
    start_.wait(false);
    work();
    member.ended.store(true, std::memory_order_release);
  });
}

bool Team::all_ended() const noexcept {
  return std::all_of(members_.begin(), members_.end(), [](const auto& member) {
    return member->ended.load(std::memory_order_acquire);
  });
}

void Team::run(std::chrono::duration<double> time) {
  start_.store(true);
  start_.notify_all();
  std::this_thread::sleep_for(time);
  stop_.store(true);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!all_ended()) {
    if (std::chrono::steady_clock::now() > deadline) {
      tally_.print(stderr, /*all=*/true);
      for (const auto& member : members_) {
        if (member->ended.load()) continue;
        std::fprintf(stderr, "tandem-rcutorture: '%s' hangs\n", member->name.c_str());
      }
      std::abort();
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (auto& member : members_) member->thread.join();
  members_.clear();
}

}  // namespace tandem::rcutorture
