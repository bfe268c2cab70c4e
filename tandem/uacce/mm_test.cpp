// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tandem/base/test_directory.hpp"
#include "tandem/uacce/detail/host.hpp"
#include "tandem/uacce/detail/page_table.hpp"
#include "tandem/uacce/detail/test_process.hpp"

namespace tandem::uacce::detail {
namespace {

using pcie::DmaFault;
using pcie::Iova;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kMiB = std::size_t{1} << 20;

class HostTest : public testing::Test {
 protected:
  void SetUp() override {
    auto host = Host::create();
    ASSERT_TRUE(host) << host.error().message();
    host_ = std::move(*host);
    auto endpoint = host_->add_endpoint();
    ASSERT_TRUE(endpoint) << endpoint.error().message();
    endpoint_ = std::move(*endpoint);
  }
  void TearDown() override {
    if (endpoint_ != nullptr) host_->remove_endpoint(*endpoint_);
  }

  std::shared_ptr<Mm> bind(MmAccess access) {
    auto mm = host_->bind(std::move(access));
    EXPECT_TRUE(mm) << mm.error().message();
    return mm ? *mm : nullptr;
  }
  pcie::DmaResult read(const Mm& mm, std::uint64_t at, std::vector<std::byte>& to) {
    return endpoint_->space(mm.pasid()).read(Iova{at}, to);
  }
  pcie::DmaResult write(const Mm& mm, std::uint64_t at, const std::vector<std::byte>& from) {
    return endpoint_->space(mm.pasid()).write(Iova{at}, from);
  }
  /// Expects `length` bytes of `value` at `at`.
  void expect_bytes(const Mm& mm, std::uint64_t at, std::size_t length, int value) {
    std::vector<std::byte> got(length);
    const auto result = read(mm, at, got);
    ASSERT_TRUE(result.ok()) << std::hex << result.fault->address.value << " reason "
                             << static_cast<int>(result.fault->reason);
    EXPECT_EQ(result.done_bytes, length);
    EXPECT_EQ(got, std::vector<std::byte>(length, static_cast<std::byte>(value)));
  }
  void expect_fault(const pcie::DmaResult& result, std::size_t done, std::uint64_t address) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.done_bytes, done);
    EXPECT_EQ(result.fault->address.value, address);
  }
  void expect_unreadable(const Mm& mm, std::uint64_t at) {
    std::vector<std::byte> bytes(8);
    expect_fault(read(mm, at, bytes), 0, at);
  }

  std::unique_ptr<Host> host_;
  std::unique_ptr<pcie::Endpoint> endpoint_;
};

// ---- Ordinary memory, of another process and of this one ---------------------------------------

class OrdinaryMemory : public HostTest, public testing::WithParamInterface<MmAccess::Kind> {
 protected:
  void SetUp() override {
    if (GetParam() == MmAccess::Kind::kSelf) {
      process_ = std::make_unique<SelfProcess>();
    } else {
      process_ = std::make_unique<ChildProcess>();
    }
    HostTest::SetUp();
    mm_ = bind(process_->access());
    ASSERT_NE(mm_, nullptr);
  }
  void TearDown() override {
    mm_.reset();
    HostTest::TearDown();
  }

  std::unique_ptr<TestProcess> process_;
  std::shared_ptr<Mm> mm_;
};

INSTANTIATE_TEST_SUITE_P(Kind, OrdinaryMemory,
                         testing::Values(MmAccess::Kind::kDescriptors, MmAccess::Kind::kSelf),
                         [](const auto& param) {
                           return param.param == MmAccess::Kind::kSelf ? "Self" : "Descriptors";
                         });

TEST_P(OrdinaryMemory, IsReadAndWrittenByItsOwnAddresses) {
  const auto at = process_->map(64 * kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, 64 * kPage, 0x5a);
  expect_bytes(*mm_, at + 100, 3 * kPage, 0x5a);
  EXPECT_TRUE(write(*mm_, at + 5000, std::vector<std::byte>(20000, std::byte{0x77})).ok());
  const std::vector<std::byte> edge = {std::byte{0x5a}, std::byte{0x77}};
  EXPECT_EQ(process_->peek(at + 4999, 2), edge);
  EXPECT_EQ(process_->peek(at + 24999, 1)[0], std::byte{0x77});
  EXPECT_EQ(process_->peek(at + 25000, 1)[0], std::byte{0x5a});
  EXPECT_GT(mm_->stats().page_faults, 0u);
  EXPECT_EQ(mm_->classify(at), AddressKind::kAccessible);
}

TEST_P(OrdinaryMemory, OfManyMiBUsesSuperpages) {
  const auto at = process_->map(8 * kMiB, PROT_READ | PROT_WRITE);
  const auto inside = (at + 2 * kMiB) & ~(2 * kMiB - 1);
  process_->fill(inside, kPage, 0x31);
  expect_bytes(*mm_, inside, kPage, 0x31);
  const auto walk = host_->describe_walk(mm_->pasid(), inside);
  ASSERT_FALSE(walk.empty());
  EXPECT_NE(walk.back().find("2 MiB page"), std::string::npos) << walk.back();
  const auto faults = mm_->stats().page_faults;
  std::vector<std::byte> rest(2 * kMiB);
  EXPECT_TRUE(read(*mm_, inside, rest).ok());
  EXPECT_EQ(mm_->stats().page_faults, faults) << "one fault was enough";
}

TEST_P(OrdinaryMemory, ThatIsNotMappedFaults) {
  const auto at = process_->map(kPage, PROT_READ | PROT_WRITE);
  process_->unmap(at, kPage);
  expect_unreadable(*mm_, at);
  expect_fault(write(*mm_, at + 7, {std::byte{1}}), 0, at + 7);
  EXPECT_EQ(mm_->classify(at), AddressKind::kUnmapped);
  EXPECT_GT(mm_->stats().page_faults_refused, 0u);
}

TEST_P(OrdinaryMemory, OutsideUserAddressesFaults) {
  for (const std::uint64_t at :
       {std::uint64_t{0}, std::uint64_t{1} << 47, std::uint64_t{1} << 55, ~std::uint64_t{0xfff}}) {
    std::vector<std::byte> bytes(8);
    EXPECT_FALSE(read(*mm_, at, bytes).ok()) << at;
    EXPECT_EQ(mm_->classify(at), AddressKind::kUnmapped);
  }
}

TEST_P(OrdinaryMemory, ThatIsReadOnlyIsReadAndNotWritten) {
  const auto at = process_->map(4 * kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, 4 * kPage, 0x11);
  process_->protect(at, 4 * kPage, PROT_READ);
  expect_bytes(*mm_, at, 4 * kPage, 0x11);
  expect_fault(write(*mm_, at + 16, {std::byte{1}}), 0, at + 16);
  EXPECT_EQ(process_->peek(at + 16, 1)[0], std::byte{0x11});
  EXPECT_EQ(mm_->classify(at), AddressKind::kAccessible);
}

TEST_P(OrdinaryMemory, OnlyHalfValidIsAccessedUpToTheFirstBadByte) {
  const auto at = process_->map(3 * kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, kPage, 0x42);
  process_->unmap(at + kPage, kPage);
  std::vector<std::byte> bytes(2 * kPage);
  expect_fault(read(*mm_, at + 96, bytes), kPage - 96, at + kPage);
  EXPECT_EQ(bytes[kPage - 97], std::byte{0x42});
  expect_fault(write(*mm_, at + 96, bytes), kPage - 96, at + kPage);
}

TEST_P(OrdinaryMemory, WithoutAnyPermissionFaults) {
  const auto at = process_->map(kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, kPage, 0x42);
  process_->protect(at, kPage, PROT_NONE);
  expect_unreadable(*mm_, at);
  EXPECT_EQ(mm_->classify(at), AddressKind::kUnmapped);
}

TEST_P(OrdinaryMemory, IsCheckedForPermissionAtEveryAccess) {
  const auto at = process_->map(2 * kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, 2 * kPage, 0x42);
  expect_bytes(*mm_, at, 2 * kPage, 0x42);
  EXPECT_TRUE(write(*mm_, at, {std::byte{0x43}}).ok());
  process_->protect(at + kPage, kPage, PROT_NONE);
  std::vector<std::byte> bytes(2 * kPage);
  expect_fault(read(*mm_, at, bytes), kPage, at + kPage);
  process_->protect(at, kPage, PROT_READ);
  expect_fault(write(*mm_, at, {std::byte{0x44}}), 0, at);
  process_->protect(at, 2 * kPage, PROT_READ | PROT_WRITE);
  EXPECT_TRUE(write(*mm_, at, {std::byte{0x44}}).ok());
  expect_bytes(*mm_, at + kPage, kPage, 0x42);
}

TEST_P(OrdinaryMemory, ThatBecomesWritableLaterIsWritten) {
  const auto at = process_->map(kPage, PROT_READ);
  expect_bytes(*mm_, at, kPage, 0);
  EXPECT_FALSE(write(*mm_, at, {std::byte{1}}).ok());
  process_->protect(at, kPage, PROT_READ | PROT_WRITE);
  EXPECT_TRUE(write(*mm_, at, {std::byte{1}}).ok());
  EXPECT_EQ(process_->peek(at, 1)[0], std::byte{1});
}

// What a fault learned of a mapping answers later faults, and is forgotten when it was wrong.
TEST_P(OrdinaryMemory, ThatHasGoneSinceAnotherPageOfItsMappingFaultedIsNotPermitted) {
  const auto at = process_->map(64 * kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, 64 * kPage, 0x42);
  expect_bytes(*mm_, at, kPage, 0x42);
  const auto expect_not_permitted = [](const pcie::DmaResult& result) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.done_bytes, 0u);
    EXPECT_EQ(result.fault->reason, DmaFault::Reason::kNotPermitted);
  };
  std::vector<std::byte> byte(1);

  process_->unmap(at + 8 * kPage, kPage);
  mm_->revoke_page(at + 8 * kPage, false);
  expect_not_permitted(read(*mm_, at + 8 * kPage, byte));
  expect_bytes(*mm_, at + 7 * kPage, kPage, 0x42);
  expect_bytes(*mm_, at + 9 * kPage, kPage, 0x42);

  process_->protect(at + 9 * kPage, kPage, PROT_READ);
  mm_->revoke_page(at + 9 * kPage, false);
  expect_not_permitted(write(*mm_, at + 9 * kPage, byte));
  expect_bytes(*mm_, at + 9 * kPage, kPage, 0x42);
  process_->protect(at + 9 * kPage, kPage, PROT_READ | PROT_WRITE);
  EXPECT_TRUE(write(*mm_, at + 9 * kPage, byte).ok());
}

TEST_P(OrdinaryMemory, MappedAnewShowsItsNewContent) {
  const auto at = process_->map(4 * kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, 4 * kPage, 0x01);
  expect_bytes(*mm_, at, 4 * kPage, 0x01);
  process_->unmap(at, 4 * kPage);
  expect_unreadable(*mm_, at);
  ASSERT_EQ(process_->map(4 * kPage, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, at),
            at);
  process_->fill(at, 4 * kPage, 0x02);
  expect_bytes(*mm_, at, 4 * kPage, 0x02);
}

TEST_P(OrdinaryMemory, ThatMovedIsAtItsNewAddressOnly) {
  const auto at = process_->map(kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, kPage, 0x33);
  expect_bytes(*mm_, at, kPage, 0x33);
  const auto room = process_->map(kPage, PROT_NONE);
  const auto moved = static_cast<std::uint64_t>(
      process_->call(SYS_mremap, {at, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, room}));
  ASSERT_EQ(moved, room);
  expect_unreadable(*mm_, at);
  expect_bytes(*mm_, moved, kPage, 0x33);
}

TEST_P(OrdinaryMemory, WhoseEntryIsRevokedIsReachedByPageRequestsOnly) {
  const auto at = process_->map(4 * kMiB, PROT_READ | PROT_WRITE);
  const auto inside = (at + 2 * kMiB) & ~(2 * kMiB - 1);
  process_->fill(inside, 2 * kPage, 0x66);
  expect_bytes(*mm_, inside, kPage, 0x66);
  auto faults = mm_->stats().page_faults;
  mm_->revoke_page(inside, false);
  expect_bytes(*mm_, inside, kPage, 0x66);
  EXPECT_GT(mm_->stats().page_faults, faults) << "the translation had to be asked for again";
  mm_->revoke_page(inside, true);
  expect_unreadable(*mm_, inside);
  expect_bytes(*mm_, inside + kPage, kPage, 0x66);
  expect_unreadable(*mm_, inside);
}

TEST_P(OrdinaryMemory, WalkOfAnAddressIsDescribedDownToThePage) {
  const auto at = process_->map(kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, kPage, 1);
  expect_bytes(*mm_, at, 1, 1);
  const auto lines = host_->describe_walk(mm_->pasid(), at);
  ASSERT_GE(lines.size(), 5u);
  EXPECT_NE(lines[0].find("process directory level 2"), std::string::npos);
  EXPECT_NE(lines[2].find("PSCID"), std::string::npos);
  EXPECT_NE(lines.back().find("aperture"), std::string::npos) << lines.back();
  EXPECT_TRUE(host_->describe_walk(iommu::Pasid{0xfffff}, at).empty());
}

TEST_P(OrdinaryMemory, AfterUnbindingIsOutOfReach) {
  const auto at = process_->map(kPage, PROT_READ | PROT_WRITE);
  process_->fill(at, kPage, 1);
  expect_bytes(*mm_, at, kPage, 1);
  EXPECT_TRUE(mm_->unbind());
  expect_unreadable(*mm_, at);
  EXPECT_TRUE(mm_->unbind());
  EXPECT_TRUE(host_->describe_walk(mm_->pasid(), at).empty());
  EXPECT_GT(host_->freed_table_pages(), 3u);
}

// ---- Another process's life --------------------------------------------------------------------

class ProcessLife : public HostTest {
 protected:
  void SetUp() override {
    child_ = std::make_unique<ChildProcess>();
    HostTest::SetUp();
  }
  std::unique_ptr<ChildProcess> child_;
};

TEST_F(ProcessLife, TheImageAfterExecIsOutOfReach) {
  const auto mm = bind(child_->access());
  const auto at = child_->map(kPage, PROT_READ | PROT_WRITE);
  child_->fill(at, kPage, 9);
  expect_bytes(*mm, at, kPage, 9);
  EXPECT_TRUE(mm->alive());
  child_->exec();
  EXPECT_FALSE(mm->alive());
  expect_unreadable(*mm, at);
  EXPECT_EQ(mm->classify(at), AddressKind::kUnmapped);
}

TEST_F(ProcessLife, AKilledProcessIsOutOfReach) {
  const auto mm = bind(child_->access());
  const auto at = child_->map(kPage, PROT_READ | PROT_WRITE);
  child_->fill(at, kPage, 9);
  expect_bytes(*mm, at, kPage, 9);
  child_->kill();
  EXPECT_FALSE(mm->alive());
  expect_unreadable(*mm, at);
  EXPECT_TRUE(mm->unbind());
}

TEST_F(ProcessLife, UnmappingDoesNotLookLikeDeath) {
  const auto mm = bind(child_->access());
  const auto at = child_->map(kPage, PROT_READ);
  child_->unmap(at, kPage);
  EXPECT_TRUE(mm->alive());
}

TEST_F(ProcessLife, OneProcessDoesNotReachAnothersAddresses) {
  ChildProcess other;
  const auto mm = bind(child_->access());
  const auto other_mm = bind(other.access());
  EXPECT_NE(mm->pasid(), other_mm->pasid());
  const auto at = child_->map(kPage, PROT_READ | PROT_WRITE);
  child_->fill(at, kPage, 0x21);
  other.unmap(at, kPage);
  expect_bytes(*mm, at, kPage, 0x21);
  expect_unreadable(*other_mm, at);
  ASSERT_EQ(
      other.map(kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, at),
      at);
  other.fill(at, kPage, 0x22);
  expect_bytes(*other_mm, at, kPage, 0x22);
  expect_bytes(*mm, at, kPage, 0x21);
}

// ---- Descriptors that are not what they should be ----------------------------------------------

class BindDescriptors : public ProcessLife {
 protected:
  void expect_refused(UniqueFd mem, UniqueFd maps) {
    MmAccess access;
    access.kind = MmAccess::Kind::kDescriptors;
    access.mem = std::move(mem);
    access.maps = std::move(maps);
    const auto mm = host_->bind(std::move(access));
    ASSERT_FALSE(mm);
    EXPECT_EQ(mm.error().value(), EACCES);
  }
  UniqueFd mem(ChildProcess& process, int flags = O_RDWR) {
    return process.own_file("/proc/self/mem", flags);
  }
  UniqueFd maps(ChildProcess& process) { return process.own_file("/proc/self/maps", O_RDONLY); }
};

TEST_F(BindDescriptors, OfDifferentProcessesAreRefused) {
  ChildProcess other;
  expect_refused(mem(*child_), maps(other));
  expect_refused(mem(other), maps(*child_));
}

TEST_F(BindDescriptors, OfOtherFilesAreRefused) {
  expect_refused(UniqueFd(), UniqueFd());
  expect_refused(mem(*child_), UniqueFd());
  expect_refused(mem(*child_), mem(*child_));
  expect_refused(maps(*child_), mem(*child_));
  expect_refused(maps(*child_), maps(*child_));
  expect_refused(mem(*child_), child_->own_file("/proc/self/status", O_RDONLY));
  expect_refused(mem(*child_), child_->own_file("/proc/self/smaps", O_RDONLY));
  expect_refused(UniqueFd(::memfd_create("mem", 0)), maps(*child_));
  // The names are right, the file system is not.
  const TestDirectory directory;
  const std::string process = directory / "12";
  ASSERT_EQ(::mkdir(process.c_str(), 0700), 0);
  const auto make = [&](const char* name) {
    return UniqueFd(::open((process + name).c_str(), O_RDWR | O_CREAT, 0600));
  };
  UniqueFd named_mem = make("/mem");
  UniqueFd named_maps = make("/maps");
  EXPECT_TRUE(named_mem && named_maps);
  expect_refused(std::move(named_mem), std::move(named_maps));
}

TEST_F(BindDescriptors, ThatCannotWriteAreRefused) {
  expect_refused(mem(*child_, O_RDONLY), maps(*child_));
  expect_refused(mem(*child_, O_WRONLY), maps(*child_));
  expect_refused(mem(*child_, O_PATH), maps(*child_));
}

TEST_F(BindDescriptors, OfADeadProcessAreRefused) {
  auto dead_mem = mem(*child_);
  auto dead_maps = maps(*child_);
  child_->kill();
  expect_refused(std::move(dead_mem), std::move(dead_maps));
}

TEST_F(BindDescriptors, OfTheImageBeforeExecAreRefused) {
  auto old_mem = mem(*child_);
  auto old_maps = maps(*child_);
  const std::string directory = "/proc/" + std::to_string(child_->pid());
  child_->exec();
  // Same process, one descriptor of the mm that is gone.
  expect_refused(std::move(old_mem), UniqueFd(::open((directory + "/maps").c_str(), O_RDONLY)));
  expect_refused(UniqueFd(::open((directory + "/mem").c_str(), O_RDWR)), std::move(old_maps));
}

// ---- Rounds ------------------------------------------------------------------------------------

#if defined(__has_feature)
#define TANDEM_HAS_FEATURE(name) __has_feature(name)
#else
#define TANDEM_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized =
    TANDEM_HAS_FEATURE(address_sanitizer) || TANDEM_HAS_FEATURE(thread_sanitizer);
#endif

std::uint64_t resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stoull(line.substr(6));
  }
  return 0;
}

TEST_F(ProcessLife, AThousandBindsLeaveNothingBehind) {
  const auto at = child_->map(kPage, PROT_READ | PROT_WRITE);
  child_->fill(at, kPage, 5);
  const auto round = [&] {
    const auto mm = bind(child_->access());
    const auto memory = mm->reserve(64 * kPage);
    ASSERT_TRUE(memory);
    ASSERT_TRUE(mm->attach(*memory, 0x100000000));
    expect_bytes(*mm, at, kPage, 5);
    expect_bytes(*mm, 0x100000000, kPage, 0);
    ASSERT_TRUE(mm->unbind());
  };
  for (int i = 0; i < 100; ++i) round();
  const auto freed = host_->freed_table_pages();
  const auto resident = resident_kib();
  const int fds = ::dup(0);
  ::close(fds);
  for (int i = 0; i < 1000; ++i) round();
  EXPECT_GT(host_->freed_table_pages(), freed + 1000);
  EXPECT_EQ(host_->quarantined_pasids(), 0u);
  const int fds_after = ::dup(0);
  ::close(fds_after);
  EXPECT_EQ(fds_after, fds);
  // Sanitizers keep what was freed for a while.
  if (kSanitized) return;
  // Some waits for a grace period, and more of it where the thread that frees it gets no CPU.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (resident_kib() >= resident + 2048 && std::chrono::steady_clock::now() < until) {
    std::this_thread::yield();
  }
  EXPECT_LT(resident_kib(), resident + 2048);
}

// ---- Quotas of page tables ----------------------------------------------------------------------

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
// Far from everything else, so that each gigabyte needs tables of its own.
constexpr std::uint64_t kFarAway = 0x200000000000;

/// ThreadSanitizer keeps these addresses for itself. A system call of our own, since its mmap()
/// ends the program.
bool may_map_far_away() {
  const long mapped = ::syscall(SYS_mmap, kFarAway, kPage, PROT_READ,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (mapped > 0) ::syscall(SYS_munmap, mapped, kPage);
  return mapped == static_cast<long>(kFarAway);
}

TEST_F(HostTest, TablesStayWithinTheirLimitsWhileAProcessWandersThroughItsAddressSpace) {
  if (!may_map_far_away()) GTEST_SKIP() << "this process may not map at the addresses it needs";
  SelfProcess self;
  const auto quota = std::make_shared<TableQuota>(std::uint64_t{1} << 20);
  auto bound = host_->bind(self.access(), quota);
  ASSERT_TRUE(bound);
  const std::shared_ptr<Mm> mm = std::move(*bound);
  const auto resident = resident_kib();
  std::uint64_t most = 0;
  // Written and read by the device alone: sanitizers do not know these addresses.
  constexpr std::uint64_t kFirst = kFarAway;
  std::uint64_t at = kFirst;
  const int operations = kSanitized ? 20000 : 100000;
  for (int i = 0; i < operations; ++i, at = kFirst + (at + kGiB) % 0x400000000000) {
    const long mapped =
        self.call(SYS_mmap, {at, kPage, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, ~std::uint64_t{0}});
    if (mapped < 0) continue;  // something of this process is there
    const std::vector<std::byte> byte(1, static_cast<std::byte>(i));
    std::vector<std::byte> got(1);
    ASSERT_TRUE(write(*mm, at, byte).ok()) << "operation " << i;
    ASSERT_TRUE(read(*mm, at, got).ok()) << "operation " << i;
    ASSERT_EQ(got, byte);
    self.unmap(at, kPage);
    most = std::max(most, quota->pages());
  }
  EXPECT_LE(most, PageTable::kTablePagesMax);
  EXPECT_GT(most, PageTable::kTablePagesMax / 2);
  if (!kSanitized) {
    EXPECT_LT(resident_kib(), resident + 32 * 1024) << "16 MiB of tables, windows, and what rests";
  }
  EXPECT_TRUE(mm->unbind());
  EXPECT_EQ(quota->pages(), 0u);
}

TEST_F(HostTest, SpacesThatShareAQuotaOfTablesAllGoOn) {
  if (!may_map_far_away()) GTEST_SKIP() << "this process may not map at the addresses it needs";
  SelfProcess self;
  const auto quota = std::make_shared<TableQuota>(8);  // one path has three or four
  std::vector<std::shared_ptr<Mm>> spaces;
  for (int i = 0; i < 2; ++i) {
    auto bound = host_->bind(self.access(), quota);
    ASSERT_TRUE(bound);
    spaces.push_back(std::move(*bound));
  }
  std::vector<std::uint64_t> pages;
  for (std::uint64_t i = 0; i < 8; ++i) {
    const std::uint64_t at = kFarAway + i * 512 * kGiB;
    ASSERT_EQ(self.map(kPage, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, at),
              at);
    pages.push_back(at);
    ASSERT_TRUE(
        write(*spaces[0], at, std::vector<std::byte>(kPage, static_cast<std::byte>(i))).ok());
  }
  for (int round = 0; round < 3; ++round) {
    for (std::size_t i = 0; i < pages.size(); ++i) {
      for (const auto& mm : spaces) expect_bytes(*mm, pages[i], kPage, static_cast<int>(i));
      EXPECT_LE(quota->pages(), 8u);
    }
  }
  for (const auto at : pages) self.unmap(at, kPage);
}

TEST_F(HostTest, ReservedMemoryComesBackAfterTablesWereDropped) {
  const auto quota = std::make_shared<TableQuota>(4);
  auto bound = host_->bind({}, quota);
  ASSERT_TRUE(bound);
  const std::shared_ptr<Mm> mm = std::move(*bound);
  std::vector<std::shared_ptr<ReservedMemory>> memory;
  for (std::uint64_t i = 0; i < 4; ++i) {
    auto one = mm->reserve(kPage);
    ASSERT_TRUE(one);
    memory.push_back(std::move(*one));
    ASSERT_TRUE(mm->attach(memory.back(), 0x200000000000 + i * 512 * kGiB));
  }
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 4; ++i) {
      EXPECT_TRUE(write(*mm, 0x200000000000 + i * 512 * kGiB, {static_cast<std::byte>(i)}).ok());
      expect_bytes(*mm, 0x200000000000 + i * 512 * kGiB, 1, static_cast<int>(i));
    }
  }
}

}  // namespace
}  // namespace tandem::uacce::detail
