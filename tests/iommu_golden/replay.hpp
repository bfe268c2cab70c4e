// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tandem/base/mapping.hpp"
#include "tests/iommu_golden/format.hpp"

namespace tandem::iommu::golden {

/// Does to tandem::iommu what was done to the reference model and compares what comes of it.
/// README.md says what may differ.
class Replay final : public Visitor {
 public:
  Replay();
  ~Replay() override;

  void begin(const World& world) override;
  void write(std::uint32_t offset, unsigned size_bytes, std::uint64_t value,
             const Effects& effects) override;
  void read(std::uint32_t offset, unsigned size_bytes, std::uint64_t expected) override;
  void store(std::uint64_t address, unsigned size_bytes, std::uint64_t value) override;
  void command(std::uint64_t address, const std::array<std::uint64_t, 2>& words) override;
  void request(const Request& request, const Response& expected, const Effects& effects) override;
  void page_request(std::size_t device, const PageRequest& request,
                    const Effects& effects) override;
  void flush() override;
  void poison(std::uint64_t address, std::uint64_t size_bytes, bool set) override;
  void reset(const Effects& effects) override;
  void qos_ids(std::size_t device, std::optional<QosIds> expected) override;
  void debug(const DebugResponse& expected) override;
  void checkpoint(const Checkpoint& expected) override;

  /// The first difference of each world that has one.
  const std::vector<std::string>& differences() const { return differences_; }

 private:
  class Device;
  class IoPage;

  /// Begins something that may have effects, which compare_effects() ends.
  void expect(const Effects& effects);
  void compare_effects();
  void compare_response(const Request& request, const Response& expected, const Response& got);
  Response translate(const Request& request);
  template <std::size_t Words>
  void compare_records(const char* what, std::uint32_t base, std::uint32_t tail,
                       const std::vector<std::array<std::uint64_t, Words>>& expected);
  /// Devices complete what they have not completed at once, or let it time out.
  void settle();
  InvalidationReply answer(std::size_t device, const AtsInvalidation& invalidation);
  void receive(const Message& message);
  std::uint64_t word_at(std::uint64_t offset) const;
  void flush_if_told();
  template <class Got, class Expected>
  void compare(const char* what, const Got& got, const Expected& expected) {
    if (got != static_cast<Got>(expected)) [[unlikely]]
      differ(what, static_cast<std::uint64_t>(got), static_cast<std::uint64_t>(expected));
  }
  void differ(const char* what, std::uint64_t got, std::uint64_t expected);

  struct Late {
    std::size_t device;
    std::uint8_t itag;
  };

  Mapping image_;
  memory::Memory memory_;
  World world_;
  std::unique_ptr<Iommu> iommu_;
  std::vector<std::unique_ptr<Device>> devices_;

  const Effects* effects_ = nullptr;  // of what is being done
  std::size_t received_ = 0;          // of its messages
  std::vector<Late> late_;
  bool somebody_never_answers_ = false;
  bool settling_ = false;

  std::array<std::uint32_t, kQueueRegisters.size()> queue_{};  // as they should be
  std::uint32_t unknown_queue_ = 0;  // bits: indices whose base was written since
  std::array<std::uint32_t, reg::kReservedFrom / 4> registers_{};
  std::uint64_t debug_address_ = 0;

  std::uint64_t event_ = 0;  // in the world
  bool differs_ = false;     // in this world
  std::vector<std::string> differences_;
};

}  // namespace tandem::iommu::golden
