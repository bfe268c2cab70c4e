// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/broker_transport.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "tandem/base/asymmetric_fence.hpp"
#include "tandem/wd/detail/trust.hpp"

namespace tandem::wd::detail {
namespace {

constexpr timeval kAnswerTimeout{10, 0};
constexpr std::size_t kMaxFds = 2;
constexpr std::size_t kMaxMessage = 1024;
static_assert(sizeof(tandem_message_header) + sizeof(tandem_devices_reply) <= kMaxMessage);

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <class T>
std::span<std::byte> writable(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

/// The descriptors in a received message, owned; those behind `fds` are closed.
std::size_t take_fds(msghdr& message, std::span<UniqueFd> fds) {
  std::size_t count = 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t numbers = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < numbers; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(part) + i * sizeof(int), sizeof number);
      UniqueFd fd(number);
      if (count < fds.size()) fds[count] = std::move(fd);
      ++count;
    }
  }
  return count;
}

bool gone(int error) noexcept {
  return error == EPIPE || error == ECONNRESET || error == ENOTCONN || error == EBADF;
}

/// Terminates at the array's end what should be terminated already.
template <std::size_t N>
void terminate(char (&text)[N]) {
  text[N - 1] = '\0';
}

}  // namespace

Result<std::unique_ptr<Transport>> BrokerTransport::create(const std::string& path,
                                                           Ledger& ledger) {
  auto socket = connect_to_trusted(path);
  if (!socket) {
    return socket.error().value() == ENOENT ? errno_error(ECONNREFUSED)
                                            : Unexpected{socket.error()};
  }
  ::setsockopt(socket->get(), SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof kAnswerTimeout);
  ::setsockopt(socket->get(), SOL_SOCKET, SO_SNDTIMEO, &kAnswerTimeout, sizeof kAnswerTimeout);
  std::unique_ptr<BrokerTransport> transport(new BrokerTransport(ledger, std::move(*socket)));
  if (auto greeted = transport->hello(); !greeted) return Unexpected{greeted.error()};
  return std::unique_ptr<Transport>(std::move(transport));
}

BrokerTransport::~BrokerTransport() {
  ledger_.close(wake_);
  ledger_.close(socket_);
}

Result<void> BrokerTransport::hello() {
  tandem_hello request{};
  request.version_min = TANDEM_PROTOCOL_MIN;
  request.version_max = TANDEM_PROTOCOL_MAX;
  const bool registered = register_global_fence();
  if (registered) request.flags |= TANDEM_HELLO_GLOBAL_FENCE;

  UniqueFd mem, maps;
  if (memory_may_be_sent()) {
    mem = UniqueFd(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    maps = UniqueFd(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  }
  reserved_only_ = !mem || !maps;
  std::array<int, 2> fds{mem.get(), maps.get()};
  std::array<std::byte, sizeof request.nonce> nonce{};
  if (reserved_only_) {
    request.flags |= TANDEM_HELLO_RESERVED_ONLY;
  } else {
    if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
      return last_errno();
    }
    request.nonce_address = reinterpret_cast<std::uint64_t>(nonce.data());
    std::memcpy(request.nonce, nonce.data(), nonce.size());
  }
  const auto sent =
      reserved_only_ ? std::span<const int>() : std::span<const int>(fds.data(), fds.size());

  tandem_hello_reply reply{};
  auto answer = exchange(TANDEM_MSG_HELLO, bytes_of(request), sent, writable(reply), 2);
  if (!answer) return Unexpected{answer.error()};
  if (reply.version < TANDEM_PROTOCOL_MIN || reply.version > TANDEM_PROTOCOL_MAX) {
    return errno_error(EPROTO);
  }
  global_fence_ = registered && (reply.flags & TANDEM_HELLO_GLOBAL_FENCE) != 0;
  wake_ = ledger_.add(std::move(answer->fds[0]));
  return adopt_token(answer->fds[1]);
}

Result<void> BrokerTransport::adopt_token(const UniqueFd& token) {
  // A new open file of our own, held by the mapping alone, so that it ends with this mm: a forked
  // child gets neither mapping nor descriptor.
  const std::string path = "/proc/self/fd/" + std::to_string(token.get());
  const UniqueFd own(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!own) return last_errno();
  auto mapping = Mapping::shared(own.get(), kPageSize);
  if (!mapping) return Unexpected{mapping.error()};
  mapping->exclude_from_fork();
  token_ = std::move(*mapping);
  return {};
}

Result<BrokerTransport::Answer> BrokerTransport::exchange(std::uint32_t type,
                                                          std::span<const std::byte> body,
                                                          std::span<const int> fds,
                                                          std::span<std::byte> reply,
                                                          std::size_t fd_count) {
  const MutexLock lock(mutex_);
  if (broken_.load(std::memory_order_relaxed)) return errno_error(ESHUTDOWN);
  auto answer = exchange_locked(type, body, fds, reply, fd_count);
  return answer;
}

Result<void> BrokerTransport::send_locked(std::span<const std::byte> header,
                                          std::span<const std::byte> body,
                                          std::span<const int> fds) {
  iovec parts[] = {{const_cast<std::byte*>(header.data()), header.size()},
                   {const_cast<std::byte*>(body.data()), body.size()}};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  ssize_t sent = 0;
  do sent = ::sendmsg(socket_, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return {};
  const int error = errno;
  broken_.store(true, std::memory_order_relaxed);
  return errno_error(gone(error) ? ESHUTDOWN : error == EAGAIN ? ETIMEDOUT : error);
}

Result<BrokerTransport::Answer> BrokerTransport::exchange_locked(std::uint32_t type,
                                                                 std::span<const std::byte> body,
                                                                 std::span<const int> fds,
                                                                 std::span<std::byte> reply,
                                                                 std::size_t fd_count) {
  const tandem_message_header header{
      type, static_cast<std::uint32_t>(sizeof(tandem_message_header) + body.size()), ++sequence_,
      0};
  if (auto sent = send_locked(bytes_of(header), body, fds); !sent) {
    return Unexpected{sent.error()};
  }

  std::array<std::byte, kMaxMessage> buffer;
  alignas(cmsghdr) char control[256] = {};
  iovec part{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t length = 0;
  do length = ::recvmsg(socket_, &message, MSG_CMSG_CLOEXEC);
  while (length < 0 && errno == EINTR);
  const int error = length < 0 ? errno : 0;
  const auto broken = [this](int number) {
    broken_.store(true, std::memory_order_relaxed);
    return errno_error(number);
  };
  if (length < 0) return broken(gone(error) ? ESHUTDOWN : error == EAGAIN ? ETIMEDOUT : error);

  Answer answer;
  answer.fd_count = take_fds(message, answer.fds);
  if (length == 0) return broken(ESHUTDOWN);
  tandem_message_header got{};
  const auto size = static_cast<std::size_t>(length);
  if (size < sizeof got || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return broken(EPROTO);
  }
  std::memcpy(&got, buffer.data(), sizeof got);
  if (got.sequence != header.sequence || got.type != type || got.size != size || got.status > 0) {
    return broken(EPROTO);
  }
  if (got.status < 0) return errno_error(got.status > -4096 ? -got.status : EPROTO);
  if (size != sizeof got + reply.size() || answer.fd_count != fd_count) return broken(EPROTO);
  if (!reply.empty()) std::memcpy(reply.data(), buffer.data() + sizeof got, reply.size());
  return answer;
}

Result<tandem_open_reply> BrokerTransport::open(const std::string& algorithm, std::uint32_t depth) {
  tandem_open request{};
  if (algorithm.size() >= sizeof request.algorithm) return errno_error(EINVAL);
  std::memcpy(request.algorithm, algorithm.data(), algorithm.size());
  request.depth = depth;
  request.flags = global_fence_ ? TANDEM_OPEN_ASYMMETRIC_FENCE : 0;
  tandem_open_reply reply{};
  auto answer = exchange(TANDEM_MSG_OPEN, bytes_of(request), {}, writable(reply), 0);
  if (!answer) return Unexpected{answer.error()};
  terminate(reply.device);
  return reply;
}

Result<UniqueFd> BrokerTransport::map(std::uint32_t queue, std::uint32_t region,
                                      std::uint64_t size) {
  const tandem_map request{queue, region, size};
  auto answer = exchange(TANDEM_MSG_MAP, bytes_of(request), {}, {}, 1);
  if (!answer) return Unexpected{answer.error()};
  return std::move(answer->fds[0]);
}

Result<void> BrokerTransport::queue_request(std::uint32_t type, std::uint32_t queue,
                                            std::uint32_t value) {
  const tandem_queue_message request{queue, value};
  auto answer = exchange(type, bytes_of(request), {}, {}, 0);
  if (!answer) return Unexpected{answer.error()};
  return {};
}

Result<void> BrokerTransport::start(std::uint32_t queue) {
  return queue_request(TANDEM_MSG_START, queue, 0);
}
Result<void> BrokerTransport::put(std::uint32_t queue) {
  return queue_request(TANDEM_MSG_PUT, queue, 0);
}
Result<void> BrokerTransport::hold(std::uint32_t queue, bool keep_awake) {
  return queue_request(TANDEM_MSG_HOLD, queue, keep_awake ? 1 : 0);
}

Result<UniqueFd> BrokerTransport::event(std::uint32_t queue) {
  const tandem_queue_message request{queue, 0};
  auto answer = exchange(TANDEM_MSG_EVENT, bytes_of(request), {}, {}, 1);
  if (!answer) return Unexpected{answer.error()};
  return std::move(answer->fds[0]);
}

Result<Transport::Reserved> BrokerTransport::reserve(std::uint64_t size_bytes) {
  const tandem_reserve request{size_bytes};
  tandem_reserve_reply reply{};
  auto answer = exchange(TANDEM_MSG_RESERVE, bytes_of(request), {}, writable(reply), 1);
  if (!answer) return Unexpected{answer.error()};
  return Reserved{reply.id, reply.size, std::move(answer->fds[0])};
}

Result<void> BrokerTransport::memory_request(std::uint32_t type, std::uint64_t id,
                                             std::uint64_t address) {
  const tandem_attach request{id, address};
  auto answer = exchange(type, bytes_of(request), {}, {}, 0);
  if (!answer) return Unexpected{answer.error()};
  return {};
}

Result<void> BrokerTransport::attach(std::uint64_t id, std::uint64_t address) {
  return memory_request(TANDEM_MSG_ATTACH, id, address);
}
Result<void> BrokerTransport::release(std::uint64_t id) {
  return memory_request(TANDEM_MSG_RELEASE, id, 0);
}

Result<std::vector<tandem_devices_reply>> BrokerTransport::devices() {
  std::vector<tandem_devices_reply> devices;
  for (std::uint32_t index = 0;; ++index) {
    const tandem_devices request{index, 0};
    tandem_devices_reply reply{};
    auto answer = exchange(TANDEM_MSG_DEVICES, bytes_of(request), {}, writable(reply), 0);
    if (!answer && answer.error().value() == ENOENT) return devices;
    if (!answer) return Unexpected{answer.error()};
    terminate(reply.name);
    terminate(reply.api);
    terminate(reply.algorithms);
    devices.push_back(reply);
  }
}

Result<tandem_stats_reply> BrokerTransport::stats() {
  tandem_stats_reply reply{};
  auto answer = exchange(TANDEM_MSG_STATS, {}, {}, writable(reply), 0);
  if (!answer) return Unexpected{answer.error()};
  return reply;
}

void BrokerTransport::wake() noexcept {
  const std::uint64_t one = 1;
  // A full counter means that the engine has been told already.
  [[maybe_unused]] const ssize_t written = ::write(wake_, &one, sizeof one);
}

bool BrokerTransport::alive() noexcept {
  if (broken_.load(std::memory_order_relaxed)) return false;
  pollfd socket{socket_, POLLRDHUP, 0};
  if (::poll(&socket, 1, 0) > 0 && (socket.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0) {
    broken_.store(true, std::memory_order_relaxed);
  }
  return !broken_.load(std::memory_order_relaxed);
}

}  // namespace tandem::wd::detail
