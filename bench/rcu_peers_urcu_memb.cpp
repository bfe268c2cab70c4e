// SPDX-License-Identifier: Apache-2.0
// liburcu, flavor memb, inlined; and its hash table.
#define RCU_MEMBARRIER
#define _LGPL_SOURCE
#include <urcu.h>
#include <urcu/rculfhash.h>

#include "bench/rcu_peers_urcu.hpp"

namespace tandem::bench {
namespace {

class Lfht {
 public:
  Lfht() : table_(cds_lfht_new(kHashBuckets, kHashBuckets, kHashBuckets, 0, nullptr)) {
    if (table_ == nullptr) throw std::bad_alloc();
    UrcuThread self;
    for (std::uint64_t key = 0; key < kHashKeys; ++key) replace(self, key);
  }
  ~Lfht() {
    UrcuThread self;
    cds_lfht_iter iter;
    cds_lfht_node* node = nullptr;
    self.lock();
    cds_lfht_for_each(table_, &iter, node) {
      if (cds_lfht_del(table_, node) == 0) self.call(element(node)->head, free_element);
    }
    self.unlock();
    self.drain();
    cds_lfht_destroy(table_, nullptr);
  }
  Lfht(const Lfht&) = delete;
  Lfht& operator=(const Lfht&) = delete;

  bool find(std::uint64_t key) const {
    cds_lfht_iter iter;
    cds_lfht_lookup(table_, hash_of(key), match, &key, &iter);
    return cds_lfht_iter_get_node(&iter) != nullptr;
  }

  void replace(UrcuThread& self, std::uint64_t key) {
    auto* const fresh = new Element{};
    cds_lfht_node_init(&fresh->node);
    fresh->key = key;
    self.lock();
    cds_lfht_node* const old =
        cds_lfht_add_replace(table_, hash_of(key), match, &key, &fresh->node);
    if (old != nullptr) self.call(element(old)->head, free_element);
    self.unlock();
  }

 private:
  struct Element {
    rcu_head head;
    cds_lfht_node node;
    std::uint64_t key;
  };
  static Element* element(cds_lfht_node* node) {
    return reinterpret_cast<Element*>(reinterpret_cast<char*>(node) - offsetof(Element, node));
  }
  static void free_element(rcu_head* head) { delete reinterpret_cast<Element*>(head); }
  static int match(cds_lfht_node* node, const void* key) {
    return element(node)->key == *static_cast<const std::uint64_t*>(key) ? 1 : 0;
  }

  cds_lfht* table_;
};

}  // namespace

RcuImplementation urcu_memb() {
  RcuImplementation result = urcu_flavor("liburcu 0.13 memb, inlined");
  result.hash_rates = hash_rates<UrcuThread, Lfht>;
  return result;
}

}  // namespace tandem::bench
