// SPDX-License-Identifier: Apache-2.0
/// The MSI capability: how software says which message is to be stored where, and its storing.
#include <algorithm>
#include <bit>
#include <span>

#include "tandem/pcie/detail/config_space.hpp"
#include "tandem/pcie/detail/endpoint_state.hpp"

namespace tandem::pcie {
namespace detail {

using config::MsiControl;

/// Spec: "MSI Capability Structures".
void ConfigSpace::define_msi(unsigned vectors) {
  has_msi_ = true;
  const std::uint64_t which = (std::uint64_t{1} << vectors) - 1;
  file_.define(kMsi, 1, config::kMsiCapabilityId);
  file_.define(kMsi + 1, 1, 0);  // the last one
  file_.define(
      kMsi + config::kMsiControl, 2,
      MsiControl::MultipleMessageCapable::make(static_cast<unsigned>(std::countr_zero(vectors))) |
          MsiControl::Addresses64Bit::kMask | MsiControl::PerVectorMasking::kMask,
      MsiControl::Enable::kMask | MsiControl::MultipleMessageEnable::kMask);
  file_.define(kMsi + config::kMsiAddress, 4, 0, ~std::uint64_t{3});
  file_.define(kMsi + config::kMsiUpperAddress, 4, 0, ~std::uint64_t{0});
  file_.define(kMsi + config::kMsiData, 2, 0, ~std::uint64_t{0});
  file_.define(kMsi + config::kMsiMask, 4, 0, which);
  file_.define(kMsi + config::kMsiPending, 4, 0);
}

bool ConfigSpace::msi_enabled() const {
  return has_msi_ && MsiControl::Enable::get(file_.read(kMsi + config::kMsiControl, 2)) != 0;
}

/// No more than there are, whatever software wrote.
unsigned ConfigSpace::msi_vectors_given() const {
  const std::uint32_t control = file_.read(kMsi + config::kMsiControl, 2);
  return 1U << std::min(MsiControl::MultipleMessageEnable::get(control),
                        MsiControl::MultipleMessageCapable::get(control));
}

/// The function has the low bits of the data as its own.
ConfigSpace::Msi ConfigSpace::make_msi(unsigned vector) const {
  const std::uint32_t own = msi_vectors_given() - 1;
  Msi message;
  message.address = std::uint64_t{file_.read(kMsi + config::kMsiUpperAddress, 4)} << 32 |
                    file_.read(kMsi + config::kMsiAddress, 4);
  message.data = (file_.read(kMsi + config::kMsiData, 2) & ~own) | vector;
  message.vector = vector;
  message.resets = resets_;
  return message;
}

std::optional<ConfigSpace::Msi> ConfigSpace::take_msi(unsigned vector) {
  vector %= msi_vectors_given();
  const std::uint32_t bit = 1U << vector;
  if ((file_.read(kMsi + config::kMsiMask, 4) & bit) == 0) return make_msi(vector);
  const std::uint32_t pending = kMsi + config::kMsiPending;
  file_.set(pending, 4, file_.read(pending, 4) | bit);
  return std::nullopt;
}

std::optional<ConfigSpace::Msi> ConfigSpace::take_pending_msi() {
  if (!msi_enabled()) return std::nullopt;
  const std::uint32_t at = kMsi + config::kMsiPending;
  const std::uint32_t pending = file_.read(at, 4);
  const std::uint32_t due = pending & ~file_.read(kMsi + config::kMsiMask, 4);
  if (due == 0) return std::nullopt;
  const auto vector = static_cast<unsigned>(std::countr_zero(due));
  file_.set(at, 4, pending & ~(1U << vector));
  return make_msi(vector % msi_vectors_given());
}

void ConfigSpace::put_back(const Msi& message) {
  if (message.resets != resets_) return;
  const std::uint32_t pending = kMsi + config::kMsiPending;
  file_.set(pending, 4, file_.read(pending, 4) | 1U << message.vector);
}

Result<void, DmaFault> EndpointState::store_message(const ConfigSpace::Msi& message) {
  const std::uint32_t data = message.data;  // little-endian, as the host is
  const auto stored =
      write_untranslated(*this, {message.address}, std::as_bytes(std::span(&data, 1)));
  if (stored.fault) return Unexpected{*stored.fault};
  return {};
}

/// A message that finds its life ended, or bus mastering disabled, is put back, and the controls
/// are looked at again. Either they allow it by now, or who enables bus mastering does so later,
/// and looks for pending messages afterwards: one of the two finds it.
///
/// Refused otherwise it is lost, as any posted write. What the IOMMU refused it has recorded; what
/// memory refused nobody has.
void EndpointState::store_pending_messages() {
  while (now().allows(Controls::kBusMaster)) {
    std::optional<ConfigSpace::Msi> message;
    {
      const MutexLock lock(config_mutex);
      message = config.take_pending_msi();
    }
    if (!message) return;
    const auto stored = store_message(*message);
    if (stored || stored.error().reason != DmaFault::Reason::kDisabled) continue;
    const MutexLock lock(config_mutex);
    config.put_back(*message);
  }
}

}  // namespace detail

Result<void, DmaFault> Endpoint::send_msi(unsigned vector) {
  std::optional<detail::ConfigSpace::Msi> message;
  {
    const MutexLock lock(state_->config_mutex);
    if (!state_->config.msi_enabled()) return Unexpected{DmaFault{DmaFault::Reason::kDisabled, {}}};
    message = state_->config.take_msi(vector);
  }
  if (!message) return {};
  const auto stored = state_->store_message(*message);
  if (stored || stored.error().reason != DmaFault::Reason::kDisabled) return stored;
  {
    // Software takes another permission away, which ends a life, but lets us master the bus.
    const MutexLock lock(state_->config_mutex);
    if (!state_->config.bus_master_enabled()) return stored;
    state_->config.put_back(*message);
  }
  state_->store_pending_messages();
  return {};
}

}  // namespace tandem::pcie
