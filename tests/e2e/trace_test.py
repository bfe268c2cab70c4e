# SPDX-License-Identifier: Apache-2.0
"""tandem trace: what it records, the formats it writes, and how it ends.

The decoder of Perfetto's format here is written from the .proto files, independently of the writer."""
import collections
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

TANDEM = sys.argv.pop(1) if len(sys.argv) > 1 else "tandem"
PATIENCE = 300  # seconds; a sanitized build on a busy machine is slow


def fields(data):
    """The fields of a message as field number -> list of int or bytes. Spec: Protocol Buffers, "Encoding"."""
    found, at = collections.defaultdict(list), 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            found[number].append(varint())
        elif wire == 1:
            found[number].append(int.from_bytes(data[at:at + 8], "little"))
            at += 8
        elif wire == 2:
            size = varint()
            if at + size > len(data):
                raise ValueError("a field runs over the end of its message")
            found[number].append(data[at:at + size])
            at += size
        else:
            raise ValueError(f"wire type {wire}")
    return found


class Perfetto:
    """A trace file: processes, threads, and the events of each track."""

    def __init__(self, path):
        with open(path, "rb") as file:
            trace = fields(file.read())
        assert set(trace) <= {1}, "Trace has packets and nothing else"
        self.processes, self.threads, self.clocks = {}, {}, {}
        self.events, self.sched = [], []
        for packet in map(fields, trace[1]):
            assert packet[10] == [1], "each packet names its sequence"
            if 6 in packet:
                for clock in map(fields, fields(packet[6][0])[1]):
                    self.clocks[clock[1][0]] = clock[2][0]
            if 60 in packet:
                descriptor = fields(packet[60][0])
                uuid = descriptor[1][0]
                if 3 in descriptor:
                    process = fields(descriptor[3][0])
                    self.processes[uuid] = (process[1][0], process[6][0].decode())
                if 4 in descriptor:
                    thread = fields(descriptor[4][0])
                    self.threads[uuid] = (thread[1][0], thread[2][0], thread[5][0].decode())
            if 11 in packet:
                assert packet[58] == [3], "events carry CLOCK_MONOTONIC"
                event = fields(packet[11][0])
                arguments = {}
                for note in map(fields, event.get(4, [])):
                    arguments[note[10][0].decode()] = (note.get(3) or note.get(7))[0]
                self.events.append({
                    "time": packet[8][0], "type": event[9][0], "track": event[11][0],
                    "name": event[23][0].decode() if 23 in event else "",
                    "category": event[22][0].decode() if 22 in event else "",
                    "arguments": arguments, "flow": event.get(47, []) + event.get(48, [])})
            if 1 in packet:
                bundle = fields(packet[1][0])
                for entry in map(fields, bundle[2]):
                    self.sched.append((bundle[1][0] if 1 in bundle else 0, entry))

    def named(self, name):
        return [event for event in self.events if event["name"] == name]

    def process_of(self, event):
        return self.processes[event["track"] >> 32 << 32][1]


def run(*arguments, timeout=PATIENCE, **more):
    return subprocess.run([TANDEM, *arguments], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, **more)


class TraceTest(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, name, data=None):
        path = os.path.join(self.directory, name)
        if data is not None:
            with open(path, "wb") as file:
                file.write(data)
        return path


class Share(TraceTest):
    """One run of the main demo, from all sides."""

    def test_the_story_of_all_processes_is_in_the_files(self):
        file = self.path("text", b"some words, again and again; " * 40000)
        out, page, picture = self.path("t.pftrace"), self.path("t.html"), self.path("t.svg")
        result = run("trace", "-o", out, "--html", page, "--svg", picture, "--events", "262144",
                     "--", "demo", "share", "--seconds", "1", file,
                     env={**os.environ, "TMPDIR": self.directory})
        if result.returncode != 0:  # on a machine with other work; nothing that a trace is about
            self.assertIn("not shared fairly", result.stderr)
        self.assertIn("0 mismatches", result.stdout)
        self.assertRegex(result.stderr, r"tandem: trace: \S+ events of \d+ threads in \d+ processes, 0 dropped")
        self.assertRegex(result.stderr, r"events of the scheduler|without the scheduler's view: ")
        left = [name for name in os.listdir(self.directory) if name.startswith("tandem-trace")]
        self.assertEqual(left, [])
        self.check_events(Perfetto(out))
        self.check_pictures(page, picture)

    def check_events(self, trace):
        self.assertEqual(set(trace.clocks), {3, 6})
        names = {name for _, name in trace.processes.values()}
        self.assertLessEqual({"tandemd", "tenant 1", "tenant 2", "tenant 3", "tenant 4",
                              "tenant 2's kid", "tandem"}, names)
        for name in ("queue_submit", "queue_complete", "doorbell", "operation", "page_request",
                     "page_service", "page_response", "operation_fault", "pasid_bind",
                     "pasid_unbind", "fork_rebind", "rcu_grace_period_end"):
            self.assertTrue(trace.named(name), name)
        # Killed by SIGKILL, and still here.
        self.assertTrue([e for e in trace.named("queue_submit") if trace.process_of(e) == "tenant 3"])
        self.assertTrue(trace.named("kill -9 tenant 3"))
        self.assertEqual({trace.process_of(e) for e in trace.named("fork_rebind")}, {"tenant 2's kid"})
        prober = [pid for pid, name in trace.processes.values() if name == "tenant 4"]
        pasids = [e["arguments"]["pasid"] for e in trace.named("pasid_bind") if e["arguments"]["pid"] in prober]
        # What the killed one had in flight may have faulted, too.
        faults = [e for e in trace.named("operation_fault") if e["arguments"]["pasid"] in pasids]
        self.assertEqual(len(faults), 2)
        for fault in faults:
            self.assertEqual(trace.process_of(fault), "tandemd")
            served = [e for e in trace.named("page_service") if all(
                e["arguments"][name] == fault["arguments"][name] for name in ("pasid", "address"))]
            self.assertTrue(served, "the page fault behind it")
        # Slices nest: no end without its begin, and arguments as documented.
        depth = collections.Counter()
        last = 0
        for event in trace.events:
            self.assertGreaterEqual(event["time"], last)
            last = event["time"]
            self.assertIn(event["track"], trace.threads)
            if event["type"] == 1:
                depth[event["track"]] += 1
            elif event["type"] == 2:
                depth[event["track"]] -= 1
                self.assertGreaterEqual(depth[event["track"]], 0)
        operation = trace.named("operation")[0]
        self.assertEqual(operation["category"], "engine")
        self.assertEqual(set(operation["arguments"]), {"queue", "opcode", "pasid", "device", "core"})
        # A request's flow goes from the tenant over the engine back to the tenant.
        steps = collections.defaultdict(list)
        for event in trace.events:
            for flow in event["flow"]:
                steps[flow].append((event["name"], trace.process_of(event)))
        whole = [s for s in steps.values() if [name for name, _ in s] ==
                 ["queue_submit", "operation", "queue_complete"]]
        self.assertGreater(len(whole), 10)
        self.assertTrue(all(s[0][1] == s[2][1] for s in whole))
        for _, entry in trace.sched:
            self.assertTrue(4 in entry or 17 in entry)

    def check_pictures(self, page, picture):
        svg = xml.etree.ElementTree.parse(picture).getroot()
        with open(picture, encoding="utf-8") as file:
            text = file.read()
        self.assertLess(len(text), 2 << 20)
        for words in ("core 0", "tenant 1", "tenant 2's kid", "kill -9 tenant 3",
                      "tenant 4: fault", "tenant 3: ended with its queues open", "prefers-color-scheme:dark"):
            self.assertIn(words, text)
        self.assertTrue(svg.tag.endswith("svg"))
        with open(page, encoding="utf-8") as file:
            html = file.read()
        self.assertIn(text, html)
        self.assertEqual(re.findall(r"(?:src|href)=|url\(|@import", html), [], "needs no network")
        self.assertEqual(set(re.findall(r"https?://[^\s\"<]+", html)), {"http://www.w3.org/2000/svg"})


class Recording(TraceTest):
    COMPRESS = ["compress", "-k", "-f"]

    def trace(self, *options, command, env=None):
        out = self.path("t.pftrace")
        result = run("trace", "-o", out, *options, "--", *command,
                     env={**os.environ, "TANDEM": "embedded", "TMPDIR": self.directory, **(env or {})})
        return result, out

    def file(self):
        return self.path("text", b"some words, again and again; " * 40000)

    def test_only_the_categories_asked_for(self):
        result, out = self.trace("--categories", "queue,process", command=[*self.COMPRESS, self.file()])
        self.assertEqual(result.returncode, 0, result.stderr)
        categories = {e["category"] for e in Perfetto(out).events} - {""}
        self.assertEqual(categories, {"queue", "process"})

    def test_a_small_ring_drops_the_oldest_and_says_so(self):
        long = self.path("long", b"some words, again and again; " * 400000)
        result, out = self.trace("--events", "64", command=[*self.COMPRESS, long])
        self.assertEqual(result.returncode, 0, result.stderr)
        dropped = re.search(r"(\S+) dropped", result.stderr).group(1)
        self.assertNotEqual(dropped, "0", result.stderr)
        self.assertIn("try: --events", result.stderr)
        per_thread = collections.Counter(e["track"] for e in Perfetto(out).events)
        self.assertLessEqual(max(per_thread.values()), 64)

    def test_what_the_end_of_a_process_records_is_not_lost(self):
        result, out = self.trace("--no-sched", command=["devices"])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(" in 1 process, 0 dropped", result.stderr)
        self.assertTrue(Perfetto(out).events)

    def test_games_are_a_command_too(self):
        result, out = self.trace("--no-sched", "--categories", "kxo",
                                 command=["kxo", "watch", "--plain", "--games", "1", "--o", "random", "--x",
                                          "random"])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(Perfetto(out).events)

    def test_a_program_without_tandem_has_no_events(self):
        result, out = self.trace(command=["true"])
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("no events", result.stderr)
        self.assertEqual(Perfetto(out).events, [])

    def test_the_commands_status_is_ours(self):
        for command, status in ((["sh", "-c", "exit 7"], 7), (["false"], 1),
                                (["sh", "-c", "kill -9 $$"], 137)):
            result, out = self.trace(command=command)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertTrue(os.path.exists(out))
        self.assertIn("tandem: trace: sh: ended by Killed", result.stderr)

    def test_what_is_stopped_leaves_its_trace(self):
        out = self.path("t.pftrace")
        process = subprocess.Popen(
            [TANDEM, "trace", "-o", out, "--", "demo", "share", "--seconds", "60", self.file()],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "TMPDIR": self.directory})
        for line in process.stderr:
            if "private broker" in line:
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 1, errors)
        self.assertIn("interrupted", errors)
        self.assertTrue(Perfetto(out).named("pasid_bind"))
        left = [name for name in os.listdir(self.directory) if name.startswith("tandem-trace")]
        self.assertEqual(left, [])


class Games(TraceTest):
    """A board against the client and one of two agents."""

    def test_boards_are_in_the_files(self):
        example = os.path.join(os.path.dirname(TANDEM), "..", "..", "examples", "example_kxo")
        if not os.path.exists(example):
            self.skipTest("examples are not built")
        out, picture = self.path("t.pftrace"), self.path("t.svg")
        result = run("trace", "-o", out, "--svg", picture, "--categories", "kxo", "--events", "262144",
                     "--", example, env={**os.environ, "TANDEM": "embedded", "TMPDIR": self.directory})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(" 0 dropped", result.stderr)
        trace = Perfetto(out)
        self.assertEqual({e["category"] for e in trace.events} - {""}, {"kxo"})
        numbers = collections.defaultdict(list)
        for move in trace.named("game_move"):
            numbers[move["arguments"]["board"]].append(move["arguments"]["number"])
        self.assertEqual(len(numbers), 2)
        for board, moves in numbers.items():
            self.assertEqual(moves, list(range(len(moves))), "each move once, in order")
            begun = [e for e in trace.named("game_begun") if e["arguments"]["board"] == board]
            ended = [e for e in trace.named("game_ended") if e["arguments"]["board"] == board]
            self.assertIn(len(begun) - len(ended), (0, 1))
            self.assertEqual([e["arguments"]["game"] for e in begun], list(range(len(begun))))
        by_agents = [e for e in trace.named("game_move") if e["arguments"]["player"] != 0]
        thoughts = [e for e in trace.named("think") if e["type"] == 1]
        self.assertIn(len(thoughts) - len(by_agents), (0, 1, 2), "the last ones may not be made")
        with open(picture, encoding="utf-8") as file:
            text = file.read()
        for words in ("2 boards", "random thinks", "user – random", "random – random"):
            self.assertIn(words, text)


class BadInput(TraceTest):
    def check(self, arguments, status, words):
        result = run("trace", *arguments)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertRegex(result.stderr, words)
        return result

    def test_is_told_before_anything_runs(self):
        ran = self.path("ran")
        touch = ["--", "touch", ran]
        out = self.path("t.pftrace")
        self.check(["-o", "/no/such/directory/file", *touch], 3,
                   "tandem: trace: /no/such/directory/file: .*; try: ")
        self.check(["-o", self.directory, *touch], 1, "tandem: trace: .*directory; try: ")
        self.check(["--html", out, "--svg", out, *touch], 2, "one file for two formats; try: ")
        self.check(["--html", "/no/such/directory/file", *touch], 3, "tandem: trace: ")
        self.check(["-o", out, "--categories", "engine,cache", *touch], 2, "engine,cache: no such category; try: ")
        self.check(["-o", out, "--events", "1", *touch], 2, "--events")
        self.check(["-o", out, "--events", "many", *touch], 2, "--events")
        self.check(touch, 2, "nothing to write; try: ")
        self.check(["-o", out], 2, "COMMAND is required")
        self.assertFalse(os.path.exists(ran))

    def test_what_cannot_be_run(self):
        out = self.path("t.pftrace")
        self.check(["-o", out, "--", "/no/such/program"], 3, "tandem: trace: /no/such/program: No such file")
        self.check(["-o", out, "--", self.path("text", b"no program")], 4, "Permission denied; try: ")

    def test_what_cannot_be_written(self):
        result = self.check(["-o", "/dev/full", "--", "true"], 1, "tandem: trace: /dev/full: No space left")
        self.assertNotIn("Traceback", result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
