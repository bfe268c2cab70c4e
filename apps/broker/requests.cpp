// SPDX-License-Identifier: Apache-2.0
#include "apps/broker/requests.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

namespace tandem::broker {
namespace {

template <class T>
T read_body(std::span<const std::byte> body) {
  T value{};
  std::memcpy(&value, body.data(), std::min(sizeof value, body.size()));
  return value;
}

/// The text of a fixed field; nothing when it is not terminated.
template <std::size_t kSize>
std::optional<std::string> text_of(const char (&field)[kSize]) {
  const void* end = std::memchr(field, '\0', kSize);
  if (end == nullptr) return std::nullopt;
  return std::string(field);
}

template <std::size_t kSize>
void set_text(char (&field)[kSize], const std::string& text) {
  std::memset(field, 0, kSize);
  std::memcpy(field, text.data(), std::min(text.size(), kSize - 1));
}

Outgoing status_of(const Result<void>& result) {
  return result ? Outgoing() : Outgoing(-result.error().value());
}

Outgoing with_descriptor(Result<UniqueFd> result) {
  if (!result) return Outgoing(-result.error().value());
  Outgoing reply;
  reply.descriptors.push_back(std::move(*result));
  return reply;
}

Outgoing serve_devices(uacce::Framework& framework, const tandem_devices& request) {
  const auto devices = framework.devices();
  if (request.reserved != 0) return Outgoing(-EINVAL);
  if (request.index >= devices.size()) return Outgoing(-ENOENT);
  Outgoing reply;
  reply.set_body(devices[request.index]);
  return reply;
}

Outgoing serve_open(uacce::Client& client, const tandem_open& request) {
  const auto algorithm = text_of(request.algorithm);
  if (!algorithm || request.flags != 0) return Outgoing(-EINVAL);
  const auto queue = client.open(*algorithm, request.depth);
  if (!queue) return Outgoing(-queue.error().value());
  tandem_open_reply body{};
  set_text(body.device, queue->device);
  body.queue = queue->queue;
  body.depth = queue->depth;
  body.device_flags = queue->device_flags;
  body.region_mmio_size = queue->region_mmio_size;
  body.region_dus_size = queue->region_dus_size;
  Outgoing reply;
  reply.set_body(body);
  return reply;
}

Outgoing serve_reserve(uacce::Client& client, const tandem_reserve& request) {
  auto memory = client.reserve(request.size);
  if (!memory) return Outgoing(-memory.error().value());
  Outgoing reply;
  reply.set_body(tandem_reserve_reply{memory->id, memory->size_bytes});
  reply.descriptors.push_back(std::move(memory->fd));
  return reply;
}

Outgoing serve_any(uacce::Framework& framework, uacce::Client& client, std::uint32_t type,
                   std::span<const std::byte> body) {
  switch (type) {
    case TANDEM_MSG_DEVICES:
      return serve_devices(framework, read_body<tandem_devices>(body));
    case TANDEM_MSG_OPEN:
      return serve_open(client, read_body<tandem_open>(body));
    case TANDEM_MSG_MAP: {
      const auto request = read_body<tandem_map>(body);
      return with_descriptor(client.map(request.queue, request.region, request.size));
    }
    case TANDEM_MSG_START:
      return status_of(client.start(read_body<tandem_queue_message>(body).queue));
    case TANDEM_MSG_PUT:
      return status_of(client.put(read_body<tandem_queue_message>(body).queue));
    case TANDEM_MSG_HOLD: {
      const auto request = read_body<tandem_queue_message>(body);
      if (request.value > 1) return Outgoing(-EINVAL);
      return status_of(client.hold(request.queue, request.value == 1));
    }
    case TANDEM_MSG_EVENT:
      return with_descriptor(client.event(read_body<tandem_queue_message>(body).queue));
    case TANDEM_MSG_RESERVE:
      return serve_reserve(client, read_body<tandem_reserve>(body));
    case TANDEM_MSG_ATTACH: {
      const auto request = read_body<tandem_attach>(body);
      return status_of(client.attach_reserved(request.id, request.address));
    }
    case TANDEM_MSG_DETACH:
      return status_of(client.detach_reserved(read_body<tandem_attach>(body).id));
    case TANDEM_MSG_RELEASE:
      return status_of(client.release_reserved(read_body<tandem_attach>(body).id));
    case TANDEM_MSG_STATS: {
      Outgoing reply;
      reply.set_body(client.stats());
      return reply;
    }
    default:
      return Outgoing(-EPROTO);  // HELLO, a second time
  }
}

}  // namespace

std::optional<std::size_t> request_body_size(std::uint32_t type) {
  switch (type) {
    case TANDEM_MSG_HELLO:
      return sizeof(tandem_hello);
    case TANDEM_MSG_DEVICES:
      return sizeof(tandem_devices);
    case TANDEM_MSG_OPEN:
      return sizeof(tandem_open);
    case TANDEM_MSG_MAP:
      return sizeof(tandem_map);
    case TANDEM_MSG_START:
    case TANDEM_MSG_PUT:
    case TANDEM_MSG_HOLD:
    case TANDEM_MSG_EVENT:
      return sizeof(tandem_queue_message);
    case TANDEM_MSG_RESERVE:
      return sizeof(tandem_reserve);
    case TANDEM_MSG_ATTACH:
    case TANDEM_MSG_DETACH:
    case TANDEM_MSG_RELEASE:
      return sizeof(tandem_attach);
    case TANDEM_MSG_STATS:
      return 0;
    default:
      return std::nullopt;
  }
}

bool may_wait(std::uint32_t type) {
  return type == TANDEM_MSG_PUT || type == TANDEM_MSG_RELEASE || type == TANDEM_MSG_DETACH;
}

int check_form(const Incoming& incoming) {
  const tandem_message_header header = incoming.header();
  if (incoming.size_bytes < sizeof header) return -EBADMSG;
  const auto body_size = request_body_size(header.type);
  if (!body_size) return -EPROTO;
  if (incoming.size_bytes != sizeof header + *body_size || header.size != incoming.size_bytes) {
    return -EBADMSG;
  }
  const bool may_carry = header.type == TANDEM_MSG_HELLO;
  if (incoming.descriptors_cut || (incoming.descriptor_count > 0 && !may_carry)) return -EPROTO;
  return 0;
}

Outgoing serve(uacce::Framework& framework, uacce::Client& client, std::uint32_t type,
               std::span<const std::byte> body) {
  try {
    return serve_any(framework, client, type, body);
  } catch (const std::bad_alloc&) {
    return Outgoing(-ENOMEM);
  }
}

int check_hello(const tandem_hello& hello, std::size_t descriptor_count) {
  if (hello.version_min > TANDEM_PROTOCOL_MAX || hello.version_max < TANDEM_PROTOCOL_MIN ||
      hello.version_min > hello.version_max) {
    return -EPROTONOSUPPORT;
  }
  const bool reserved_only = (hello.flags & TANDEM_HELLO_RESERVED_ONLY) != 0;
  if (descriptor_count != (reserved_only ? 0u : 2u)) return -EPROTO;
  constexpr auto kKnown = TANDEM_HELLO_RESERVED_ONLY;
  if ((hello.flags & ~kKnown) != 0 || hello.reserved != 0) return -EINVAL;
  return static_cast<int>(std::min(hello.version_max, TANDEM_PROTOCOL_MAX));
}

Result<std::unique_ptr<uacce::Client>> bind_client(uacce::Framework& framework,
                                                   std::uint32_t tenant, std::uint32_t user,
                                                   const tandem_hello& hello, UniqueFd mem,
                                                   UniqueFd maps) {
  uacce::MmAccess access;
  const bool with_memory = (hello.flags & TANDEM_HELLO_RESERVED_ONLY) == 0;
  if (with_memory) {
    access.kind = uacce::MmAccess::Kind::kDescriptors;
    access.mem = std::move(mem);
    access.maps = std::move(maps);
  }
  auto client = framework.connect(tenant, std::move(access), user);
  if (!client || !with_memory) return client;
  std::uint8_t found[sizeof hello.nonce] = {};
  if (!(*client)->read_memory(hello.nonce_address, std::as_writable_bytes(std::span(found))) ||
      std::memcmp(found, hello.nonce, sizeof found) != 0) {
    return errno_error(EACCES);
  }
  return client;
}

}  // namespace tandem::broker
