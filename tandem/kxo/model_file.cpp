// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cstring>
#include <string>

#include "tandem/kxo/notation.hpp"
#include "tandem/kxo/value_model.hpp"
#include "tandem/kxo/whole_file.hpp"

namespace tandem::kxo {
namespace {

static_assert(std::endian::native == std::endian::little);

struct Header {
  char magic[8] = {'t', 'n', 'd', 'm', 'k', 'x', 'o', '\n'};
  std::uint32_t version = 1;
  std::uint32_t kind = 0;
  std::uint32_t width = 0, height = 0, goal = 0;
  std::uint32_t reserved = 0;
  std::uint64_t games = 0;
  std::uint64_t count = 0;
};
static_assert(sizeof(Header) == 48);

using Checksum = std::uint64_t;
/// More than any model of a board of 64 cells has.
constexpr std::uint64_t kMostWords = std::uint64_t{1} << 28;

template <class T>
void append(std::string& bytes, const T* data, std::size_t count) {
  bytes.append(reinterpret_cast<const char*>(data), count * sizeof(T));
}

Unexpected<std::string> fail(const std::string& path, const std::string& why) {
  return Unexpected{path + ": " + why};
}

/// The game that a file says it is about.
Result<Rules> rules_of(const Header& header) {
  const auto side = [](std::uint32_t word) { return static_cast<int>(word <= 64 ? word : 0); };
  return Rules::make(side(header.width), side(header.height), side(header.goal));
}

}  // namespace

Result<void, std::string> save_model(const std::string& path, const ValueModel& model,
                                     std::uint64_t games) {
  return write_whole_file(path, model_bytes(model.rules(), model.kind(), model.save(), games));
}

std::string model_bytes(const Rules& rules, ValueModel::Kind kind,
                        const std::vector<std::uint32_t>& words, std::uint64_t games) {
  Header header;
  header.kind = static_cast<std::uint32_t>(kind);
  header.width = static_cast<std::uint32_t>(rules.width());
  header.height = static_cast<std::uint32_t>(rules.height());
  header.goal = static_cast<std::uint32_t>(rules.goal());
  header.games = games;
  header.count = words.size();
  std::string bytes;
  bytes.reserve(sizeof header + words.size() * 4 + sizeof(Checksum));
  append(bytes, &header, 1);
  append(bytes, words.data(), words.size());
  const Checksum sum = fnv1a(bytes);
  append(bytes, &sum, 1);
  return bytes;
}

Result<TrainedModel, std::string> load_model(const std::string& path) {
  Header header;
  const std::string_view magic(header.magic, sizeof header.magic);
  const auto bytes =
      read_whole_file(path, sizeof(Header) + kMostWords * 4 + sizeof(Checksum), magic);
  if (!bytes) return Unexpected{bytes.error()};
  if (!bytes->starts_with(magic)) return fail(path, "is no model of kxo");
  if (bytes->size() < sizeof header) return fail(path, "is cut short");
  std::memcpy(&header, bytes->data(), sizeof header);
  if (header.version != 1) {
    return fail(path, "has version " + std::to_string(header.version) + ", known is 1");
  }
  if (header.count > kMostWords) return fail(path, "is damaged");
  const std::size_t end = sizeof header + header.count * 4;
  if (bytes->size() != end + sizeof(Checksum)) {
    return fail(path, bytes->size() < end + sizeof(Checksum) ? "is cut short" : "is too long");
  }
  Checksum sum = 0;
  std::memcpy(&sum, bytes->data() + end, sizeof sum);
  if (sum != fnv1a(std::string_view(*bytes).substr(0, end))) return fail(path, "is damaged");
  const auto rules = rules_of(header);
  if (!rules) return fail(path, "is of no game");
  TrainedModel trained{ValueModel::make(*rules), header.games};
  std::vector<std::uint32_t> words(header.count);
  std::memcpy(words.data(), bytes->data() + sizeof header, header.count * 4);
  if (header.kind != static_cast<std::uint32_t>(trained.model->kind()) ||
      !trained.model->load(words)) {
    return fail(path, "does not fit the game");
  }
  return trained;
}

Result<TrainedModel, std::string> load_model(const std::string& path, const Rules& rules) {
  auto trained = load_model(path);
  if (!trained || trained->model->rules() == rules) return trained;
  const std::string game = game_name(trained->model->rules());
  return fail(path, "is a model of " + game + ", not of " + game_name(rules));
}

}  // namespace tandem::kxo
