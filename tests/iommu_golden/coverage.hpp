// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/iommu_golden/format.hpp"

namespace tandem::iommu::golden {

struct Capability {
  const char* name;
  std::uint64_t mask;
};
/// Those of one bit that vectors have with and without.
std::span<const Capability> capabilities();

/// The name of the paging modes of a Context.
std::string stages(std::uint64_t context);

/// What vectors reach, by the model's answers: each thing has a name.
class Coverage final : public Visitor {
 public:
  void begin(const World& world) override;
  void write(std::uint32_t offset, unsigned size_bytes, std::uint64_t value,
             const Effects& effects) override;
  void read(std::uint32_t offset, unsigned size_bytes, std::uint64_t expected) override;
  void store(std::uint64_t, unsigned, std::uint64_t) override { reach("store to a table"); }
  void command(std::uint64_t address, const std::array<std::uint64_t, 2>& words) override;
  void request(const Request& request, const Response& expected, const Effects& effects) override;
  void page_request(std::size_t device, const PageRequest& request,
                    const Effects& effects) override;
  void flush() override {}
  void poison(std::uint64_t, std::uint64_t, bool) override { reach("poison"); }
  void reset(const Effects& effects) override;
  void qos_ids(std::size_t device, std::optional<QosIds> expected) override;
  void debug(const DebugResponse& expected) override;
  void checkpoint(const Checkpoint& expected) override;

  const std::set<std::string>& reached() const { return reached_; }
  std::uint64_t worlds() const { return worlds_; }
  std::uint64_t requests() const { return requests_; }
  std::uint64_t checkpoints() const { return checkpoints_; }

  /// What vectors of all that the IOMMU offers have to reach.
  static std::set<std::string> expected();

 private:
  void reach(const std::string& name) { reached_.insert(name); }
  void reach_if(bool condition, const char* name) {
    if (condition) reach(name);
  }
  void effects(const Effects& effects);
  /// By a write to iohpmevt.
  void selected(std::uint64_t selector);
  void translated(const Request& request, const Response& response);
  /// A command that invalidates what is cached.
  void invalidated(const std::string& name) {
    reach(name);
    invalidations_.push_back(name);
  }
  /// Finds out whether the answer is another than it was, and what was invalidated since: such a
  /// request shows that a cache has not kept the old one.
  void compare_with_last(const Request& request, const Response& response);

  struct Last {
    std::uint64_t hash = 0;
    std::size_t invalidations = 0;  // before it
  };

  std::set<std::string> reached_;
  std::uint64_t capabilities_ = 0;
  bool big_endian_ = false;
  bool flushes_ = false;
  std::unordered_map<std::uint64_t, Last> answers_;  // of this world, by request
  std::vector<std::string> invalidations_;           // of this world, in order
  std::uint64_t worlds_ = 0, requests_ = 0, checkpoints_ = 0;
};

}  // namespace tandem::iommu::golden
