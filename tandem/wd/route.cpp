// SPDX-License-Identifier: Apache-2.0
#include "tandem/wd/detail/route.hpp"

#include <cstdlib>
#include <string_view>

#include "tandem/base/cpu.hpp"
#include "tandem/wd/detail/trust.hpp"

namespace tandem::wd::detail {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr const char* kSystemSocket = "/run/tandem/broker.sock";

std::vector<Route> usual_brokers() {
  std::vector<Route> brokers;
  if (runs_secure()) return brokers;
  if (const char* runtime = ::secure_getenv("XDG_RUNTIME_DIR");
      runtime != nullptr && runtime[0] == '/') {
    brokers.push_back({WD_PATH_BROKER, std::string(runtime) + "/tandem/broker.sock"});
  }
  brokers.push_back({WD_PATH_BROKER, kSystemSocket});
  return brokers;
}

Route local_route() { return {usable_cpus() > 1 ? WD_PATH_EMBEDDED : WD_PATH_INLINE, {}}; }

}  // namespace

Result<Routes> choose_routes(std::uint32_t path) {
  if (path > WD_PATH_INLINE) return errno_error(EINVAL);
  const char* const text = ::secure_getenv("TANDEM");
  const std::string_view wish = text == nullptr || text[0] == '\0' ? "auto" : text;
  const bool names_socket = wish.starts_with(kUnix);
  if (names_socket && wish.size() == kUnix.size()) return errno_error(EINVAL);
  if (!names_socket && wish != "auto" && wish != "embedded" && wish != "inline") {
    return errno_error(EINVAL);
  }

  if (path == WD_PATH_EMBEDDED || path == WD_PATH_INLINE) {
    return Routes{{{static_cast<wd_path>(path), {}}}, true};
  }
  if (path == WD_PATH_AUTO && wish == "embedded") return Routes{{{WD_PATH_EMBEDDED, {}}}, true};
  if (path == WD_PATH_AUTO && wish == "inline") return Routes{{{WD_PATH_INLINE, {}}}, true};

  if (!trust_is_understood()) return errno_error(EINVAL);
  if (names_socket) {
    return Routes{{{WD_PATH_BROKER, std::string(wish.substr(kUnix.size()))}}, true};
  }
  if (path == WD_PATH_BROKER) return Routes{usual_brokers(), false};
  Routes routes{usual_brokers(), false};
  routes.candidates.push_back(local_route());
  return routes;
}

}  // namespace tandem::wd::detail
