// SPDX-License-Identifier: Apache-2.0
// A thread's readers: made at the first section in a domain, detached at thread exit.
#include <memory>
#include <utility>
#include <vector>

#include "tandem/rcu/detail/core.hpp"
#include "tandem/rcu/detail/process.hpp"
#include "tandem/rcu/rcu.hpp"

namespace tandem::rcu {

namespace detail {
namespace {

/// A thread's reader in a domain other than the default one.
struct FurtherReader {
  std::uint64_t domain_id;
  rcu_domain* domain;  // valid unless reader->core is dead
  std::unique_ptr<Reader> reader;
};
using FurtherReaders = std::vector<FurtherReader>;

constinit thread_local FurtherReaders* further_readers = nullptr;  // on_thread_exit() frees it

/// Leaves a reader attached in another process alone: its core is the parent's.
void detach(Reader& reader) noexcept {
  if (reader.generation == current_generation()) {
    reader.core->unlink(reader);
    reader.core->release();
  }
  reader.state.store(0, std::memory_order_release);
  reader.wake.store(0, std::memory_order_relaxed);
  reader.nesting = 0;
  reader.generation = kDetached;
  reader.core = nullptr;
}

bool domain_is_dead(const FurtherReader& further) noexcept {
  const Core* const core = further.reader->core;
  return core && core->dead.load(std::memory_order_acquire);
}

}  // namespace

constinit thread_local Reader default_reader;
constinit thread_local LastReader last_reader;

void on_thread_exit() noexcept {
  if (default_reader.generation != kDetached) detach(default_reader);
  last_reader = {};
  const std::unique_ptr<FurtherReaders> further(std::exchange(further_readers, nullptr));
  if (!further) return;
  for (FurtherReader& entry : *further) detach(*entry.reader);
}

void on_fork_child() noexcept {
  if (default_reader.nesting != 0) DomainAccess::attach(rcu_default_domain(), default_reader);
  if (!further_readers) return;
  for (FurtherReader& entry : *further_readers) {
    if (entry.reader->nesting != 0) DomainAccess::attach(*entry.domain, *entry.reader);
  }
}

}  // namespace detail

detail::Reader& rcu_domain::find_reader() noexcept {
  using detail::further_readers;
  if (!further_readers) {
    detail::current_generation();  // sets the exit key up
    detail::watch_thread_exit();
    further_readers = new detail::FurtherReaders;
  }
  for (const detail::FurtherReader& entry : *further_readers) {
    if (entry.domain_id != id_) continue;
    detail::last_reader = {id_, entry.reader.get()};
    return *entry.reader;
  }
  std::erase_if(*further_readers, [](const detail::FurtherReader& entry) {
    const bool dead = detail::domain_is_dead(entry);
    if (dead) detail::detach(*entry.reader);
    return dead;
  });
  further_readers->push_back({id_, this, std::make_unique<detail::Reader>()});
  detail::last_reader = {id_, further_readers->back().reader.get()};
  return *further_readers->back().reader;
}

const detail::Reader* rcu_domain::known_reader() const noexcept {
  if (this == &detail::default_domain.domain) return &detail::default_reader;
  if (!detail::further_readers) return nullptr;
  for (const detail::FurtherReader& entry : *detail::further_readers) {
    if (entry.domain_id == id_) return entry.reader.get();
  }
  return nullptr;
}

void rcu_domain::attach(detail::Reader& reader) noexcept {
  detail::Core& mine = core();
  detail::watch_thread_exit();
  // In a forked child the links and the reference to the parent's core are forgotten.
  mine.acquire();
  reader.core = &mine;
  reader.generation = mine.generation;
  mine.link(reader);
}

}  // namespace tandem::rcu
