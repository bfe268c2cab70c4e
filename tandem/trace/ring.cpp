// SPDX-License-Identifier: Apache-2.0
#include "tandem/trace/detail/ring.hpp"

#include <algorithm>
#include <bit>
#include <new>

#include "tandem/base/planted_fault.hpp"

namespace tandem::trace::detail {
namespace {

using OfEvent = Field<63, 48>;
using OfCpu = Field<47, 32>;
using OfThread = Field<31, 0>;

}  // namespace

Ring::Ring(std::byte* memory, std::uint32_t entries)
    : header_(reinterpret_cast<RingHeader*>(memory)),
      entries_(reinterpret_cast<Entry*>(memory + sizeof(RingHeader))),
      size_(entries) {}

Ring Ring::make(std::byte* memory, std::uint32_t entries, std::uint32_t process,
                const Name& process_name) {
  auto* const header = ::new (memory) RingHeader;
  header->entries = entries;
  header->process = process;
  header->process_name = process_name;
  header->owned.store(1, std::memory_order_relaxed);
  header->magic = RingHeader::kMagic;
  return {memory, entries};
}

Ring Ring::find(std::byte* memory, std::size_t size_bytes) {
  if (size_bytes < sizeof(RingHeader)) return {};
  auto* const header = reinterpret_cast<RingHeader*>(memory);
  const std::uint32_t entries = header->entries;
  if (header->magic != RingHeader::kMagic || !std::has_single_bit(entries) ||
      size_bytes != Ring::size_bytes(entries)) {
    return {};
  }
  return {memory, entries};
}

void Ring::write(const Record& record) {
  static const bool torn = planted_fault("trace-torn-entry");
  const std::uint64_t position = header_->head.load(std::memory_order_relaxed);
  Entry& to = entry(position);
  if (!torn) to.sequence.store(0, std::memory_order_relaxed);
  to.time_ns.store(record.time_ns, std::memory_order_release);
  to.origin.store(OfEvent::make(static_cast<std::uint16_t>(record.event)) |
                      OfCpu::make(record.cpu) | OfThread::make(record.thread),
                  std::memory_order_release);
  for (std::size_t i = 0; i < record.arguments.size(); ++i) {
    to.arguments[i].store(record.arguments[i], std::memory_order_release);
  }
  to.sequence.store(position + 1, std::memory_order_release);
  header_->head.store(position + 1, std::memory_order_release);
}

bool Ring::read_entry(std::uint64_t position, Record& record) const {
  const Entry& from = entry(position);
  if (from.sequence.load(std::memory_order_acquire) != position + 1) return false;
  record.time_ns = from.time_ns.load(std::memory_order_acquire);
  const std::uint64_t origin = from.origin.load(std::memory_order_acquire);
  record.event = static_cast<Event>(OfEvent::get(origin));
  record.cpu = static_cast<std::uint16_t>(OfCpu::get(origin));
  record.thread = static_cast<std::uint32_t>(OfThread::get(origin));
  for (std::size_t i = 0; i < record.arguments.size(); ++i) {
    record.arguments[i] = from.arguments[i].load(std::memory_order_acquire);
  }
  record.process = header_->process;
  return from.sequence.load(std::memory_order_relaxed) == position + 1;
}

std::uint64_t Ring::read(std::vector<Record>& records) const {
  const std::uint64_t head = header_->head.load(std::memory_order_acquire);
  const std::uint64_t start = std::min(header_->start.load(std::memory_order_relaxed), head);
  const std::size_t before = records.size();
  for (std::uint64_t at = std::max(head > size_ ? head - size_ : 0, start); at < head; ++at) {
    Record record;
    if (read_entry(at, record)) records.push_back(record);
  }
  return head - start - (records.size() - before) + header_->lost.load(std::memory_order_relaxed);
}

std::uint64_t Ring::overwritten() const {
  const std::uint64_t start = header_->start.load(std::memory_order_relaxed);
  const std::uint64_t written = header_->head.load(std::memory_order_acquire) - start;
  return written > size_ ? written - size_ : 0;
}

}  // namespace tandem::trace::detail
