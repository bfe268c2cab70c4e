// SPDX-License-Identifier: Apache-2.0
#include "tandem/base/planted_fault.hpp"

#include <cstdlib>

#ifdef TANDEM_PLANTED_FAULTS
namespace tandem {

bool planted_fault(std::string_view name) noexcept {
  static const char* const planted = std::getenv("TANDEM_PLANT");
  return planted != nullptr && name == planted;
}

}  // namespace tandem
#endif
