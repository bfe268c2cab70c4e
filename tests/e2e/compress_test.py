# SPDX-License-Identifier: Apache-2.0
"""tandem compress and decompress next to gzip and Python's zlib, and what they do to files."""
import gzip
import os
import pty
import random
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

import default_signals  # noqa: F401  what is imported is what it does

TANDEM = sys.argv.pop(1) if len(sys.argv) > 1 else "tandem"
random.seed(20)
# Under a sanitizer a run takes seconds: fewer of them, of every kind.
SANITIZED = os.environ.get("TANDEM_SANITIZED") == "1"
PATIENCE = 300  # seconds, also on a busy machine


def run(*arguments, data=b"", cwd=None, env=None):
    return subprocess.run([TANDEM, *arguments], input=data, capture_output=True, cwd=cwd,
                          timeout=PATIENCE, env={**os.environ, **(env or {})})


def text(size):
    words = [b"queue", b"pasid", b"fence", b"tenant", b"fault", b"page", b"0x7f", b"\n"]
    out = bytearray()
    while len(out) < size:
        out += random.choice(words) + b" "
    return bytes(out[:size])


BLOCK = 512 * 1024
INPUTS = {
    "empty": b"",
    "one byte": b"x",
    "short": b"hello, world\n",
    "zeros": bytes(3 * BLOCK + 17),
    "random": random.randbytes(2 * BLOCK + 1),
    "text": text(5 * BLOCK + 12345),
    "a block": text(BLOCK),
    "a block less one": text(BLOCK - 1),
    "a block and one": text(BLOCK + 1),
    "many blocks": text(BLOCK) * (10 if SANITIZED else 40),
}


class RoundTrips(unittest.TestCase):
    def test_gunzip_and_zlib_read_what_compress_writes(self):
        for name, data in INPUTS.items():
            with self.subTest(name):
                packed = run("compress", "-c", data=data)
                self.assertEqual(packed.returncode, 0, packed.stderr)
                self.assertEqual(gzip.decompress(packed.stdout), data)
                gunzip = subprocess.run(["gunzip", "-c"], input=packed.stdout, capture_output=True)
                self.assertEqual((gunzip.returncode, gunzip.stderr), (0, b""))
                self.assertEqual(gunzip.stdout, data)

    def test_decompress_reads_what_compress_writes(self):
        for name, data in INPUTS.items():
            with self.subTest(name):
                back = run("decompress", data=run("compress", data=data).stdout)
                self.assertEqual((back.returncode, back.stderr), (0, b""))
                self.assertEqual(back.stdout, data)

    def test_decompress_reads_what_gzip_and_zlib_write(self):
        for name, data in INPUTS.items():
            for level in (6,) if SANITIZED else (1, 6, 9):
                with self.subTest(f"{name} -{level}"):
                    packed = subprocess.run(["gzip", f"-{level}", "-c"], input=data,
                                            capture_output=True).stdout
                    self.assertEqual(run("decompress", data=packed).stdout, data)
            with self.subTest(f"{name}, zlib stored"):
                self.assertEqual(run("decompress", data=gzip.compress(data, 0)).stdout, data)

    def test_every_level_round_trips_and_higher_is_not_larger(self):
        data = INPUTS["text"]
        sizes = []
        for level in range(1, 10):
            packed = run("compress", f"-{level}", data=data).stdout
            self.assertEqual(gzip.decompress(packed), data)
            sizes.append(len(packed))
        self.assertLess(sizes[8], sizes[0])

    def test_members_of_both_kinds_in_any_order(self):
        parts = [text(1000), text(BLOCK * 3), b"", random.randbytes(70000), text(BLOCK + 5)]
        mixed = b"".join(run("compress", data=p).stdout if i % 2 else gzip.compress(p)
                         for i, p in enumerate(parts))
        self.assertEqual(run("decompress", data=mixed).stdout, b"".join(parts))

    def test_headers_with_every_optional_field(self):
        data = text(5000)
        raw = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = raw.compress(data) + raw.flush()
        trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        head = b"\x1f\x8b\x08\x1e" + bytes(6)
        head += b"\x06\x00AB\x02\x00hi" + b"name\x00" + b"a comment\x00"
        head += (zlib.crc32(head) & 0xffff).to_bytes(2, "little")
        self.assertEqual(run("decompress", data=head + body + trailer).stdout, data)

    def test_inline_and_embedded_give_the_same_bytes(self):
        data = INPUTS["text"]
        outputs = {run("compress", data=data, env={"TANDEM": mode}).stdout
                   for mode in ("inline", "embedded")}
        self.assertEqual(len(outputs), 1)
        self.assertEqual(gzip.decompress(outputs.pop()), data)


class BadInput(unittest.TestCase):
    def refused(self, data, words):
        result = run("decompress", "-c", data=data)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn(words, result.stderr.decode())
        self.assertTrue(result.stderr.startswith(b"tandem: "), result.stderr)
        return result

    def test_not_gzip(self):
        self.refused(b"this is no gzip at all, really", "not in gzip format")

    def test_a_file_that_is_not_gzip_is_not_told_to_be_renamed(self):
        with tempfile.TemporaryDirectory() as directory:
            for data, words in ((b"plain", b"plain: not in gzip format; try: tandem compress plain"),
                                (gzip.compress(b"x"), b"does not end in .gz; try: tandem decompress "
                                                      b"-c plain >FILE")):
                with open(os.path.join(directory, "plain"), "wb") as file:
                    file.write(data)
                result = run("decompress", "plain", cwd=directory)
                self.assertEqual(result.returncode, 1)
                self.assertIn(words, result.stderr)
            result = run("compress", "-k", "-o", "none/out", "plain", cwd=directory)
            self.assertEqual(result.returncode, 3)
            self.assertIn(b"none/out: No such file or directory; try: a directory that", result.stderr)

    def test_a_level_that_is_none(self):
        for level in ("-0", "-10"):
            result = run("compress", level, data=b"x")
            self.assertEqual((result.returncode, result.stderr),
                             (2, b"tandem: levels are -1 to -9; try: -9\n"))

    def test_empty_input(self):
        self.refused(b"", "unexpected end")

    def test_truncated_anywhere(self):
        data = text(3 * BLOCK)
        for packed in (gzip.compress(data), run("compress", data=data).stdout):
            for keep in (1, 2, 9, 10, 19, 20, 25, 1000, len(packed) // 2, len(packed) - 9,
                         len(packed) - 1):
                with self.subTest(keep=keep):
                    result = run("decompress", "-c", data=packed[:keep])
                    self.assertEqual(result.returncode, 1)
                    self.assertTrue(data.startswith(result.stdout))

    def test_one_flipped_bit_anywhere_is_found(self):
        data = text(BLOCK + 5000)
        for packed in (gzip.compress(data), run("compress", data=data).stdout):
            for at in [3, 12, 15, 18, 24, *random.sample(range(30, len(packed)), 3 if SANITIZED else 25),
                       len(packed) - 1, len(packed) - 6]:
                with self.subTest(at=at):
                    broken = bytearray(packed)
                    broken[at] ^= 1 << random.randrange(8)
                    result = run("decompress", "-c", data=bytes(broken))
                    # Flags of a header may become others that mean nothing; data never differs.
                    if result.returncode == 0:
                        self.assertEqual(result.stdout, data)
                    else:
                        self.assertIn(result.returncode, (1, 6))

    def test_a_lying_length_field_is_found(self):
        packed = bytearray(run("compress", data=text(3 * BLOCK)).stdout)
        for size in (28, 100, 0, 2**31, 2**32 - 1, int.from_bytes(packed[16:20], "little") + 1):
            with self.subTest(size=size):
                packed[16:20] = size.to_bytes(4, "little")
                self.assertIn(run("decompress", "-c", data=bytes(packed)).returncode, (0, 1))

    def test_trailing_zeros_are_padding(self):
        data = text(100000)
        for packed in (gzip.compress(data), run("compress", data=data).stdout):
            for zeros in (1, 511, 3_000_000):
                result = run("decompress", "-c", data=packed + bytes(zeros))
                self.assertEqual((result.returncode, result.stderr), (0, b""))
                self.assertEqual(result.stdout, data)

    def test_trailing_garbage_is_told_and_the_data_kept(self):
        data = text(100000)
        for packed in (gzip.compress(data), run("compress", data=data).stdout):
            for garbage in (b"garbage", bytes(100) + b"x", b"\x1f"):
                result = run("decompress", "-c", data=packed + garbage)
                self.assertEqual(result.stdout, data)
                self.assertEqual(result.returncode, 6)
                self.assertIn(b"ignored", result.stderr)


class Files(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.data = text(2 * BLOCK + 99)
        self.path = self.write("file", self.data)

    def write(self, name, data):
        path = os.path.join(self.directory.name, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def names(self):
        return sorted(os.listdir(self.directory.name))

    def test_compress_replaces_the_file_and_keeps_mode_and_time(self):
        os.chmod(self.path, 0o640)
        os.utime(self.path, (1_000_000_000, 1_234_567_890))
        self.assertEqual(run("compress", self.path).returncode, 0)
        self.assertEqual(self.names(), ["file.gz"])
        self.assertEqual(gzip.decompress(self.read(self.path + ".gz")), self.data)
        status = os.stat(self.path + ".gz")
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o640)
        self.assertEqual(int(status.st_mtime), 1_234_567_890)
        self.assertEqual(run("decompress", self.path + ".gz").returncode, 0)
        self.assertEqual(self.names(), ["file"])
        self.assertEqual(self.read(self.path), self.data)
        self.assertEqual(int(os.stat(self.path).st_mtime), 1_234_567_890)

    def test_keep_stdout_and_output_leave_the_source(self):
        self.assertEqual(run("compress", "-k", self.path).returncode, 0)
        self.assertEqual(self.names(), ["file", "file.gz"])
        self.assertEqual(gzip.decompress(run("compress", "-c", self.path).stdout), self.data)
        out = os.path.join(self.directory.name, "other")
        self.assertEqual(run("compress", "-d", "-o", out, self.path + ".gz").returncode, 0)
        self.assertEqual(self.names(), ["file", "file.gz", "other"])
        self.assertEqual(self.read(out), self.data)

    def test_existing_output_is_kept_without_force(self):
        self.write("file.gz", b"precious")
        result = run("compress", self.path)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"exists already; try: -f", result.stderr)
        self.assertEqual(self.read(self.path + ".gz"), b"precious")
        self.assertEqual(self.read(self.path), self.data)
        self.assertEqual(run("compress", "-f", self.path).returncode, 0)
        self.assertEqual(gzip.decompress(self.read(self.path + ".gz")), self.data)

    def test_damaged_file_is_kept_and_leaves_nothing_behind(self):
        packed = bytearray(gzip.compress(self.data))
        for name, data in (("corrupt.gz", packed[:5000] + b"\xff" * 50 + packed[5050:]),
                           ("short.gz", packed[:-20]), ("none.gz", b"")):
            path = self.write(name, bytes(data))
            self.assertEqual(run("decompress", path).returncode, 1)
            self.assertEqual(self.read(path), bytes(data))
        self.assertEqual(self.names(), ["corrupt.gz", "file", "none.gz", "short.gz"])

    def test_check_tells_good_from_bad_and_writes_nothing(self):
        good = self.write("good.gz", gzip.compress(self.data))
        bad = self.write("bad.gz", gzip.compress(self.data)[:-1])
        self.assertEqual(run("decompress", "-t", good).returncode, 0)
        self.assertEqual(run("compress", "-t", bad).returncode, 1)
        self.assertEqual(self.names(), ["bad.gz", "file", "good.gz"])

    def test_missing_file_is_not_found_and_the_others_are_done(self):
        missing = os.path.join(self.directory.name, "missing")
        result = run("compress", missing, self.path)
        self.assertEqual(result.returncode, 3)
        self.assertIn(b"missing: No such file", result.stderr)
        self.assertEqual(self.names(), ["file.gz"])

    def test_directories_links_and_suffixes(self):
        self.assertEqual(run("compress", self.directory.name).returncode, 1)
        link = os.path.join(self.directory.name, "link")
        os.symlink(self.path, link)
        self.assertEqual(run("compress", link).returncode, 1)
        os.link(self.path, os.path.join(self.directory.name, "second"))
        self.assertEqual(run("compress", self.path).returncode, 1)
        self.assertEqual(self.read(self.path), self.data)
        odd = self.write("odd.name", gzip.compress(b"x"))
        self.assertEqual(run("decompress", odd).returncode, 1)
        self.write("a.tgz", gzip.compress(b"tar"))
        self.assertEqual(run("decompress", self.directory.name + "/a.tgz").returncode, 0)
        self.assertIn("a.tar", self.names())

    def test_closed_standard_descriptors_are_nobody_elses(self):
        """What is opened next would get their numbers, and what is meant for them."""
        def started(closed, *arguments):
            words = [TANDEM, *arguments]
            return subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words],
                                  capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
        result = started("<&-", "compress")
        self.assertEqual((result.returncode, result.stdout), (1, b""))
        self.assertIn(b"standard input: Bad file descriptor", result.stderr)
        result = started(">&-", "compress", "-c", self.path)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"output: Bad file descriptor", result.stderr)
        for closed in (">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
            self.assertEqual(started(closed, "compress", "-kfv", self.path).returncode, 0, closed)
            self.assertEqual(gzip.decompress(self.read(self.path + ".gz")), self.data, closed)

    def test_output_replaces_neither_the_source_nor_what_is_no_file(self):
        result = run("compress", "-f", "-o", self.path, self.path)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"is the source itself", result.stderr)
        self.assertEqual(self.read(self.path), self.data)
        link, pipe = (os.path.join(self.directory.name, name) for name in ("link", "pipe"))
        os.symlink("/dev/null", link)
        os.mkfifo(pipe)
        for force in ([], ["-f"]):
            for path in (link, pipe):
                result = run("compress", *force, "-o", path, self.path)
                self.assertEqual(result.returncode, 1, path)
                self.assertIn(b"is not a regular file; try: -c", result.stderr)
            result = run("compress", *force, "-o", self.directory.name, self.path)
            self.assertIn(b"Is a directory", result.stderr)
        self.assertTrue(os.path.islink(link))
        self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))
        self.assertEqual(self.names(), ["file", "link", "pipe"])

    def test_a_limit_of_the_file_size_is_told_and_leaves_nothing_behind(self):
        path = self.write("random", os.urandom(100_000))
        result = subprocess.run([TANDEM, "compress", path], capture_output=True, timeout=PATIENCE,
                                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
                                                                      (20_000, 20_000)))
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"File too large", result.stderr)
        self.assertEqual(self.names(), ["file", "random"])

    def test_what_a_killed_one_left_is_in_nobodys_way(self):
        # In a container the process id, too, is the same each time.
        def started(after_fork):
            return subprocess.run([TANDEM, "compress", "-k", self.path], preexec_fn=after_fork,
                                  capture_output=True, timeout=PATIENCE)
        def leave():
            self.write(f".tandem-{os.getpid()}.partial", b"half")
        result = started(leave)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(gzip.decompress(self.read(self.path + ".gz")), self.data)

    def as_nobody(self, *arguments):
        """Runs without root's rights, which no permission stops."""
        def drop():
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
        return subprocess.run([TANDEM, *arguments], capture_output=True, preexec_fn=drop,
                              stdin=subprocess.DEVNULL, timeout=PATIENCE)

    def test_unwritable_directory_and_unreadable_file_are_denied(self):
        os.chmod(self.directory.name, 0o555)
        os.chmod(self.path, 0o644)
        try:
            self.as_nobody("version")
        except PermissionError:
            self.skipTest("the program is not reachable for another user")
        result = self.as_nobody("compress", self.path)
        self.assertEqual(result.returncode, 4, result.stderr)
        os.chmod(self.directory.name, 0o755)
        os.chmod(self.path, 0o600 if os.geteuid() == 0 else 0o000)
        self.assertEqual(self.as_nobody("compress", "-c", self.path).returncode, 4)
        os.chmod(self.path, 0o600)
        self.assertEqual(self.read(self.path), self.data)

    def test_interrupted_it_removes_what_it_wrote(self):
        big = self.write("large", bytes(400 << 20))
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXCPU):
            process = subprocess.Popen([TANDEM, "compress", "-9", big])
            deadline = time.time() + 30
            while not any(n.endswith(".partial") for n in self.names()) and process.poll() is None:
                self.assertLess(time.time(), deadline)
            process.send_signal(stop)
            process.wait(timeout=PATIENCE)
            if process.returncode == 0:
                self.skipTest("it was faster than the signal")
            self.assertEqual(process.returncode, -stop)
            self.assertEqual([n for n in self.names() if "partial" in n or n == "large.gz"], [])
            self.assertEqual(os.stat(big).st_size, 400 << 20)

    def test_one_output_for_two_files_is_refused(self):
        other = self.write("other", b"x")
        result = run("compress", "-o", os.path.join(self.directory.name, "out"), self.path, other)
        self.assertEqual(result.returncode, 2)
        self.assertEqual(self.names(), ["file", "other"])

    def test_full_disk_is_told_and_the_source_kept(self):
        with open("/dev/full", "wb") as full:
            result = subprocess.run([TANDEM, "compress", "-c", self.path], stdout=full,
                                    stderr=subprocess.PIPE, timeout=PATIENCE)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"No space left", result.stderr)

    def test_a_closed_pipe_ends_it_quietly(self):
        source = self.write("p", os.urandom(8 << 20))
        process = subprocess.Popen(f"'{TANDEM}' compress -c '{source}' | head -c 10 >/dev/null",
                                   shell=True, stderr=subprocess.PIPE)
        self.assertEqual(process.communicate(timeout=PATIENCE)[1], b"")

    def test_compressed_data_is_not_for_a_terminal(self):
        master, slave = pty.openpty()
        result = subprocess.run([TANDEM, "compress", "-c", self.path], stdout=slave,
                                stderr=subprocess.PIPE, timeout=PATIENCE)
        os.close(slave)
        os.close(master)
        self.assertEqual(result.returncode, 2)
        self.assertIn(b"not for a terminal", result.stderr)

    def test_memory_stays_constant(self):
        def peak(size):
            path = self.write("sized", bytes(size))
            program = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True,"
                       " stdout=subprocess.DEVNULL);"
                       "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
            out = subprocess.run([sys.executable, "-c", program, TANDEM, "compress", "-c", path],
                                 capture_output=True, check=True, timeout=PATIENCE)
            return int(out.stdout)
        self.assertLess(peak(192 << 20), peak(32 << 20) + 16 * 1024)


if __name__ == "__main__":
    unittest.main()
