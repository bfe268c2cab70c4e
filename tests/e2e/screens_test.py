# SPDX-License-Identifier: Apache-2.0
"""The screens of tandem kxo, in a real terminal: tmux, keys, and the text that is to be seen."""
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import default_signals  # noqa: F401  what is imported is what it does

TANDEM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "tandem"
TANDEMD = os.path.join(os.path.dirname(TANDEM), "../tandemd/tandemd")
PATIENCE = 300  # seconds; a sanitized build on a busy machine is slow


def wait_until(condition, what):
    """What `condition` gives, once that is true."""
    end = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(what() if callable(what) else what)
        time.sleep(0.05)


class Screen:
    """A terminal in which a command runs."""

    def __init__(self, command, columns=80, rows=24, **environment):
        self.directory = tempfile.TemporaryDirectory()
        self.pid_file = os.path.join(self.directory.name, "pid")
        self.modes_file = os.path.join(self.directory.name, "modes")
        script = os.path.join(self.directory.name, "run")
        with open(script, "w", encoding="utf-8") as file:
            # ^C is for the command alone.
            file.write("trap : INT\n"
                       f"sh -c 'echo $$ > {self.pid_file}; exec {command}'\n"
                       f"echo \"ENDED $?\"\nstty -a > {self.modes_file}.new\n"
                       f"mv {self.modes_file}.new {self.modes_file}\ncat\n")
        configuration = os.path.join(self.directory.name, "tmux.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write("set -g history-limit 50000\n")
        settings = {**os.environ, "TANDEM": "embedded", **environment}
        settings.pop("TMUX", None)
        if "NO_COLOR" not in environment:
            settings.pop("NO_COLOR", None)
        self.tmux("-f", configuration, "new-session", "-d", "-x", str(columns), "-y", str(rows),
                  "sh", script, env=settings)

    def tmux(self, *arguments, env=None):
        result = subprocess.run(
            ["tmux", "-u", "-S", os.path.join(self.directory.name, "socket"), *arguments],
            capture_output=True, text=True, timeout=PATIENCE, env=env)
        if result.returncode != 0:
            raise AssertionError(f"tmux {arguments}: {result.stderr}")
        return result.stdout

    def close(self):
        subprocess.run(["tmux", "-S", os.path.join(self.directory.name, "socket"), "kill-server"],
                       capture_output=True, timeout=PATIENCE)
        self.directory.cleanup()

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def resize(self, columns, rows):
        self.tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def text(self, *options):
        return self.tmux("capture-pane", "-p", *options)

    def everything(self):
        """With what has scrolled away; lines that were too long are one again."""
        return self.text("-J", "-S", "-")

    def wait_for(self, pattern):
        """The match of `pattern` on the screen."""
        return wait_until(lambda: re.search(pattern, self.text()),
                          lambda: f"no {pattern!r} on the screen:\n{self.text()}")

    def pid(self):
        wait_until(lambda: os.path.exists(self.pid_file), "it does not start")
        with open(self.pid_file, encoding="utf-8") as file:
            return int(file.read())

    def modes(self):
        """Of the terminal, after the command has ended."""
        wait_until(lambda: os.path.exists(self.modes_file), lambda: "no end:\n" + self.text())
        with open(self.modes_file, encoding="utf-8") as file:
            return file.read().split()


class OnScreen(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if shutil.which("tmux") is None:
            raise unittest.SkipTest("no tmux; try: tools/setup test")

    def screen(self, arguments, **options):
        screen = Screen(f"{TANDEM} kxo {arguments}", **options)
        self.addCleanup(screen.close)
        return screen

    def assert_restored(self, screen):
        modes = screen.modes()
        for mode in ("icanon", "echo", "isig", "ixon", "icrnl", "opost"):
            self.assertIn(mode, modes)


def board_lines(text):
    return [line[:24] for line in text.splitlines()[2:6]]


def moves_of(match):
    return int(match.group(1))


class Watch(OnScreen):
    RANDOM = "watch --o random --x random"
    MOVES = r"(\d+) moves\b(?!/)"

    def test_pause_stops_the_drawing_and_quit_prints_every_move(self):
        screen = self.screen(self.RANDOM + " --boards 4 --rate 50")
        screen.wait_for(r"kxo 4x4-3  4 boards  50 moves/s each, \d+ in all")
        wait_until(lambda: moves_of(screen.wait_for(self.MOVES)) >= 20, "no moves")
        screen.keys("C-p")
        screen.wait_for("DRAWING PAUSED")
        frozen = screen.text()
        paused_at = moves_of(screen.wait_for(self.MOVES))
        screen.resize(100, 30)  # drawn anew, and the same
        wait_until(lambda: "^Q end" in "".join(screen.text().splitlines()[29:]), "not resized")
        screen.resize(80, 24)
        wait_until(lambda: screen.text() == frozen, lambda: frozen + screen.text())
        screen.keys("C-p")
        wait_until(lambda: "PAUSED" not in screen.text(), "still paused")
        wait_until(lambda: moves_of(screen.wait_for(self.MOVES)) > paused_at, "moves stopped")
        shown = moves_of(screen.wait_for(self.MOVES))
        screen.keys("C-q")
        screen.wait_for("ENDED 0")
        games = re.findall(r"^board (\d) game (\d+): random - random: (.*?): ([a-d1-4 ]+)$",
                           screen.everything(), re.M)
        self.assertEqual({board for board, *_ in games}, {"1", "2", "3", "4"}, screen.everything())
        self.assertGreaterEqual(sum(len(moves.split()) for *_, moves in games), shown)
        for _, _, result, moves in games:
            self.assertEqual(len(set(moves.split())), len(moves.split()))
            if result != "open":
                self.assertGreaterEqual(len(moves.split()), 5)
        for board in "1234":
            numbers = [int(number) for its, number, *_ in games if its == board]
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assert_restored(screen)

    def test_agents_and_speed_change_while_it_runs(self):
        screen = self.screen(self.RANDOM + " --boards 3")
        screen.wait_for(r">1\b")
        screen.keys("Right")
        screen.wait_for(r">2\b")
        screen.keys("x")
        screen.wait_for(r"X random .*X perfect .*X random")
        screen.keys("+")
        screen.wait_for("20 moves/s each")
        screen.keys("-", "-")
        screen.wait_for("5 moves/s each")
        before = moves_of(screen.wait_for(self.MOVES))
        wait_until(lambda: moves_of(screen.wait_for(self.MOVES)) > before + 20, "moves stopped")
        screen.keys("C-q")
        screen.wait_for("ENDED 0")
        self.assertRegex(screen.everything(), r"board 2 game \d+: random - (random, )?perfect: ")

    def test_the_grid_follows_the_size_of_the_terminal(self):
        screen = self.screen(self.RANDOM + " --boards 64")
        screen.wait_for("page 1/6")
        self.assertIn("#12", screen.text())
        self.assertNotIn("#13", screen.text())
        screen.resize(140, 50)
        screen.wait_for("page 1/2")
        self.assertIn("#45", screen.text())
        screen.keys("NPage")
        screen.wait_for(r"(?s)page 2/2.*>46")
        screen.resize(80, 24)
        screen.wait_for(r"(?s)page 4/6.*>46")
        screen.resize(20, 5)
        screen.wait_for("a board needs 7 rows")
        screen.resize(80, 24)
        screen.wait_for("page 4/6")
        self.assertLessEqual(max(map(len, screen.text().splitlines())), 80)

    def test_signals_give_the_terminal_back(self):
        for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
            screen = self.screen(self.RANDOM)
            screen.wait_for("moves/s each")
            os.kill(screen.pid(), number)
            screen.wait_for(f"ENDED {status}")
            self.assert_restored(screen)

    def test_who_loses_the_terminal_ends(self):
        screen = self.screen(self.RANDOM)
        screen.wait_for("moves/s each")
        pid = screen.pid()
        screen.tmux("kill-server")

        def gone():
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    return file.read().rpartition(")")[2].split()[0] == "Z"
            except (FileNotFoundError, ProcessLookupError):
                return True
        wait_until(gone, "it goes on without a terminal")

    def test_it_stops_and_continues_as_other_programs(self):
        shell = Screen("bash --norc --noprofile -i", PS1="ready> ", TERM="screen")
        self.addCleanup(shell.close)
        shell.wait_for("(?m)ready> ?$")
        shell.keys(f"{TANDEM} kxo {self.RANDOM}", "Enter")
        shell.wait_for("moves/s each")
        shell.keys("C-z")
        shell.wait_for(r"Stopped")
        shell.keys("stty -a | grep -o ' ixon'; clear; echo so far", "Enter")
        shell.wait_for("(?m)^so far")
        shell.keys("fg", "Enter")
        shell.wait_for(r"(?s)^kxo 4x4-3 .*#12")
        shell.keys("C-q")
        shell.wait_for(r"board 12 game \d")

    def test_colours_are_hints_and_can_be_left_out(self):
        screen = self.screen(self.RANDOM, NO_COLOR="")
        screen.wait_for("(?s)O random.*[OX] ")
        wait_until(lambda: re.search("\033\\[[0-9;]*36m", screen.text("-e")), "no colour")
        plain = self.screen(self.RANDOM, NO_COLOR="1")
        wait_until(lambda: moves_of(plain.wait_for(self.MOVES)) > 20, "no moves")
        self.assertNotRegex(plain.text("-e"), "\033\\[[0-9;]*3[0-7]m")
        self.assertRegex(plain.text("-e"), "\033\\[[0-9;]*[14](;[0-9]+)*m[OX]")  # the last move

    def test_the_size_is_that_of_the_terminal(self):
        screen = self.screen(self.RANDOM + " --boards 64", LINES="100000", COLUMNS="20")
        screen.wait_for("page 1/6")

    def test_a_terminal_without_a_screen(self):
        screen = self.screen(self.RANDOM, TERM="dumb")
        # tmux says what it is itself
        shell = Screen(f"env TERM=dumb {TANDEM} kxo {self.RANDOM}")
        self.addCleanup(shell.close)
        shell.wait_for("ENDED 1")
        self.assertIn("TERM=dumb has no screen; try: --plain", " ".join(shell.text().split()))
        screen.wait_for("moves/s each")


class Play(OnScreen):
    def test_a_game_by_cursor_by_name_with_hint_and_undo(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "games")
            screen = self.screen(f"play --against random --seed 3 --save {path}")
            screen.wait_for("your turn, O")
            screen.wait_for(r"kxo 4x4-3   you \(O\) against random")
            screen.keys("Left", "Up", "Enter")  # from c3 to b2
            screen.wait_for(r"random played ([a-d][1-4])")
            screen.wait_for(r"(?m)moves: b2 ([a-d][1-4])$")
            screen.keys("b", "2")
            screen.wait_for("b2 is taken by O")
            screen.keys("h")
            hint = screen.wait_for(r"hint: ([a-d][1-4]), wins in \d+ plies").group(1)
            screen.keys(hint[0], hint[1])
            screen.wait_for(rf"(?m)moves: b2 [a-d][1-4] {hint} [a-d][1-4]$")
            screen.keys("u")
            screen.wait_for(r"(?m)moves: b2 [a-d][1-4]$")
            screen.keys("h")
            screen.wait_for("hint: ")
            screen.keys("Enter")  # the hint has moved the cursor
            screen.wait_for(rf"moves: b2 [a-d][1-4] {hint}")
            for _ in range(8):
                wait_until(lambda: re.search("your turn|O wins", screen.text()), "no turn")
                if "O wins" in screen.text():
                    break
                screen.keys("h")
                screen.wait_for("hint: [a-d]")
                before = screen.wait_for(r"moves: (.*)").group(1)
                screen.keys("Enter")
                wait_until(lambda: screen.wait_for(r"moves: (.*)").group(1) != before, "no move")
            screen.wait_for("O wins: you won; n: new game")
            screen.wait_for("won 1, lost 0")
            screen.keys("t")
            screen.wait_for(r"against td\b")
            screen.keys("n")
            screen.wait_for("(?m)moves:$")
            screen.keys("C-q")
            screen.wait_for("ENDED 0")
            self.assertRegex(screen.everything(), r"you - random: O wins: b2 ")
            self.assert_restored(screen)
            replay = self.screen(f"replay {path}")
            replay.wait_for("move 0 of")
            replay.keys("Right")
            replay.wait_for("move 1 of .*: O b2")
            replay.keys("End")
            replay.wait_for("; O wins")
            replay.keys("q")
            replay.wait_for("ENDED 0")
            self.assert_restored(replay)

    def test_who_thinks_for_long_does_not_keep_the_person(self):
        slow = "play --game 7x7-6 --as x --against mcts:time=3600s"
        screen = self.screen(slow)
        screen.wait_for("mcts:time=3600s thinks")
        screen.keys("t")
        screen.wait_for("(?sm)against copycat.*copycat played a1.*moves: a1$")
        screen.keys("h")
        screen.wait_for("hint: (thinking|[a-g][1-7])")  # after a second it is there
        screen.keys("b", "2")
        screen.wait_for("(?sm)copycat played f6.*moves: a1 b2 f6$")
        screen.keys("C-q")
        screen.wait_for("ENDED 0")
        again = self.screen(slow)
        again.wait_for("mcts:time=3600s thinks")
        again.keys("C-q")
        again.wait_for("ENDED 0")
        self.assert_restored(again)

    def test_a_hint_about_a_position_that_is_gone_is_not_shown(self):
        screen = self.screen("play --game 7x7-6 --against mcts:time=3s")
        screen.wait_for("your turn, O")
        # Thought about for a second, in which the move has to come: all of it at once.
        screen.keys("h", "d", "4")
        screen.wait_for("moves: d4")

        def played():
            text = screen.text()
            self.assertNotIn("hint:", text)
            return "mcts:time=3s played" in text
        wait_until(played, "no move")

    def test_it_fits_after_a_resize(self):
        screen = self.screen("play --against random --as x --game 8x8-5", columns=120, rows=40)
        screen.wait_for(r"\+---\+")
        screen.resize(80, 24)
        screen.wait_for(r"your turn, X")
        wait_until(lambda: "+---+" in screen.text() or " a  b  c" in screen.text(), "no board")
        self.assertLessEqual(max(map(len, screen.text().splitlines())), 80)
        screen.resize(30, 8)
        screen.wait_for("the board needs")
        screen.keys("C-c")
        screen.wait_for("ENDED 130")
        self.assert_restored(screen)


class Plain(unittest.TestCase):
    def run_kxo(self, *arguments, text="", **environment):
        return subprocess.run([TANDEM, "kxo", *arguments], input=text, capture_output=True,
                              text=True, timeout=PATIENCE,
                              env={**os.environ, "TANDEM": "embedded", **environment})

    def test_play_reads_moves_from_a_pipe(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "games")
            result = self.run_kxo("play", "--against", "random", "--seed", "3", "--save", path,
                                  text="b2\nb2\nzz\nhint\nundo\nnew\na1\nagainst negamax\nquit\n")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(result.stderr, "")
            self.assertNotIn("\033", result.stdout)
            for words in ("    a  b  c  d\n 1  .  .  .  .", "b2 is taken by O", "'zz' is no cell",
                          "hint: ", "taken back", "new game", "you play against negamax"):
                self.assertIn(words, result.stdout)
            replay = self.run_kxo("replay", path)
            self.assertEqual(replay.returncode, 0, replay.stderr)
            self.assertIn("move 1: O a1\n    a  b  c  d\n 1 [O] .  .  .\n", replay.stdout)
            # A second session adds to it.
            self.run_kxo("play", "--against", "random", "--save", path, text="d4\n")
            self.assertIn("move 1: O d4", self.run_kxo("replay", path).stdout)

    def test_watch_prints_a_line_for_each_move_and_game(self):
        for mode in ("embedded", "inline"):
            result = self.run_kxo("watch", "--boards", "2", "--o", "random", "--x", "random",
                                  "--rate", "100", "--games", "3", TANDEM=mode)
            self.assertEqual(result.returncode, 0, result.stderr)
            games = re.findall(r"^board (\d) game (\d+): random - random: (.*): (.*)$",
                               result.stdout, re.M)
            self.assertEqual(len(games), 3, result.stdout)
            for board, number, _, moves in games:
                lines = re.findall(rf"^board {board} game {number} move \d+: [OX] (.*)$",
                                   result.stdout, re.M)
                self.assertEqual(" ".join(lines), moves)

    def test_watch_saves_what_replay_reads(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "games")
            result = self.run_kxo("watch", "--boards", "2", "--o", "random", "--x", "random",
                                  "--rate", "100", "--games", "2", "--save", path)
            self.assertEqual(result.returncode, 0, result.stderr)
            replay = self.run_kxo("replay", path)
            self.assertEqual(replay.returncode, 0, replay.stderr)
            self.assertEqual(len(re.findall("(?m)^([OX] wins|draw)$", replay.stdout)), 2)

    def test_what_is_wrong_is_said(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("kxo games 1\ngame 4x4-3\nmoves a1 a1\n")
            file.flush()
            for arguments, status, words in (
                    (["play", "--against", "nobody"], 2, "no agent 'nobody'"),
                    (["play", "--game", "4x4"], 2, "is no game"),
                    (["play", "--as", "y"], 2, "--as"),
                    (["play", "--save", __file__], 2, "not a file of games"),
                    (["play", "--save", "/no/such/directory/file"], 3, "No such file"),
                    (["watch", "--o", "nobody"], 2, "no agent 'nobody' of the device"),
                    (["watch", "--game", "8x8-5", "--x", "perfect"], 2, "there are: mcts"),
                    (["watch", "--boards", "0"], 2, "--boards"),
                    (["replay", "/no/such/file"], 3, "No such file"),
                    (["replay", file.name], 1, "line 3: a1 is taken already")):
                result = self.run_kxo(*arguments)
                self.assertEqual(result.returncode, status, (arguments, result.stderr))
                self.assertIn(words, result.stderr)
                self.assertRegex(result.stderr, "^tandem: ")
        result = self.run_kxo("watch", TANDEM="unix:/no/such/socket")
        self.assertEqual(result.returncode, 5)

    def test_the_file_of_a_match_is_told_from_one_of_games(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "match.txt")
            self.run_kxo("match", "random", "random", "--pairs", "1", "--save", path)
            for command, status in ((["replay"], 1), (["play", "--save"], 2)):
                result = self.run_kxo(*command, path)
                self.assertEqual(result.returncode, status, result.stderr)
                self.assertIn("is of tandem kxo match --save, not a file of games; try: tandem kxo "
                              f"match --resume --save {path}\n", result.stderr)

    def test_each_game_is_kept_once(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "games")
            result = self.run_kxo("play", "--game", "2x2-2", "--against", "random", "--save", path,
                                  text="a1\na2\nb1\nb2\nt\nhint\nagainst random\n")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(self.run_kxo("replay", path).stdout.count("game "), 1)

    def test_a_broker_that_dies_is_noticed(self):
        with tempfile.TemporaryDirectory() as directory:
            path, socket = (os.path.join(directory, name) for name in ("games", "broker.sock"))
            ready, told = os.pipe()
            broker = subprocess.Popen([TANDEMD, "--socket", socket, "--ready-fd", str(told)],
                                      pass_fds=[told], stderr=subprocess.DEVNULL)
            os.close(told)
            self.assertNotEqual(os.read(ready, 1), b"")
            os.close(ready)
            process = subprocess.Popen(
                [TANDEM, "kxo", "watch", "--plain", "--o", "random", "--x", "random", "--save", path],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                env={**os.environ, "TANDEM": "unix:" + socket})
            self.assertIn("move 1: O", process.stdout.readline())
            broker.kill()
            broker.wait()
            _, errors = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, 5, errors)
            self.assertRegex(errors, "^tandem: kxo watch: .*; try: ")
            self.assertIn("move 1: O", self.run_kxo("replay", path).stdout)

    def test_what_is_stopped_keeps_its_games(self):
        with tempfile.TemporaryDirectory() as directory:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                for command, text in ((("watch", "--o", "random", "--x", "random"), b"board "),
                                      (("play", "--against", "random"), b"your turn")):
                    path = os.path.join(directory, f"{command[0]}-{number}")
                    process = subprocess.Popen(
                        [TANDEM, "kxo", *command, "--plain", "--save", path], bufsize=0,
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        env={**os.environ, "TANDEM": "embedded"})
                    process.stdin.write(b"a1\n")
                    seen = b""
                    while seen.count(text) < 2:
                        more = os.read(process.stdout.fileno(), 65536)
                        self.assertNotEqual(more, b"", seen)
                        seen += more
                    process.send_signal(number)
                    # It is read until its end: what it still says has to have room.
                    _, errors = process.communicate(timeout=PATIENCE)
                    self.assertEqual(process.returncode, -number, errors)
                    self.assertIn("move 1: O", self.run_kxo("replay", path).stdout)

    def test_who_has_no_reader_any_more_keeps_its_games(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "games")
            process = subprocess.Popen(
                [TANDEM, "kxo", "watch", "--plain", "--o", "random", "--x", "random", "--save", path],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                env={**os.environ, "TANDEM": "embedded"})
            os.read(process.stdout.fileno(), 1)
            process.stdout.close()
            process.stdout = None
            process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, -signal.SIGPIPE)
            self.assertIn("move 1: O", self.run_kxo("replay", path).stdout)

    def test_a_full_disk_leaves_the_games_that_are_there(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "games")
            self.run_kxo("play", "--against", "random", "--save", path, text="a1\n")
            size = os.path.getsize(path)

            def limit():
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
            result = subprocess.run([TANDEM, "kxo", "play", "--plain", "--against", "random",
                                     "--save", path], input="a1\n", text=True, capture_output=True,
                                    timeout=PATIENCE, preexec_fn=limit)
            self.assertEqual(result.returncode, 1)
            self.assertRegex(result.stderr, "^tandem: kxo play: .*File too large; try: another --save")
            self.assertEqual(os.path.getsize(path), size)
            self.assertEqual(self.run_kxo("replay", path).returncode, 0)

    def test_lines_of_files_may_end_as_in_dos(self):
        with tempfile.NamedTemporaryFile("w", newline="") as file:
            file.write("kxo games 1\r\ngame 4x4-3\r\nmoves a1\r\n")
            file.flush()
            self.assertIn("move 1: O a1", self.run_kxo("replay", file.name).stdout)

    def test_files_that_are_none(self):
        with tempfile.TemporaryDirectory() as directory:
            pipe = os.path.join(directory, "pipe")
            os.mkfifo(pipe)
            escape = os.path.join(directory, "escape")
            with open(escape, "w", encoding="utf-8") as file:
                file.write("kxo games 1\ngame 4x4-3\no \033]0;owned\a\n")
            for arguments, status, words in (
                    (["replay", pipe], 1, "is no regular file"),
                    (["play", "--save", pipe], 2, "is no regular file"),
                    (["watch", "--save", pipe], 2, "is no regular file"),
                    (["watch", "--save", "/dev/null"], 2, "is no regular file"),
                    (["replay", "/dev/zero"], 1, "is no regular file"),
                    (["replay", directory], 1, "is no regular file"),
                    (["replay", ""], 3, "No such file"),
                    (["replay", escape], 1, "line 3 has a control character"),
                    (["play", "--save", escape], 2, "line 3 has a control character")):
                result = self.run_kxo(*arguments)
                self.assertEqual(result.returncode, status, (arguments, result.stderr))
                self.assertRegex(result.stderr, "^tandem: kxo [^\033]*; try: ")
                self.assertIn(words, result.stderr)

    def test_help_has_examples(self):
        for command in ("play", "watch", "replay"):
            result = self.run_kxo(command, "--help")
            self.assertIn("Examples:", result.stdout)
            self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)


if __name__ == "__main__":
    unittest.main()
