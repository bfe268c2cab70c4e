// SPDX-License-Identifier: Apache-2.0
// Programs that break a Mandates element of <rcu>, one for each ILL_FORMED_ macro; without any of
// them this compiles. CMakeLists.txt says what the compiler has to say.
#include <memory>

#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {

// [saferecl.rcu.general]/2, [saferecl.rcu.base]/7: T is rcu-protectable.
struct Protectable : rcu_obj_base<Protectable> {};
struct Unrelated : rcu_obj_base<int> {};
struct Private : private rcu_obj_base<Private> {
  using rcu_obj_base<Private>::retire;
};
struct Virtual : virtual rcu_obj_base<Virtual> {};
struct Twice : rcu_obj_base<Twice>, rcu_obj_base<Twice, void (*)(Twice*)> {};
struct Other : Protectable, rcu_obj_base<Other> {};

// [saferecl.rcu.domain.func], rcu_retire, Mandates.
struct Immovable {
  Immovable() = default;
  Immovable(Immovable&&) = delete;
  void operator()(int*) const {}
};
struct OfLongs {
  void operator()(long*) const {}
};

inline void use(Protectable& object, int* p) {
  object.retire();
  rcu_retire(p);
#if defined(ILL_FORMED_UNRELATED)
  Unrelated().retire();
#elif defined(ILL_FORMED_PRIVATE)
  Private().retire();
#elif defined(ILL_FORMED_VIRTUAL)
  Virtual().retire();
#elif defined(ILL_FORMED_TWICE)
  Twice().rcu_obj_base<Twice>::retire();
#elif defined(ILL_FORMED_OTHER)
  Other().rcu_obj_base<Other>::retire();
#elif defined(ILL_FORMED_IMMOVABLE)
  rcu_retire<int, Immovable>(p);
#elif defined(ILL_FORMED_OF_LONGS)
  rcu_retire(p, OfLongs());
#endif
}

}  // namespace tandem::rcu
