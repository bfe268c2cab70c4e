// SPDX-License-Identifier: Apache-2.0
/// WarpDrive for C++: queues, operations and results over wd.h.
///
///     auto q = tandem::wd::open("gzip").value();
///     auto n = q.run(wd::Gzip{out, in});            // Result<Done, Error>
///
/// Operations are aggregates over spans; any pointer works, reserved memory only removes faults and
/// copies. Queue is move-only and belongs to one thread at a time. Header-only over the C ABI.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <span>
#include <string>
#include <vector>

#include "tandem/base/result.hpp"
#include "tandem/wd/wd.h"
