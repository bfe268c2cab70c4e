// SPDX-License-Identifier: Apache-2.0
/// The memory device: copy, fill, compare and CRC-32C.
///
/// Operands go through a private buffer of the worker, chunk by chunk: each byte is fetched once
/// and written once, so memory that changes meanwhile costs nothing but its own content, any length
/// needs the same memory, and a fault is reported at the exact byte.
///
/// Left out: copies between address spaces, patterns longer than 8 bytes, DIF.
#pragma once

#include <memory>
#include <string>

#include "tandem/uacce/device.hpp"

namespace tandem::engine::mem {

/// A device named `name` with the algorithms "memory" and "crc32c".
std::unique_ptr<uacce::Engine> make_engine(std::string name = "mem-0");

}  // namespace tandem::engine::mem
