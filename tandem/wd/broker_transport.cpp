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

#include "tandem/wd/detail/trust.hpp"

namespace tandem::wd::detail {
namespace {

constexpr std::size_t kMaxFds = 2;

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

Result<std::unique_ptr<Transport>> BrokerTransport::create(const std::string& path, Ledger& ledger,
                                                           std::chrono::milliseconds patience) {
  auto socket = connect_to_trusted(path);
  if (!socket) {
    return socket.error().value() == ENOENT ? errno_error(ECONNREFUSED)
                                            : Unexpected{socket.error()};
  }
  const timeval to_send{patience.count() / 1000, patience.count() % 1000 * 1000};
  ::setsockopt(socket->get(), SOL_SOCKET, SO_SNDTIMEO, &to_send, sizeof to_send);
  std::unique_ptr<BrokerTransport> transport(
      new BrokerTransport(ledger, std::move(*socket), patience));
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
  // Another process that shares this memory (vfork(), CLONE_VM): the broker would not answer.
  if (::getpid() != pid_) return errno_error(EPERM);
  const MutexLock lock(mutex_);
  if (broken_.load(std::memory_order_relaxed)) return errno_error(ESHUTDOWN);
  return exchange_locked(type, body, fds, reply, fd_count);
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
  return failed(errno);
}

Unexpected<std::error_code> BrokerTransport::failed(int error) {
  if (gone(error)) {
    broken_.store(true, std::memory_order_relaxed);
    return errno_error(ESHUTDOWN);
  }
  return errno_error(error == EAGAIN ? ETIMEDOUT : error);
}

/// One message, whoever it is for, or ETIMEDOUT.
Result<BrokerTransport::Message> BrokerTransport::receive_locked(Clock::time_point deadline) {
  Message got;
  iovec part{got.bytes.data(), got.bytes.size()};
  ssize_t length = -1;
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd readable{socket_, POLLIN, 0};
    const int ready = ::poll(&readable, 1, static_cast<int>(std::max<std::int64_t>(left, 0)));
    if (ready == 0) return errno_error(ETIMEDOUT);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return failed(errno);
    alignas(cmsghdr) char control[256] = {};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    length = ::recvmsg(socket_, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (length < 0 && (errno == EINTR || errno == EAGAIN)) continue;  // a child may have read it
    if (length < 0) return failed(errno);
    got.flags = message.msg_flags;
    got.answer.fd_count = take_fds(message, got.answer.fds);
    break;
  }
  if (length == 0) return failed(EPIPE);
  got.size = static_cast<std::size_t>(length);
  if (got.size >= sizeof got.header) {
    std::memcpy(&got.header, got.bytes.data(), sizeof got.header);
  }
  return got;
}

/// What a request that we gave up has made after all is given back; nobody waits for the answer.
void BrokerTransport::undo_locked(const Message& late) {
  if (late.header.status != 0 || (late.flags & MSG_TRUNC) != 0) return;
  const std::byte* const body = late.bytes.data() + sizeof late.header;
  const std::size_t size = late.size - std::min(late.size, sizeof late.header);
  if (late.header.type == TANDEM_MSG_OPEN && size == sizeof(tandem_open_reply)) {
    tandem_open_reply reply;
    std::memcpy(&reply, body, sizeof reply);
    (void)request_locked(TANDEM_MSG_PUT, bytes_of(tandem_queue_message{reply.queue, 0}), {});
  } else if (late.header.type == TANDEM_MSG_RESERVE && size == sizeof(tandem_reserve_reply)) {
    tandem_reserve_reply reply;
    std::memcpy(&reply, body, sizeof reply);
    (void)request_locked(TANDEM_MSG_RELEASE, bytes_of(tandem_attach{reply.id, 0}), {});
  }
}

/// Returns the request's sequence number.
Result<std::uint32_t> BrokerTransport::request_locked(std::uint32_t type,
                                                      std::span<const std::byte> body,
                                                      std::span<const int> fds) {
  const auto size = static_cast<std::uint32_t>(sizeof(tandem_message_header) + body.size());
  const tandem_message_header header{type, size, ++sequence_, 0};
  if (auto sent = send_locked(bytes_of(header), body, fds); !sent) {
    return Unexpected{sent.error()};
  }
  return header.sequence;
}

Result<BrokerTransport::Answer> BrokerTransport::exchange_locked(std::uint32_t type,
                                                                 std::span<const std::byte> body,
                                                                 std::span<const int> fds,
                                                                 std::span<std::byte> reply,
                                                                 std::size_t fd_count) {
  const auto deadline = Clock::now() + patience_;
  const auto sequence = request_locked(type, body, fds);
  if (!sequence) return Unexpected{sequence.error()};
  for (;;) {
    auto got = receive_locked(deadline);
    if (!got) return Unexpected{got.error()};
    const tandem_message_header& header = got->header;
    if (header.sequence != *sequence || header.type != type) {
      // A late answer to what was given up; or to a forked child, which has our socket too and no
      // business on it.
      undo_locked(*got);
      continue;
    }
    if ((got->flags & MSG_CTRUNC) != 0) return errno_error(EMFILE);
    if (header.status < 0) return errno_error(header.status > -4096 ? -header.status : EPROTO);
    if (header.status > 0 || header.size != got->size || (got->flags & MSG_TRUNC) != 0 ||
        got->size != sizeof header + reply.size() || got->answer.fd_count != fd_count) {
      broken_.store(true, std::memory_order_relaxed);
      return errno_error(EPROTO);
    }
    if (!reply.empty()) {
      std::memcpy(reply.data(), got->bytes.data() + sizeof header, reply.size());
    }
    return std::move(got->answer);
  }
}

Result<tandem_open_reply> BrokerTransport::open(const std::string& algorithm, std::uint32_t depth) {
  tandem_open request{};
  if (algorithm.size() >= sizeof request.algorithm) return errno_error(EINVAL);
  std::memcpy(request.algorithm, algorithm.data(), algorithm.size());
  request.depth = depth;
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
