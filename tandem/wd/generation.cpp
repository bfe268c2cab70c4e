// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/generation.hpp"

#include <sys/mman.h>

#include <new>

#include "tandem/base/mapping.hpp"

namespace tandem::wd::detail {

Result<GenerationWord*> GenerationWord::create() {
  auto page = Mapping::anonymous(kPageSize);
  if (!page) return Unexpected{page.error()};
  if (::madvise(page->data(), kPageSize, MADV_WIPEONFORK) != 0) return last_errno();
  auto* word = ::new (page->data()) GenerationWord;
  page->release();
  return word;
}

}  // namespace tandem::wd::detail
