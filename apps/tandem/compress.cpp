// SPDX-License-Identifier: Apache-2.0
/// tandem compress, tandem decompress.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>

#include "apps/options/options.hpp"
#include "apps/tandem/cli.hpp"
#include "apps/tandem/codec.hpp"
#include "apps/tandem/output_file.hpp"

namespace tandem::cli {
namespace {

struct Settings {
  bool decompress = false;
  bool to_stdout = false, keep = false, force = false, test = false, quiet = false, verbose = false;
  std::array<bool, 10> levels{};
  std::string output;
  std::vector<std::string> files;

  unsigned level() const {
    for (unsigned i = 9; i > 0; --i) {
      if (levels[i]) return i;
    }
    return 1;
  }
};

constexpr std::string_view kCompressExamples = R"(
Examples:
  tandem compress big.tar                big.tar.gz replaces big.tar
  tandem compress -k -9 *.log            small; the logs stay
  tar c dir | tandem compress >dir.tgz   as a filter
)";
constexpr std::string_view kDecompressExamples = R"(
Examples:
  tandem decompress big.tar.gz                 big.tar replaces big.tar.gz
  tandem decompress -c big.tar.gz | tar t      as a filter; the file stays
  tandem decompress -t big.tar.gz              check, write nothing
)";
constexpr std::string_view kNotes = R"(
gzip, gunzip and zlib read what this writes, and it reads what they write.
Exit status: 0 ok, 1 failure, 2 usage, 3 not found, 4 denied, 5 broker
unreachable, 6 done, but what followed the compressed data was ignored.
After 1 to 5 the source file is as it was.)";

struct Suffix {
  std::string_view from, to;
};
constexpr std::array<Suffix, 5> kSuffixes{
    {{".gz", ""}, {".tgz", ".tar"}, {".taz", ".tar"}, {"-gz", ""}, {".z", ""}}};

std::optional<std::string> name_without_suffix(const std::string& name) {
  for (const auto& [from, to] : kSuffixes) {
    if (name.size() > from.size() && name.ends_with(from) &&
        name[name.size() - from.size() - 1] != '/') {
      return name.substr(0, name.size() - from.size()) + std::string(to);
    }
  }
  return std::nullopt;
}

/// Whether a regular file does; its offset stays.
bool begins_as_gzip(int fd) {
  std::array<unsigned char, 2> magic{};
  return ::pread(fd, magic.data(), magic.size(), 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b;
}

/// What one run of the command keeps: the device is opened for the first file that needs it.
class Job {
 public:
  explicit Job(const Settings& settings) : settings_(settings) {}

  ExitCode one(const std::string& name);

 private:
  ExitCode fail(const Failure& failure) {
    report(failure);
    return failure.code;
  }
  Result<Totals, Failure> transfer(const std::string& name, int from, int to, std::uint32_t mtime);
  ExitCode finish(const std::string& name, const Totals& totals) const;
  ExitCode filter(const std::string& name, int from, std::uint32_t mtime);
  ExitCode replace(const std::string& name, const UniqueFd& from, const struct stat& source);
  Result<std::string, Failure> output_name(const std::string& name, int from) const;

  const Settings& settings_;
  std::unique_ptr<Codec> codec_;
  std::chrono::steady_clock::time_point started_;
};

Result<Totals, Failure> Job::transfer(const std::string& name, int from, int to,
                                      std::uint32_t mtime) {
  started_ = std::chrono::steady_clock::now();
  if (codec_ == nullptr) {
    auto codec = Codec::open();
    if (!codec) return Unexpected{codec.error()};
    codec_ = std::move(*codec);
  }
  auto totals = settings_.decompress ? codec_->decompress(name, from, settings_.test ? -1 : to,
                                                          settings_.force && settings_.to_stdout)
                                     : codec_->compress(name, from, to, settings_.level(), mtime);
  if (!totals) codec_.reset();  // blocks may be in flight: the next file starts afresh
  return totals;
}

ExitCode Job::finish(const std::string& name, const Totals& totals) const {
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started_;
  if (settings_.verbose) {
    const auto raw = static_cast<double>(settings_.decompress ? totals.out : totals.in);
    const auto packed = static_cast<double>(settings_.decompress ? totals.in : totals.out);
    narrate("tandem: {}: {} {} {} ({:.1f} %), {:.0f} MB/s on {}\n", name,
            human_bytes(static_cast<double>(totals.in)), settings_.test ? "tested," : "to",
            human_bytes(static_cast<double>(totals.out)), raw > 0 ? 100 * packed / raw : 0.0,
            raw / 1e6 / std::max(took.count(), 1e-9), codec_->where());
  }
  if (!totals.trailing_garbage) return kOk;
  if (!settings_.quiet) warn(name + ": what follows the compressed data was ignored");
  return kDegraded;
}

ExitCode Job::filter(const std::string& name, int from, std::uint32_t mtime) {
  if (!settings_.decompress && !settings_.force && ::isatty(STDOUT_FILENO) == 1) {
    return fail({kUsage, "compressed data is not for a terminal; try: -f, or > FILE"});
  }
  const auto totals = transfer(name, from, STDOUT_FILENO, mtime);
  if (!totals) return fail(totals.error());
  return finish(name, *totals);
}

Result<std::string, Failure> Job::output_name(const std::string& name, int from) const {
  if (!settings_.output.empty()) return settings_.output;
  if (!settings_.decompress) {
    if (name_without_suffix(name) && !settings_.force) {
      return Unexpected{Failure{kFailure, name + ": looks compressed already; try: -f"}};
    }
    return name + ".gz";
  }
  auto output = name_without_suffix(name);
  if (!output && !begins_as_gzip(from)) {
    return Unexpected{Failure{
        kFailure, fmt::format("{}: not in gzip format; try: tandem compress {}", name, name)}};
  }
  if (!output) {
    return Unexpected{Failure{
        kFailure,
        fmt::format("{}: does not end in .gz; try: tandem decompress -c {} >FILE", name, name)}};
  }
  return *output;
}

ExitCode Job::replace(const std::string& name, const UniqueFd& from, const struct stat& source) {
  const auto output_path = output_name(name, from.get());
  if (!output_path) return fail(output_path.error());
  struct stat there {};
  if (::lstat(output_path->c_str(), &there) == 0 && there.st_dev == source.st_dev &&
      there.st_ino == source.st_ino) {
    return fail({kUsage, *output_path + ": is the source itself; try: -o another name"});
  }
  auto output = OutputFile::create(*output_path, settings_.force, "-c");
  if (!output) return fail(output.error());
  const auto totals =
      transfer(name, from.get(), output->fd(), static_cast<std::uint32_t>(source.st_mtim.tv_sec));
  if (!totals) return fail(totals.error());
  const bool remove = !settings_.keep && settings_.output.empty();
  if (const auto failure = output->commit(source, remove)) return fail(*failure);
  if (remove && ::unlink(name.c_str()) != 0) return fail(from_errno(name, errno));
  return finish(name, *totals);
}

ExitCode Job::one(const std::string& name) {
  if (name == "-") {
    if (settings_.decompress && !settings_.force && ::isatty(STDIN_FILENO) == 1) {
      return fail({kUsage, "compressed data does not come from a terminal; try: tandem --help"});
    }
    return filter("standard input", STDIN_FILENO, 0);
  }
  std::string path = name;
  // Links, and names of several links, are followed only where nothing is replaced.
  const bool replaces = !settings_.to_stdout && !settings_.test;
  const int link = replaces && !settings_.force ? O_NOFOLLOW : 0;
  UniqueFd from(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | link));
  if (!from && errno == ENOENT && settings_.decompress && !name_without_suffix(name)) {
    path += ".gz";
    from.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | link));
    if (!from && errno == ENOENT) path = name;
  }
  if (!from && errno == ELOOP && link != 0) {
    return fail({kFailure, path + ": is a symbolic link; try: -f"});
  }
  if (!from) return fail(from_errno(path, errno));
  struct stat source {};
  if (::fstat(from.get(), &source) != 0) return fail(from_errno(path, errno));
  if (S_ISDIR(source.st_mode)) {
    return fail(
        {kFailure, fmt::format("{}: is a directory; try: tar c {} | tandem compress", path, path)});
  }
  const int flags = ::fcntl(from.get(), F_GETFL);
  ::fcntl(from.get(), F_SETFL, flags & ~O_NONBLOCK);  // it only kept open() from waiting
  if (!replaces) {
    return settings_.test || settings_.to_stdout
               ? filter(path, from.get(), static_cast<std::uint32_t>(source.st_mtim.tv_sec))
               : kOk;
  }
  if (!S_ISREG(source.st_mode)) return fail({kFailure, path + ": is not a regular file; try: -c"});
  if (source.st_nlink > 1 && !settings_.force && !settings_.keep && settings_.output.empty()) {
    return fail({kFailure,
                 fmt::format("{}: has {} other names; try: -k or -f", path, source.st_nlink - 1)});
  }
  return replace(path, from, source);
}

int run(Settings& settings) {
  if (settings.levels[0]) return report({kUsage, "levels are -1 to -9; try: -9"});
  if (settings.files.empty()) settings.files.emplace_back("-");
  if (settings.test) settings.decompress = true;
  if (!settings.output.empty() &&
      (settings.files.size() > 1 || settings.to_stdout || settings.files.front() == "-")) {
    return report({kUsage, "-o is for one file; try: -c, or > FILE"});
  }
  Job job(settings);
  ExitCode worst = kOk;
  for (const std::string& name : settings.files) {
    const ExitCode code = job.one(name);
    // A failure outweighs "done, but"; otherwise the first counts.
    if (worst == kOk || (worst == kDegraded && code != kOk)) worst = code;
  }
  return worst;
}

}  // namespace

void add_compress(const Command& app) {
  for (const bool decompress : {false, true}) {
    auto settings = std::make_shared<Settings>();
    settings->decompress = decompress;
    const Command command =
        decompress ? app.subcommand("decompress", "Inflate .gz files, or standard input")
                   : app.subcommand("compress", "Compress files, or standard input, as gzip");
    command.option("FILE", settings->files, "files; none or -: standard input");
    command.flag("-c,--stdout", settings->to_stdout, "write to standard output, keep files");
    command.flag("-d,--decompress", settings->decompress, "inflate");
    command.flag("-k,--keep", settings->keep, "keep the source files");
    command.flag("-t,--test", settings->test, "check compressed files, write nothing");
    command.flag("-f,--force", settings->force, "replace files, follow links, write to a terminal");
    command.option("-o,--output", settings->output, "write this file, keep the source")
        .text("PATH")
        .check(not_empty());
    command.flag("-q,--quiet", settings->quiet, "no warnings");
    command.flag("-v,--verbose", settings->verbose, "sizes, speed and where it ran");
    if (!decompress) {
      // -0 is told, not taken for the name of a file.
      for (unsigned level = 0; level <= 9; ++level) {
        const char* text = level == 1   ? "fastest (default); -2 to -8 lie between"
                           : level == 9 ? "smallest"
                                        : "";
        const Option option =
            command.flag(fmt::format("-{}", level), settings->levels[level], text);
        if (level != 1 && level != 9) option.hidden();
      }
    }
    command.footer(
        fmt::format("{}{}", decompress ? kDecompressExamples : kCompressExamples, kNotes));
    command.help_column(22);
    command.action([settings] { return run(*settings); });
  }
}

}  // namespace tandem::cli
