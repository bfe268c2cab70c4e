// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/message.hpp"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tandem::broker {

tandem_message_header Incoming::header() const {
  tandem_message_header header{};
  std::memcpy(&header, bytes.data(), std::min(size_bytes, sizeof header));
  return header;
}

std::span<const std::byte> Incoming::body() const {
  const std::size_t stored = std::min(size_bytes, bytes.size());
  if (stored <= sizeof(tandem_message_header)) return {};
  return std::span(bytes).subspan(sizeof(tandem_message_header),
                                  stored - sizeof(tandem_message_header));
}

Incoming receive(int socket) noexcept {
  Incoming incoming;
  iovec part{incoming.bytes.data(), incoming.bytes.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(ucred)) +
                                             CMSG_SPACE(Incoming::kMaxDescriptors * sizeof(int))>
      control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t size = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
  if (size < 0) {
    const bool later = errno == EAGAIN || errno == EINTR;
    incoming.outcome = later ? Incoming::Outcome::kNothing : Incoming::Outcome::kHangUp;
    return incoming;
  }
  incoming.size_bytes = static_cast<std::size_t>(size);
  incoming.descriptors_cut = (message.msg_flags & MSG_CTRUNC) != 0;
  for (cmsghdr* part_header = CMSG_FIRSTHDR(&message); part_header != nullptr;
       part_header = CMSG_NXTHDR(&message, part_header)) {
    if (part_header->cmsg_level != SOL_SOCKET) continue;
    if (part_header->cmsg_type == SCM_CREDENTIALS) {
      ucred sender{};
      std::memcpy(&sender, CMSG_DATA(part_header), sizeof sender);
      incoming.sender = sender;
    } else if (part_header->cmsg_type == SCM_RIGHTS) {
      const std::size_t count = (part_header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part_header) + i * sizeof(int), sizeof fd);
        UniqueFd owned(fd);
        if (incoming.descriptor_count < Incoming::kMaxDescriptors) {
          incoming.descriptors[incoming.descriptor_count++] = std::move(owned);
        } else {
          incoming.descriptors_cut = true;
        }
      }
    }
  }
  // An end of file has no sender; an empty message has one.
  incoming.outcome =
      size == 0 && !incoming.sender ? Incoming::Outcome::kHangUp : Incoming::Outcome::kMessage;
  return incoming;
}

bool send_reply(int socket, const tandem_message_header& request, const Outgoing& reply) noexcept {
  const bool good = reply.status == 0;
  tandem_message_header header{};
  header.type = request.type;
  header.size = static_cast<std::uint32_t>(sizeof header + (good ? reply.body_size : 0));
  header.sequence = request.sequence;
  header.status = reply.status;
  std::array<iovec, 2> parts{iovec{&header, sizeof header},
                             iovec{const_cast<std::byte*>(reply.body.data()), reply.body_size}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = good && reply.body_size > 0 ? 2 : 1;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(Incoming::kMaxDescriptors * sizeof(int))>
      control{};
  if (good && !reply.descriptors.empty()) {
    const std::size_t count = std::min(reply.descriptors.size(), Incoming::kMaxDescriptors);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::array<int, Incoming::kMaxDescriptors> numbers{};
    std::transform(reply.descriptors.begin(),
                   reply.descriptors.begin() + static_cast<std::ptrdiff_t>(count), numbers.begin(),
                   [](const UniqueFd& fd) { return fd.get(); });
    std::memcpy(CMSG_DATA(rights), numbers.data(), count * sizeof(int));
  }
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(header.size);
}

}  // namespace tandem::broker
