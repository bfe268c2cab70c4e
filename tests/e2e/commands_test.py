# SPDX-License-Identifier: Apache-2.0
"""The other commands of tandem: what they print, and how they end."""
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import unittest

import default_signals  # noqa: F401  what is imported is what it does

TANDEM = sys.argv.pop(1) if len(sys.argv) > 1 else "tandem"
PATIENCE = 300  # seconds; a sanitized build on a busy machine is slow
PLANTED = os.environ.get("TANDEM_PLANTED_FAULTS") == "1"
SANITIZED = os.environ.get("TANDEM_SANITIZED") == "1"


def run(*arguments, env=None, timeout=PATIENCE):
    return subprocess.run([TANDEM, *arguments], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})


class Demos(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.files = []
        for name, data in (("text", b"some words, again and again; " * 40000),
                           ("random", os.urandom(700_000)), ("small", b"x")):
            path = os.path.join(self.directory.name, name)
            with open(path, "wb") as file:
                file.write(data)
            self.files.append(path)

    def test_share_verifies_everything_and_prints_its_table(self):
        for _ in range(3):
            result = run("demo", "share", "--seconds", "2", *self.files)
            if "not shared fairly" not in result.stderr:
                break
        else:
            self.skipTest("other processes have the CPUs: " + result.stderr.splitlines()[-1])
        self.assertEqual(result.returncode, 0, result.stderr)
        for words in ("tenant", "MB/s", "p50", "p99", "zero copy", "by copy", "faults", "hits",
                      "2 forks", "3 killed", "4 bad ptrs", "2's child", "0 mismatches",
                      "Jain's index", "called directly", "(wall clock, best of several, without tenants; "
                      "half ordinary memory)", "cleaned up"):
            self.assertIn(words, result.stdout)
        self.assertEqual(len(re.findall(r"fault at 0x[0-9a-f]+", result.stdout)), 2)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)
        self.assertNotIn("\033", result.stdout + result.stderr)

    def test_share_embedded_says_that_it_isolates_nobody(self):
        result = run("demo", "share", "--embedded", "--seconds", "1", *self.files)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("nothing isolates them", result.stdout)

    @unittest.skipUnless(PLANTED, "this build carries no planted faults")
    def test_share_catches_corrupted_output(self):
        for mode in ([], ["--embedded"]):
            result = run("demo", "share", "--seconds", "1", *mode, *self.files,
                         env={"TANDEM_PLANT": "comp-corrupt-output"})
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertIn("MISMATCH", result.stderr)

    @unittest.skipUnless(PLANTED, "this build carries no planted faults")
    def test_share_catches_completions_that_are_lost_or_doubled(self):
        for fault in ("uacce-lost-completion", "uacce-double-completion"):
            # It ends with the thousandth completion of a queue.
            result = run("demo", "share", "--seconds", "200", *self.files,
                         env={"TANDEM_PLANT": fault})
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertRegex(result.stderr, r"\ntandem: demo share: tenant")

    def test_share_leaves_nothing_behind_when_interrupted(self):
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
            process = subprocess.Popen([TANDEM, "demo", "share", "--seconds", "60", *self.files],
                                       env={**os.environ, "XDG_RUNTIME_DIR": self.directory.name},
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for line in process.stderr:
                if "private broker" in line:
                    break
            self.assertIn(self.directory.name, line)
            process.send_signal(stop)
            _, errors = process.communicate(timeout=PATIENCE)
            if stop == signal.SIGPIPE:
                self.assertEqual(process.returncode, -stop)
            else:
                self.assertEqual(process.returncode, 1)
                self.assertIn("interrupted", errors)
            left = [n for n in os.listdir(self.directory.name) if n.startswith("tandem-private")]
            self.assertEqual(left, [], stop)

    def test_share_without_such_a_file(self):
        result = run("demo", "share", "/no/such/file")
        self.assertEqual(result.returncode, 3)
        self.assertIn("tandem: /no/such/file: No such file", result.stderr)

    def test_fork_tells_its_story(self):
        result = run("demo", "fork")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        for words in ("generation changed", "receives none", "each once", "revoked the PASID"):
            self.assertIn(words, result.stdout)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)

    def test_kxo_checks_every_move_of_64_boards(self):
        modes = [{}, {"TANDEM": "embedded"}]
        if not SANITIZED:  # half a minute each, and one thread alone races with nobody
            modes.append({"TANDEM": "inline"})
        for mode in modes:
            result = run("demo", "kxo", env=mode)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            for words in ("64 boards", "O wins", "moves/s", "CPU/move", "negamax - mcts",
                          "O becomes perfect", "all right",
                          "left out: the device is in this process" if mode else "taken back"):
                self.assertIn(words, result.stdout)
            self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)

    @unittest.skipUnless(PLANTED, "this build carries no planted faults")
    def test_kxo_catches_moves_that_are_lost_or_doubled(self):
        for fault in ("kxo-lost-move", "kxo-doubled-move"):
            result = run("demo", "kxo", env={"TANDEM_PLANT": fault})
            self.assertEqual(result.returncode, 1, result.stdout)
            self.assertRegex(result.stderr, r"tandem: demo kxo: board \d+ .*: it was the turn of")

    def test_pasid_lists_the_messages(self):
        result = run("demo", "pasid")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        for words in ("translation request", "page request", "page request response",
                      "memory read", "invalidation request", "invalidation completion",
                      "process directory", "page table level 3", "fault at 0x"):
            self.assertIn(words, result.stdout)


class Output(unittest.TestCase):
    def test_what_does_not_get_out_is_a_failure(self):
        for arguments in (["devices"], ["version"], ["demo", "fork"], ["demo", "pasid"]):
            with open("/dev/full", "wb") as full:
                result = subprocess.run([TANDEM, *arguments], stdout=full, stderr=subprocess.PIPE,
                                        stdin=subprocess.DEVNULL, timeout=PATIENCE)
            self.assertEqual(result.returncode, 1, arguments)
            self.assertIn(b"standard output: ", result.stderr)


class Scarcity(unittest.TestCase):
    """What a command and the broker do where the system gives little."""
    TANDEMD = os.path.join(os.path.dirname(TANDEM), "../tandemd/tandemd")

    @unittest.skipUnless(os.geteuid() == 0, "a limit of processes of another user needs root")
    def test_a_broker_that_gets_too_few_threads_does_not_start_or_serves(self):
        with tempfile.TemporaryDirectory() as directory:
            os.chown(directory, 65534, 65534)
            socket = os.path.join(directory, "broker.sock")

            def as_nobody(processes):
                os.setgroups([])
                os.setgid(65534)
                resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
                os.setuid(65534)

            def tandem_as_nobody(*arguments):
                return subprocess.run([TANDEM, *arguments], capture_output=True, text=True,
                                      timeout=PATIENCE, preexec_fn=lambda: as_nobody(1000),
                                      env={**os.environ, "TANDEM": "unix:" + socket})
            try:
                tandem_as_nobody("version")
            except OSError:
                self.skipTest("the program is not reachable for another user")
            started = 0
            for processes in range(1, 14):
                ready, told = os.pipe()
                broker = subprocess.Popen(
                    [self.TANDEMD, "--socket", socket, "--engines", "1", "--ready-fd", str(told)],
                    pass_fds=[told], stderr=subprocess.PIPE, text=True,
                    preexec_fn=lambda: as_nobody(processes))
                os.close(told)
                up = os.read(ready, 1) != b""
                os.close(ready)
                if up:
                    started += 1
                    served = tandem_as_nobody("devices")
                    broker.terminate()
                _, errors = broker.communicate(timeout=PATIENCE)
                if up:
                    self.assertEqual(served.returncode, 0, (processes, served.stderr))
                else:
                    self.assertEqual(broker.returncode, 1, errors)
                    self.assertIn("tandemd: start: ", errors)
            self.assertGreater(started, 0)


    def test_without_proc_the_message_is_about_that(self):
        def in_own_namespace(script):
            return subprocess.run(["unshare", "-m", "sh", "-c", script, "sh",
                                   os.path.abspath(TANDEM)], capture_output=True, text=True,
                                  timeout=PATIENCE, stdin=subprocess.DEVNULL,
                                  env={**os.environ, "TANDEM": "embedded"})
        try:
            with_proc = in_own_namespace('exec "$1" devices')
        except FileNotFoundError:
            self.skipTest("no unshare")
        if with_proc.returncode != 0:
            self.skipTest("nothing runs in a mount namespace here: " + with_proc.stderr)
        without = in_own_namespace('mount -t tmpfs none /proc && ! test -e /proc/self/maps || '
                                   'exit 99; exec "$1" devices')
        if without.returncode == 99:
            self.skipTest("/proc cannot be hidden here: " + without.stderr)
        if "LeakSanitizer has encountered" in without.stderr:
            self.skipTest("LeakSanitizer itself needs /proc, from its options on")
        self.assertIn("is /proc mounted?", without.stderr)
        self.assertEqual(without.returncode, 4, without.stderr)


class Devices(unittest.TestCase):
    def test_table_and_json_agree(self):
        table = run("devices", env={"TANDEM": "embedded"})
        listing = json.loads(run("devices", "--json", env={"TANDEM": "embedded"}).stdout)
        self.assertEqual(table.returncode, 0)
        self.assertEqual(listing["schema"], 1)
        names = [d["name"] for d in listing["devices"]]
        self.assertIn("comp-0", names)
        self.assertIn("mem-0", names)
        for device in listing["devices"]:
            self.assertIn(device["name"], table.stdout)
            for key in ("queues_used", "queues_max", "clients", "engines", "operations"):
                self.assertIsInstance(device[key], int)
            self.assertIsInstance(device["algorithms"], list)

    def test_without_the_broker_asked_for(self):
        result = run("devices", env={"TANDEM": "unix:/no/such/broker.sock"})
        self.assertEqual(result.returncode, 5)
        self.assertIn("try: tandemd --socket /no/such/broker.sock", result.stderr)

    def test_with_a_socket_that_has_no_name(self):
        result = run("devices", env={"TANDEM": "unix:"})
        self.assertEqual(result.returncode, 2)
        self.assertIn("TANDEM=unix: names no socket", result.stderr)

    def test_with_a_mode_that_is_none(self):
        result = run("devices", env={"TANDEM": "bogus"})
        self.assertEqual(result.returncode, 2)
        self.assertIn("tandem: TANDEM=bogus: no such mode; try: TANDEM=auto, "
                      "embedded, inline or unix:PATH\n", result.stderr)

    def test_with_a_trust_that_means_nothing(self):
        for name, value in (("TANDEM_TRUST", "reserved_only"), ("TANDEM_TRUST_UID", "nobody")):
            environment = {**os.environ, "TANDEM": "auto", name: value}
            for arguments in (["devices"], ["compress", "-c"]):
                result = subprocess.run([TANDEM, *arguments], capture_output=True, text=True,
                                        input="x", timeout=60, env=environment)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertIn(f"tandem: {name}={value}: ", result.stderr)
                self.assertIn("; try: ", result.stderr)
                self.assertEqual(result.stdout, "")


class Broker(unittest.TestCase):
    """What tandemd says of where it should listen, and whom it serves there."""
    TANDEMD = os.path.join(os.path.dirname(TANDEM), "../tandemd/tandemd")

    def refused(self, *arguments, code=1):
        result = subprocess.run([self.TANDEMD, *arguments], capture_output=True, text=True,
                                timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertTrue(result.stderr.startswith("tandemd: "), result.stderr)
        self.assertIn("; try: ", result.stderr)
        self.assertNotIn("listening", result.stderr)
        return result.stderr

    def test_places_that_no_client_would_trust_or_that_are_none(self):
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o777)
            self.assertIn("others can write there",
                          self.refused("--socket", os.path.join(directory, "broker.sock")))
            self.assertEqual(os.listdir(directory), [])
            self.assertIn("No such file",
                          self.refused("--socket", os.path.join(directory, "a/b/broker.sock")))
            self.assertIn("107 bytes",
                          self.refused("--socket", os.path.join(directory, "x" * 120)))

    def test_descriptors_that_are_not_open(self):
        with tempfile.TemporaryDirectory() as directory:
            for option in ("--ready-fd", "--events-fd"):
                socket = os.path.join(directory, "broker.sock")
                self.assertIn(option + " 77: no such descriptor",
                              self.refused("--socket", socket, option, "77", code=2))
                self.assertIn("whole number", self.refused("--socket", socket, option, "x", code=2))

    @unittest.skipUnless(os.geteuid() == 0, "to be two users one has to be root")
    def test_everybody_is_served_by_a_user_whom_they_trust(self):
        def become(user):
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)

        def devices_as(user, **environment):
            result = subprocess.run([TANDEM, "devices"], capture_output=True, text=True, timeout=60,
                                    preexec_fn=lambda: become(user),
                                    env={**os.environ, "TANDEM": "unix:" + socket, **environment})
            return result.returncode, result.stderr

        server, client = 65533, 65534
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o755)
            os.chown(directory, server, -1)
            socket = os.path.join(directory, "broker.sock")
            try:
                devices_as(client)
            except OSError:
                self.skipTest("the program is not reachable for another user")
            for options, trusted in (([], 4), (["--everybody"], 0)):
                ready, told = os.pipe()
                broker = subprocess.Popen(
                    [self.TANDEMD, "-q", "--socket", socket, "--ready-fd", str(told), *options],
                    pass_fds=[told], preexec_fn=lambda: become(server))
                os.close(told)
                try:
                    self.assertNotEqual(os.read(ready, 1), b"")
                    code, errors = devices_as(client)
                    self.assertEqual(code, 4, errors)
                    self.assertIn("TANDEM_TRUST_UID", errors)
                    code, errors = devices_as(client, TANDEM_TRUST_UID=str(server))
                    self.assertEqual(code, trusted, errors)
                finally:
                    os.close(ready)
                    broker.terminate()
                    self.assertEqual(broker.wait(timeout=60), 0)


class Command(unittest.TestCase):
    def test_help_has_examples_everywhere(self):
        for command in ([], ["compress"], ["decompress"], ["devices"], ["demo"], ["demo", "share"],
                        ["demo", "fork"], ["demo", "pasid"], ["demo", "kxo"], ["version"]):
            result = run(*command, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn("Example", result.stdout)
            self.assertNotIn("internal", result.stdout)
            self.assertNotIn("\n\n\n", result.stdout)
            self.assertNotRegex(result.stdout, "\n\n$|FILE TEXT")
            self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)

    def test_help_shows_examples_of_its_own_command(self):
        self.assertNotIn("tandem decompress", run("compress", "--help").stdout)
        self.assertNotIn("tandem compress", run("decompress", "--help").stdout)

    def test_usage_errors(self):
        for arguments in (["nonsense"], ["compress", "--nonsense"], ["demo"],
                          ["demo", "share", "--seconds", "x"],
                          ["demo", "share", "--seconds", "nan"]):
            result = run(*arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertRegex(result.stderr, r"^tandem: .*try: tandem.*--help\n$")
            self.assertEqual(result.stdout, "")

    def test_what_is_no_command_is_told_with_those_that_there_are(self):
        for arguments, words in (
                (["nonsense"], "there is no 'tandem nonsense'; there are: demo, "),
                (["demo", "nosuch"], "there is no 'tandem demo nosuch'; there are: share, "),
                (["demo"], "'tandem demo' needs one of: share, fork, "),
                (["kxo", "nosuch"], "there is no 'tandem kxo nosuch'; there are: agents, "),
                (["demo", "--nosuch"], "there is no 'tandem demo --nosuch'")):
            result = run(*arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertIn(words, result.stderr)
            self.assertNotIn("internal", result.stderr)

    def test_help_is_a_command_as_well(self):
        for command in ([], ["compress"], ["kxo", "match"]):
            asked, told = run("help", *command), run(*command, "--help")
            self.assertEqual((asked.returncode, asked.stdout), (0, told.stdout))

    def test_version(self):
        self.assertRegex(run("version").stdout, r"^tandem \d+\.\d+\.\d+\n$")
        self.assertEqual(run("--version").stdout, run("version").stdout)


if __name__ == "__main__":
    unittest.main()
