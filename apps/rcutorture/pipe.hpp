// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "random.hpp"
#include "tally.hpp"
#include "tandem/base/mutex.hpp"
#include "tandem/rcu/callback_head.hpp"

/// The pipe-count test. A writer replaces an element, and the removed one ages by one with each
/// grace period that passes. A reader whose section began before the removal may see the age grow
/// from 0 to 1, which happens at the removal itself; 2 says that a grace period ended under it.
/// After kStages the element is poisoned and used again.
///
/// Spec: Linux kernel documentation, "RCU Torture Test Operation" (Reader Pipe).
namespace tandem::rcutorture {

inline constexpr std::uint64_t kAlive = 0x600D'600D'600D'600D;
inline constexpr std::uint64_t kPoison = 0xDEAD'DEAD'DEAD'DEAD;

struct Element : rcu::callback_head {
  std::atomic<unsigned> age{0};
  // A plain word: ThreadSanitizer tells where grace periods order nothing.
  std::uint64_t word = kPoison;
  Element* next_free = nullptr;
  void* pipe = nullptr;
};

/// What one thread of readers has seen; shared counters would order what must not be ordered.
struct Sightings {
  std::array<std::uint64_t, kStages + 1> ages{};
  std::uint64_t sections = 0;
  void add_to(Tally& tally, Line& line) const {
    line.worked(sections);
    for (unsigned age = 0; age <= kStages; ++age) {
      if (ages[age] == 0) continue;
      tally.ages[age].fetch_add(ages[age], std::memory_order_relaxed);
      line.aged(age);
    }
  }
};

/// What a section sees of an element, from its first look to its last.
class Sighting {
 public:
  Sighting(const std::atomic<Element*>& current, Line& line) noexcept
      : element_(*current.load(std::memory_order_acquire)), line_(line) {
    check();
  }
  void check() const noexcept {
    if (element_.word != kAlive) line_.fail("a section read a poisoned element");
  }
  /// The section's last look.
  void end(Sightings& seen) const noexcept {
    check();
    const unsigned age = element_.age.load(std::memory_order_relaxed);
    ++seen.ages[age < kStages ? age : kStages];
    ++seen.sections;
    if (age >= 2) line_.fail("a grace period ended before a section that began before it");
  }

 private:
  const Element& element_;
  Line& line_;
};

/// One writer's element and what it removed.
template <class Flavour>
class Pipe {
 public:
  Pipe(typename Flavour::Domain& domain, Line& called) : domain_(domain), called_(called) {
    for (Element& element : pool_) {
      element.pipe = this;
      put(element);
    }
    current.store(take(), std::memory_order_release);
  }

  /// Removes an element and has it age by callbacks or by a grace period of the kind `wait`.
  void update(Random& random, const typename Flavour::GracePeriod& wait, Line& line) {
    Element* const fresh = take();
    if (fresh == nullptr) {  // callbacks have them all
      wait.run(domain_, random);
      return;
    }
    Element* const old = current.exchange(fresh, std::memory_order_acq_rel);
    old->age.store(1, std::memory_order_relaxed);
    if (random.one_in(2)) {
      Flavour::call(domain_, *old, on_grace_period);
      return;
    }
    removed_.push_back(old);
    wait.run(domain_, random);
    line.worked();
    line.grace_periods.fetch_add(1, std::memory_order_relaxed);
    std::size_t kept = 0;
    for (Element* element : removed_) {
      if (!ripen(*element)) removed_[kept++] = element;
    }
    removed_.resize(kept);
  }

  std::atomic<Element*> current{nullptr};

 private:
  static constexpr std::size_t kElements = 20 * kStages;

  /// A grace period has passed since it was last called. Returns: whether it was the last.
  bool ripen(Element& element) noexcept {
    const unsigned age = element.age.load(std::memory_order_relaxed) + 1;
    element.age.store(age, std::memory_order_relaxed);
    if (age < kStages) return false;
    put(element);
    return true;
  }
  static void on_grace_period(rcu::callback_head* head) noexcept {
    auto& element = *static_cast<Element*>(head);
    auto& pipe = *static_cast<Pipe*>(element.pipe);
    pipe.called_.callbacks.fetch_add(1, std::memory_order_relaxed);
    if (!pipe.ripen(element)) Flavour::call(pipe.domain_, element, on_grace_period);
  }
  void put(Element& element) noexcept {
    element.word = kPoison;
    const MutexLock lock(mutex_);
    element.next_free = free_;
    free_ = &element;
  }
  Element* take() noexcept {
    const MutexLock lock(mutex_);
    Element* const element = free_;
    if (element == nullptr) return nullptr;
    free_ = element->next_free;
    element->age.store(0, std::memory_order_relaxed);
    element->word = kAlive;
    return element;
  }

  typename Flavour::Domain& domain_;
  Line& called_;
  std::array<Element, kElements> pool_;
  std::vector<Element*> removed_;
  Mutex mutex_;
  Element* free_ TANDEM_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace tandem::rcutorture
