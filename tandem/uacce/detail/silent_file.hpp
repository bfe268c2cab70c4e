// SPDX-License-Identifier: Apache-2.0
/// A FUSE server that never answers a read. For tests.
#pragma once

#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tandem/base/mapping.hpp"

namespace tandem::uacce::detail {

/// Serves one file on a FUSE device as far as mmap() needs it; reads of it are received and never
/// answered. Returns when it is unmounted.
inline void serve_silently(int device) {
  std::vector<char> buffer(std::size_t{1} << 18);
  while (true) {
    const ssize_t got = ::read(device, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;  // unmounted
    fuse_in_header in;
    std::memcpy(&in, buffer.data(), sizeof in);
    const auto reply = [&](const auto& body) {
      std::vector<char> out(sizeof(fuse_out_header) + sizeof body);
      const fuse_out_header header{static_cast<std::uint32_t>(out.size()), 0, in.unique};
      std::memcpy(out.data(), &header, sizeof header);
      std::memcpy(out.data() + sizeof header, &body, sizeof body);
      (void)!::write(device, out.data(), out.size());
    };
    const auto attributes = [](std::uint64_t node) {
      fuse_attr attr{};
      attr.ino = node;
      attr.mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644;
      attr.nlink = 1;
      attr.size = node == 1 ? 0 : kPageSize;
      return attr;
    };
    if (in.opcode == FUSE_INIT) {
      fuse_init_out init{};
      init.major = FUSE_KERNEL_VERSION;
      init.minor = FUSE_KERNEL_MINOR_VERSION;
      init.max_write = kPageSize;
      reply(init);
    } else if (in.opcode == FUSE_LOOKUP) {
      fuse_entry_out entry{};
      entry.nodeid = 2;
      entry.attr = attributes(2);
      reply(entry);
    } else if (in.opcode == FUSE_GETATTR) {
      fuse_attr_out attr{};
      attr.attr = attributes(in.nodeid);
      reply(attr);
    } else if (in.opcode == FUSE_OPEN) {
      reply(fuse_open_out{});
    } else if (in.opcode != FUSE_READ && in.opcode != FUSE_FORGET &&
               in.opcode != FUSE_BATCH_FORGET && in.opcode != FUSE_DESTROY) {
      const fuse_out_header unknown{sizeof unknown, -ENOSYS, in.unique};
      (void)!::write(device, &unknown, sizeof unknown);
    }
  }
}

}  // namespace tandem::uacce::detail
