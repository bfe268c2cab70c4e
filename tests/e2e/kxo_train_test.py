# SPDX-License-Identifier: Apache-2.0
"""tandem kxo train and export: the same models however training is stopped, and clear errors."""
import csv
import io
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree as xml

import default_signals  # noqa: F401  what is imported is what it does

TANDEM = sys.argv.pop(1) if len(sys.argv) > 1 else "tandem"
SANITIZED = os.environ.get("TANDEM_SANITIZED") == "1"
SMALL = ("--game", "3x3-3", "--generation", "32", "--evaluate-every", "1024")


class Case(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def write(self, name, text):
        with open(self.path(name), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        return self.path(name)

    def read(self, *parts):
        with open(self.path(*parts), "rb") as file:
            return file.read()

    def run_kxo(self, *arguments):
        return subprocess.run([TANDEM, "kxo", *arguments], capture_output=True, timeout=600,
                              stdin=subprocess.DEVNULL, cwd=self.directory)

    def ok(self, *arguments):
        result = self.run_kxo(*arguments)
        self.assertEqual(result.returncode, 0, result)
        return result.stdout.decode()

    def refused(self, words, code, *arguments):
        result = self.run_kxo(*arguments)
        errors = result.stderr.decode()
        self.assertEqual(result.returncode, code, (arguments, result))
        self.assertIn(words, errors)
        self.assertRegex(errors.splitlines()[-1], r"^tandem: .*; try: ")
        self.assertEqual(result.stdout, b"")

    def timeless(self, run):
        """What has to be the same: the published model and the curve without its seconds."""
        rows = list(csv.DictReader(io.StringIO(self.read(run, "curve.csv").decode())))
        for row in rows:
            del row["seconds"]
        return self.read(run, "model"), rows


class Train(Case):
    def test_writes_model_curves_and_plan(self):
        text = self.ok("train", *SMALL, "--games", "20480")
        self.assertIn("20.5k games", text)
        self.assertIn("kxo-3x3-3-td/model", text)
        run = "kxo-3x3-3-td"
        self.assertEqual(sorted(os.listdir(self.path(run))),
                         ["checkpoint", "curve.csv", "curve.svg", "model", "plan.toml"])
        _, rows = self.timeless(run)
        self.assertEqual([int(row["games"]) for row in rows], list(range(0, 20481, 1024)))
        self.assertGreater(float(rows[-1]["kept_share"]), float(rows[0]["kept_share"]) + 0.2)
        self.assertTrue(rows[0]["points_share"] == "" and rows[0]["published"] == "1")
        picture = xml.fromstring(self.read(run, "curve.svg"))
        lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
        self.assertEqual([len(line.get("points").split()) for line in lines], [21, 21])
        # The plan as a config: the same again.
        self.ok("train", "--config", f"{run}/plan.toml", "--games", "20480", "--out", "again")
        self.assertEqual(self.timeless("again"), self.timeless(run))
        # Who plays by the model keeps what the curve says, in other positions nearly.
        kept = json.loads(self.ok("regret", f"td:model={run}/model", "--game", "3x3-3", "--json"))
        self.assertGreater(kept["agents"][0]["kept_share"], 0.9)

    @unittest.skipIf(SANITIZED, "takes minutes under a sanitizer")
    def test_three_in_a_row_is_learned_better_than_it_began(self):
        self.ok("train", "--games", "600000", "--out", "run")
        _, rows = self.timeless("run")
        self.assertGreaterEqual(float(rows[-1]["kept_share"]), 0.99)
        self.assertLess(float(rows[0]["kept_share"]), 0.8)

    def begin(self, run):
        """Training that does not end by itself, new or where its checkpoint is."""
        plan = ["--resume"] if os.path.exists(self.path(run, "checkpoint")) else SMALL
        return subprocess.Popen(
            [TANDEM, "kxo", "train", *plan, "--seconds", "600", "--save-every", "0.01", "--out", run],
            cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def saved(self, run):
        try:
            return os.stat(self.path(run, "checkpoint")).st_mtime_ns
        except FileNotFoundError:
            return 0

    def stop(self, run, number):
        """Has it interrupted after it saved. Returns: the games of its checkpoint."""
        before = self.saved(run)
        process = self.begin(run)
        while self.saved(run) == before and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=600)
        self.assertEqual(process.returncode, 1, errors)
        self.assertEqual(output, "")
        self.assertRegex(errors, r"tandem: kxo train: interrupted after \d+ games, all saved; "
                                 rf"try: tandem kxo train --resume --out {run}\n$")
        return int(re.search(r"after (\d+) games", errors).group(1))

    def same_as_a_whole_one(self, run, games):
        self.ok("train", "--resume", "--games", str(games), "--out", run)
        self.ok("train", *SMALL, "--games", str(games), "--out", run + "-whole")
        self.assertEqual(self.timeless(run), self.timeless(run + "-whole"))

    def test_killed_at_any_moment_and_resumed_it_is_the_same(self):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}", file=sys.stderr)
        moments = random.Random(seed)
        for _ in range(30):
            process = self.begin("cut")
            time.sleep(moments.uniform(0.01, 0.5 if SANITIZED else 0.1))
            process.kill()
            _, errors = process.communicate()
            self.assertEqual(process.returncode, -signal.SIGKILL, errors)
        self.same_as_a_whole_one("cut", self.stop("cut", signal.SIGINT) + 1024)

    def test_interrupted_it_saves_and_says_how_to_go_on(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            run = f"run-{number}"
            self.same_as_a_whole_one(run, self.stop(run, number) + 1024)

    def test_a_large_board_is_judged_by_games(self):
        self.ok("train", "--game", "6x3-3", "--games", "64", "--generation", "16",
                "--evaluate-every", "32", "--out", "run")
        _, rows = self.timeless("run")
        self.assertEqual([row["kept_share"] for row in rows], [""] * 3)
        self.assertNotEqual(rows[1]["points_share"], "")

    def test_lines_but_no_escapes_where_there_is_no_terminal(self):
        result = self.run_kxo("train", *SMALL, "--games", "1024", "--out", "run")
        self.assertNotIn(b"\033", result.stderr + result.stdout)
        self.assertNotIn(b"\r", result.stderr + result.stdout)
        self.assertIn(b"% of values kept", result.stderr)


class Config(Case):
    def test_the_command_line_comes_first(self):
        path = self.write("c.toml", 'game = "3x3-3" # small\r\nmethod="q"\n\n  seed = 7  # of luck\n'
                                    "games = 6_4\ngeneration = 32\nout = 'run#1\\'\n")
        self.ok("train", "--config", path, "--seed", "8")
        plan = self.read("run#1\\", "plan.toml").decode()
        for line in ('game = "3x3-3"', 'method = "q"', "seed = 8", "generation = 32"):
            self.assertIn(line + "\n", plan)

    def test_what_is_wrong_is_told(self):
        for text, words in (("speed = 3\n", "no option 'speed'; there are: game, method"),
                            ("[train]\nseed = 3\n", "line 1: is not NAME = VALUE"),
                            ("resume = true\n", "no option 'resume'"),
                            ("seed = 1\nrate = 1\nseed = 2\n", "line 3: 'seed' is there twice"),
                            ("seed = many\n", "seed"), ('method = "sarsa"\n', "sarsa"),
                            ('game = "huge"\n', "huge"), ("lambda = 7\n", "lambda is not in")):
            self.refused(words, 2, "train", "--config", self.write("c.toml", text), "--games", "1")
        for text in (b"[1, 2]", b"[1,", b'"1', b"'1", b"", b"1 2", b'"1" 2', b'"1\\n"', b"1,", b"1=2",
                     b'"""1"""', b"{}"):
            self.refused("line 2: 'seed' has no text in quotes or number", 2, "train", "--config",
                         self.write("c.toml", b"\nseed = " + text + b"\n"))
        for text in (b"seed", b"a.b = 1", b"= = =", b"[[[[", b"\xff\0\n", b"." * 9999, b'"seed" = 1'):
            self.refused("line 1: is not NAME = VALUE", 2, "train", "--config",
                         self.write("c.toml", text))
        self.refused("none.toml: No such file", 3, "train", "--config", "none.toml")


class Numbers(Case):
    def test_what_is_no_number_in_range_is_refused(self):
        for option, value, words in (
                ("seconds", "nan", "not a number in [0, 1000000000"), ("seconds", "inf", "'inf'"),
                ("seconds", "-1", "'-1'"), ("save-every", "nan", "not a number in [0, 1000000"),
                ("games", "-5", "not a whole number"), ("games", "1e3", "not a whole number"),
                ("seed", "18446744073709551616", "not a whole number"),
                ("lambda", "nan", "not a number in"), ("lambda", "-0.1", "lambda is not in [0, 1]"), ("rate", "0", "rate is not in (0, 1]"),
                ("random-plies", "65", "random-plies is not in [0, 64]"),
                ("generation", "0", "generation is not in"),
                ("evaluate-every", "0", "evaluate-every is not in")):
            self.refused(words, 2, "train", f"--{option}={value}")
            self.refused(words, 2, "train", "--config",
                         self.write("c.toml", f"{option} = {value}\n"))
        # Nothing was made for what did not begin.
        self.assertEqual(os.listdir(self.directory), ["c.toml"])


class Directories(Case):
    def test_one_training_each(self):
        self.ok("train", *SMALL, "--games", "32", "--out", "run")
        self.refused("there is a training already", 1, "train", *SMALL, "--out", "run")
        self.refused("was begun with another lambda", 2, "train", "--resume", "--lambda", "0.9",
                     "--games", "32", "--out", "run")
        self.refused("was begun with another game", 2, "train", "--resume", "--game", "4x4-4",
                     "--games", "32", "--out", "run")
        self.ok("train", "--resume", "--game", "3x3-3", "--games", "64", "--out", "run")

    def test_without_a_checkpoint_there_is_nothing_to_resume(self):
        self.refused("there is none", 3, "train", "--resume", "--out", "run")
        self.assertEqual(os.listdir(self.directory), [])
        os.mkdir(self.path("run"))
        self.refused("there is none", 3, "train", "--resume", "--out", "run")
        os.mkdir(self.path("run", "checkpoint"))
        self.refused("is no regular file", 1, "train", "--resume", "--out", "run")

    def test_damaged_checkpoints_are_told(self):
        self.ok("train", *SMALL, "--games", "32", "--out", "run")
        whole = self.read("run", "checkpoint")
        for bytes_, words in ((whole[:100], "is cut short or damaged"), (b"", "is no training"),
                              (whole[:-50] + b"x" + whole[-49:], "is cut short or damaged"),
                              (whole[:8] + b"\x09" + whole[9:], "has version 9, known is 1")):
            self.write("run/checkpoint", bytes_)
            self.refused(words, 1, "train", "--resume", "--out", "run")

    def test_a_directory_that_cannot_be_made_or_written(self):
        self.write("file", "")
        self.refused("file/run: Not a directory", 3, "train", *SMALL, "--out", "file/run")
        self.refused("/proc/run: ", 3, "train", *SMALL, "--out", "/proc/run")
        if os.geteuid() == 0:
            self.skipTest("root may write everywhere")
        os.mkdir(self.path("closed"), 0o500)
        self.refused("Permission denied", 4, "train", *SMALL, "--out", "closed")
        os.mkdir(self.path("listed"), 0o600)
        self.refused("Permission denied", 4, "train", *SMALL, "--out", "listed")

    def test_two_at_once_are_refused(self):
        process = subprocess.Popen([TANDEM, "kxo", "train", *SMALL, "--seconds", "600", "--out",
                                    "run"], cwd=self.directory, stderr=subprocess.DEVNULL)
        try:
            while not os.path.exists(self.path("run", "checkpoint")):
                time.sleep(0.01)
            self.refused("another training uses it", 1, "train", "--resume", "--out", "run")
        finally:
            process.kill()
            process.wait()


class Export(Case):
    def setUp(self):
        super().setUp()
        self.ok("train", *SMALL, "--games", "20480", "--out", "run")

    def test_csv_and_json_lines_are_the_same_table(self):
        rows = list(csv.DictReader(io.StringIO(self.ok("export", "run/model"))))
        self.ok("export", "run/model", "--format", "jsonl", "-o", "table.jsonl")
        lines = [json.loads(line) for line in self.read("table.jsonl").decode().splitlines()]
        self.assertGreater(len(rows), 500)
        self.assertLessEqual(len(rows), 630)  # different positions without a row
        self.assertEqual(len(lines), len(rows))
        for row, line in zip(rows, lines):
            self.assertEqual((row["position"], row["to_move"], row["best"]),
                             (line["position"], line["to_move"], line["best"]))
            self.assertAlmostEqual(float(row["value"]), line["value"], 5)
        # O completes its row: that is worth nearly a win, and the best move.
        table = {row["position"]: row for row in rows}
        row = next(table[p] for p in ("oo./xx./...", "..o/.xo/.x.", "o.x/ox./...", "xx./oo./...",
                                      ".../.xx/.oo", ".../xx./oo.", "x.o/x.o/...", ".xo/.xo/...")
                   if p in table)
        self.assertEqual(row["to_move"], "o")
        self.assertGreater(float(row["value"]), 0.9)

    def test_a_file_is_not_replaced_unasked(self):
        self.write("table", "mine")
        self.refused("exists already", 1, "export", "run/model", "-o", "table")
        self.assertEqual(self.read("table"), b"mine")
        self.ok("export", "run/model", "-o", "table", "-f")
        self.assertTrue(self.read("table").startswith(b"position,"))

    def test_bad_models_are_told(self):
        self.refused("none: No such file", 3, "export", "none")
        self.refused("is no model of kxo", 1, "export", "run/checkpoint")
        self.refused("is no regular file", 1, "export", "run")
        os.symlink("/dev/null", self.path("link"))
        self.refused("is not a regular file; try: without -o, >link", 1, "export", "run/model", "-o",
                     "link", "-f")
        self.write("short", self.read("run", "model")[:99])
        self.refused("is cut short", 1, "export", "short")
        self.refused("is of 3x3-3, and state_value of boards of 4x4", 2, "export", "run/model",
                     "--format", "state_value", "-o", "x")
        self.ok("train", "--game", "6x3-3", "--games", "16", "--out", "large")
        self.refused("is a network", 2, "export", "large/model")
        self.refused("is a model of 3x3-3, not of 4x4-3; try: --game 3x3-3\n", 2, "regret",
                     "td:model=run/model")

    @unittest.skipIf(SANITIZED, "takes minutes under a sanitizer")
    def test_state_value_has_the_layout_of_kxo(self):
        self.ok("train", "--games", "256", "--out", "four")
        self.ok("export", "four/model", "--format", "state_value", "-o", "state_value.bin")
        self.assertEqual(os.path.getsize(self.path("state_value.bin")), 2 * 3**16 * 4)
        rows = csv.DictReader(io.StringIO(self.ok("export", "four/model")))
        with open(self.path("state_value.bin"), "rb") as file:
            def value(player, cells):
                number = 0
                for cell in cells:
                    number = number * 3 + ".ox".index(cell)
                file.seek(4 * (player * 3**16 + number))
                return struct.unpack("<f", file.read(4))[0]

            self.assertEqual(value(0, "ooo.xx.........."), 1)  # O has won
            self.assertEqual(value(1, "ooo.xx.........."), -1)
            self.assertEqual(value(1, "xxx.oo.o........"), 1)
            self.assertEqual(value(0, "oooo............"), 0)  # cannot come up
            for row, _ in zip(rows, range(500)):
                cells = row["position"].replace("/", "")
                mover = "ox".index(row["to_move"])
                self.assertAlmostEqual(value(mover, cells), float(row["value"]), 5)
                self.assertAlmostEqual(value(1 - mover, cells), -float(row["value"]), 5)


if __name__ == "__main__":
    unittest.main()
