// SPDX-License-Identifier: Apache-2.0
#include "bench/rcu_crossover.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <barrier>
#include <cmath>
#include <nlohmann/json.hpp>
#include <shared_mutex>
#include <thread>

#include "bench/rcu_measure.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::bench {
namespace {

constexpr std::array kThreads = {1, 2, 4};
constexpr std::array kLengthsNs = {10, 30, 100, 300, 1000, 3000, 10000};
constexpr std::array kLocks = {"shared_mutex", "pthread_rwlock"};

/// Works without touching memory. Not inlined: the same loop runs at two speeds in two places.
[[gnu::noinline]] void work(long rounds) {
  for (long i = 0; i < rounds; ++i) asm volatile("" ::"r"(i));
}

/// Rounds of work() in a nanosecond, on an undisturbed CPU.
double rounds_per_ns() {
  static const double rate = [] {
    constexpr long kRounds = 1'000'000;
    double best = 0;
    for (int i = 0; i < 20; ++i) {
      const auto begin = now_ns();
      work(kRounds);
      best = std::max(best, static_cast<double>(kRounds) / static_cast<double>(now_ns() - begin));
    }
    return best;
  }();
  return rate;
}

class RwLock {
 public:
  void lock_shared() { ::pthread_rwlock_rdlock(&lock_); }
  void unlock_shared() { ::pthread_rwlock_unlock(&lock_); }

 private:
  pthread_rwlock_t lock_ = PTHREAD_RWLOCK_INITIALIZER;
};

class Rcu {
 public:
  static void lock_shared() { rcu::rcu_default_domain().lock(); }
  static void unlock_shared() { rcu::rcu_default_domain().unlock(); }
};

/// Percent of their CPU time that `threads` readers spend inside sections: what as many sections
/// take without a lock over what they take with it.
template <class Lock>
double share(int threads, int section_ns, int milliseconds) {
  const long rounds = std::max(1L, std::lround(section_ns * rounds_per_ns()));
  const long sections = std::int64_t{milliseconds} * 1'000'000 / (section_ns + 10);
  Lock lock;
  std::barrier together(threads);
  std::vector<double> shares(static_cast<std::size_t>(threads));
  std::vector<std::jthread> readers;
  for (int i = 0; i < threads; ++i) {
    readers.emplace_back([&, i] {
      pin_thread(i);
      const auto cost = [sections, &together](auto section) {
        together.arrive_and_wait();
        const auto begin = cpu_ns();
        for (long n = 0; n < sections; ++n) section();
        return static_cast<double>(cpu_ns() - begin);
      };
      const double bare = cost([=] { work(rounds); });
      const double locked = cost([&lock, rounds] {
        lock.lock_shared();
        work(rounds);
        lock.unlock_shared();
      });
      shares[static_cast<std::size_t>(i)] = bare / locked;
    });
  }
  readers.clear();
  double sum = 0;
  for (const double one : shares) sum += one;
  return 100 * sum / threads;
}

std::string name_of(int length_ns, int threads, const char* lock) {
  return fmt::format("rcu/crossover/section:{}ns/threads:{}/{}", length_ns, threads, lock);
}

// ---- The plot ---------------------------------------------------------------------------------

constexpr double kPanelWidth = 230, kPanelHeight = 200, kLeft = 60, kTop = 60, kGap = 30;
constexpr std::array kColors = {"#d1495b", "#edae49"};
constexpr const char* kRcuColor = "#00798c";

double x_of(std::size_t panel, int length_ns) {
  const double low = std::log10(kLengthsNs.front());
  const double high = std::log10(kLengthsNs.back());
  const double part = (std::log10(length_ns) - low) / (high - low);
  return kLeft + static_cast<double>(panel) * (kPanelWidth + kGap) + part * kPanelWidth;
}
double y_of(double percent) {
  return kTop + kPanelHeight * (1 - std::clamp(percent, 0.0, 100.0) / 100);
}

std::string text(double x, double y, const char* anchor, const std::string& what) {
  return fmt::format(R"(<text x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>)"
                     "\n",
                     x, y, anchor, what);
}

/// One line through the points of `field` in the cases of one panel.
std::string line(const nlohmann::json& report, std::size_t panel, const char* lock,
                 const char* field, const char* color, bool dashed) {
  std::string points;
  for (const int length : kLengthsNs) {
    const std::string name = name_of(length, kThreads[panel], lock);
    for (const auto& row : report) {
      if (row.at("case") != name) continue;
      points += fmt::format("{:.1f},{:.1f} ", x_of(panel, length), y_of(row.at(field)));
    }
  }
  return fmt::format(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="2"{}/>)"
                     "\n",
                     points, color, dashed ? R"( stroke-dasharray="5 4")" : "");
}

std::string panel_of(const nlohmann::json& report, std::size_t panel) {
  const double left = x_of(panel, kLengthsNs.front());
  const double right = x_of(panel, kLengthsNs.back());
  std::string svg;
  for (int percent = 0; percent <= 100; percent += 25) {
    svg += fmt::format(R"(<line x1="{:.0f}" x2="{:.0f}" y1="{:.0f}" y2="{:.0f}" stroke="#ccc"/>)"
                       "\n",
                       left, right, y_of(percent), y_of(percent));
    if (panel == 0) svg += text(left - 6, y_of(percent) + 4, "end", fmt::format("{} %", percent));
  }
  for (const auto& [length, label] : {std::pair(10, "10 ns"), std::pair(100, "100 ns"),
                                      std::pair(1000, "1 µs"), std::pair(10000, "10 µs")}) {
    const char* const anchor = length == kLengthsNs.front()  ? "start"  // the neighbour's is near
                               : length == kLengthsNs.back() ? "end"
                                                             : "middle";
    svg += text(x_of(panel, length), kTop + kPanelHeight + 18, anchor, label);
  }
  const int threads = kThreads[panel];
  svg += text((left + right) / 2, kTop - 10, "middle",
              fmt::format("{} thread{}", threads, threads == 1 ? "" : "s"));
  svg += line(report, panel, kLocks[0], "ours", kRcuColor, false);
  for (std::size_t i = 0; i < kLocks.size(); ++i) {
    svg += line(report, panel, kLocks[i], "peer", kColors[i], i == 1);
  }
  return svg;
}

}  // namespace

void add_crossover(std::vector<Case>& list, bool quick) {
  const int length_ms = quick ? 4 : 20;
  for (const int threads : kThreads) {
    for (const int length : kLengthsNs) {
      for (const char* const lock : kLocks) {
        const bool standard = lock == kLocks[0];
        list.push_back({.name = name_of(length, threads, lock),
                        .unit = "%",
                        .peer_name = "",
                        .higher_is_better = true,
                        .target = Case::Target::kNone,
                        .ours = [=] { return share<Rcu>(threads, length, length_ms); },
                        .peer =
                            [=] {
                              return standard ? share<std::shared_mutex>(threads, length, length_ms)
                                              : share<RwLock>(threads, length, length_ms);
                            },
                        .samples = quick ? 5 : 9});
      }
    }
  }
}

std::string plot_crossover(const nlohmann::json& report, const std::string& machine) {
  const double width = kLeft + 3 * (kPanelWidth + kGap);
  const double height = kTop + kPanelHeight + 70;
  std::string svg =
      fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0f} {:.0f}" )"
                  R"(font-family="sans-serif" font-size="12">)"
                  "\n"
                  R"(<rect width="100%" height="100%" fill="white"/>)"
                  "\n",
                  width, height);
  svg += text(width / 2, 18, "middle",
              "CPU time spent inside read sections, over the length of a section");
  svg += text(width / 2, 33, "middle", machine);
  for (std::size_t panel = 0; panel < kThreads.size(); ++panel) svg += panel_of(report, panel);
  double x = kLeft;
  const auto legend = [&](const char* color, const char* label) {
    svg += fmt::format(
        R"(<line x1="{:.0f}" x2="{:.0f}" y1="{:.0f}" y2="{:.0f}" stroke="{}" stroke-width="3"/>)"
        "\n",
        x, x + 24, height - 22, height - 22, color);
    svg += text(x + 30, height - 18, "start", label);
    x += 180;
  };
  legend(kRcuColor, "tandem::rcu");
  for (std::size_t i = 0; i < kLocks.size(); ++i) legend(kColors[i], kLocks[i]);
  return svg + "</svg>\n";
}

}  // namespace tandem::bench
