// SPDX-License-Identifier: Apache-2.0
/// The compression device: deflate, zlib and gzip, one member per operation, or inflated as a
/// stream.
///
/// An operation fetches its input, runs a codec and commits its output. Level 1 comes from isa-l,
/// level 2 from isa-l's best, 3 … 12 from libdeflate under the same number; one-shot inflate from
/// libdeflate, streams from isa-l. On aarch64 libdeflate makes levels 1 and 2 as well, from a copy.
///
/// | operand                               | how it is reached |
/// |---------------------------------------|-------------------|
/// | input of level 1                      | in place up to 4 MiB, else copied |
/// | input of other levels, and of inflate | copied: the codec must not see it change |
/// | output of level 1, and of inflate     | in place up to 4 MiB, else copied out |
/// | output of other levels                | copied out (it is the smaller side) |
///
/// In place means a Window, and while one is held an unmap in the client waits. So only codecs that
/// finish 4 MiB in milliseconds hold one, and nothing else is accessed under it. A worker's scratch
/// is bounded by TANDEM_MAX_CODEC_BYTES per operand; what exceeds 8 MiB is given back after the
/// operation. detail/codec.hpp argues which codec tolerates memory that changes under it.
///
/// Left out: compression as a stream, preset dictionaries.
#pragma once

#include <memory>
#include <string>

#include "tandem/uacce/device.hpp"

namespace tandem::engine::comp {

/// A device named `name` with the algorithms "deflate", "zlib" and "gzip".
std::unique_ptr<uacce::Engine> make_engine(std::string name = "comp-0");

}  // namespace tandem::engine::comp
