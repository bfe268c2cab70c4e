# SPDX-License-Identifier: Apache-2.0
"""tandem kxo: what it prints, against values of the games that are known, and how it ends."""
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import default_signals  # noqa: F401  what is imported is what it does

TANDEM = sys.argv.pop(1) if len(sys.argv) > 1 else "tandem"
SANITIZED = os.environ.get("TANDEM_SANITIZED") == "1"


def run(*arguments, timeout=300):
    return subprocess.run([TANDEM, "kxo", *arguments], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, env=dict(os.environ))


def referee(game, cells):
    """The result of a game for O, by looking at every row of the board: 1, 0.5 or 0."""
    width, height, goal = map(int, re.split("[x-]", game))
    board = {}
    for ply, name in enumerate(cells):
        column, row = ord(name[0]) - ord("a"), int(name[1:]) - 1
        assert 0 <= column < width and 0 <= row < height and (column, row) not in board
        board[column, row] = mover = ply % 2
        for right, down in ((1, 0), (0, 1), (1, 1), (1, -1)):
            length = 1
            for way in (1, -1):
                x, y = column + way * right, row + way * down
                while board.get((x, y)) == mover:
                    length, x, y = length + 1, x + way * right, y + way * down
            if length >= goal:
                assert ply == len(cells) - 1
                return 1 - mover
    assert len(board) == width * height
    return 0.5


def pentanomial(path):
    """What the first player of the file got from each pair, and its settings."""
    with open(path, encoding="ascii") as file:
        lines = file.read().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("games "))
    settings = [line.split(" ", 1) for line in lines[:at + 1]]
    game, count = dict(settings)["game"], int(lines[at].split()[1])
    games = [line.split() for line in lines[at + 1:-1]]
    assert len(games) == count
    counts = [0] * 5
    for first, second in zip(games[::2], games[1::2]):
        points = referee(game, first) + 1 - referee(game, second)
        counts[int(2 * points)] += 1
    return counts, settings, games


def expected(elo):
    return 1 / (1 + 10 ** (-elo / 400))


def elo_and_error(counts):
    pairs, scores = sum(counts), [i / 4 for i in range(5)]
    mean = sum(n * s for n, s in zip(counts, scores)) / pairs
    variance = sum(n * (s - mean) ** 2 for n, s in zip(counts, scores)) / pairs
    half = 1.959964 * math.sqrt(variance / pairs)
    elo = [400 * math.log10(s / (1 - s)) for s in (mean - half, mean, mean + half)]
    return elo[1], (elo[2] - elo[0]) / 2


def most_likely_law(counts, score):
    """Of all laws of a pair's score with this mean: Newton's method on the multiplier, and then a
    check that no law near it with the same mean is likelier."""
    pairs, scores, t = sum(counts), [i / 4 for i in range(5)], 0.0
    for _ in range(200):
        terms = [(n / pairs, s - score) for n, s in zip(counts, scores)]
        value = sum(p * d / (1 + t * d) for p, d in terms)
        slope = -sum(p * d * d / (1 + t * d) ** 2 for p, d in terms)
        step = value / slope
        while any(1 + (t - step) * d <= 0 for _, d in terms):
            step /= 2
        t -= step
    law = [p / (1 + t * d) for p, d in terms]

    def likelihood(candidate):
        return sum(n * math.log(p) for n, p in zip(counts, candidate))
    assert abs(sum(law) - 1) < 1e-9 and abs(sum(p * s for p, s in zip(law, scores)) - score) < 1e-9
    for way in ((1, -2, 1, 0, 0), (0, 1, -2, 1, 0), (0, 0, 1, -2, 1)):
        for size in (1e-7, -1e-7):
            other = [p + size * w for p, w in zip(law, way)]
            assert min(other) <= 0 or likelihood(other) <= likelihood(law) + 1e-12
    return law


def llr(counts, elo0, elo1):
    counts = [n or 0.001 for n in counts]
    h0, h1 = (most_likely_law(counts, expected(elo)) for elo in (elo0, elo1))
    return sum(n * math.log(b / a) for n, a, b in zip(counts, h0, h1))


class Case(unittest.TestCase):
    def ok(self, *arguments):
        result = run(*arguments)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def json(self, *arguments):
        return json.loads(self.ok(*arguments, "--json"))

    def refused(self, words, *arguments, code=2):
        result = run(*arguments)
        self.assertEqual(result.returncode, code, (arguments, result.stdout, result.stderr))
        self.assertRegex(result.stderr, r"^tandem: .*; try: .*\n$")
        self.assertIn(words, result.stderr)
        self.assertEqual(result.stdout, "")


class Group(Case):
    def test_help_has_examples(self):
        for command in ([], ["agents"], ["match"], ["regret"], ["solve"]):
            text = self.ok(*command, "--help")
            self.assertIn("Example", text)
            self.assertLessEqual(max(map(len, text.splitlines())), 80, command)

    def test_agents_and_their_options(self):
        text = self.ok("agents")
        for words in ("negamax", "mcts", "perfect", "random", "external", "td", "q", "copycat",
                      "exploration=1.4", "iterations=N", "time=TIME"):
            self.assertIn(words, text)
        self.assertLessEqual(max(map(len, text.splitlines())), 80)

    def test_usage(self):
        self.refused("kxo", "nonsense")
        self.refused("'tandem kxo' needs one of: agents, ")
        self.refused("AGENT", "regret")


class Numbers(Case):
    def test_what_is_no_number_in_range_is_refused(self):
        for command, option, values in (
                (["regret", "random"], "--positions", ("0", "-1", "1e3", "010", "10000001")),
                (["regret", "random"], "--seed", ("-1", "18446744073709551616", "0x10", "")),
                (["regret", "random"], "--work", ("-1", "nan", " 1", "1 ", "+1")),
                (["match", "random", "random"], "--pairs", ("-1", "0")),
                (["match", "random", "random"], "--opening", ("-1", "64", "99999999999")),
                (["match", "random", "random"], "--threads", ("-1", "0", "257")),
                (["match", "random", "random"], "--seed", ("-1",)),
                (["watch", "--plain"], "--boards", ("-1", "0", "1025", "1.5")),
                (["watch", "--plain"], "--rate", ("-1", "0", "nan")),
                (["watch", "--plain"], "--games", ("-1",)),
                (["watch", "--plain"], "--work", ("-1", "4294967296")),
                (["play", "--plain"], "--seed", ("-1", "one"))):
            for value in values:
                self.refused(f"{option}: '{value}' is not a whole number in [", *command,
                             option, value)

    def test_an_empty_name_of_a_file_is_refused(self):
        for command in (["match", "random", "random", "--save"], ["watch", "--plain", "--save"],
                        ["play", "--plain", "--save"], ["export", "model", "-o"],
                        ["train", "--out"], ["train", "--config"]):
            self.refused("is an empty name", *command, "")


class Watch(Case):
    def test_ends_while_its_agents_still_learn_what_they_need(self):
        for _ in range(1 if SANITIZED else 5):
            result = subprocess.run([TANDEM, "kxo", "watch", "--plain", "--games", "1", "--rate", "100"],
                                    capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
                                    env={**os.environ, "TANDEM": "embedded"})
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertRegex(result.stdout, "wins|draw")


class Solve(Case):
    def test_three_by_three_is_a_draw(self):
        solved = self.json("solve", "--game", "3x3-3")
        self.assertEqual(solved["value"]["kind"], "draw")
        self.assertEqual(solved["positions"]["all"], 4536)
        self.assertEqual(sum(solved["positions"][k] for k in ("won", "drawn", "lost")), 4536)
        self.assertIn("3x3-3: draw\n4536 positions", self.ok("solve", "--game", "3x3-3"))

    def test_o_wins_the_standard_game_in_five_plies_with_every_opening(self):
        solved = self.json("solve")
        self.assertEqual(solved["value"], {"kind": "win", "plies": 5})
        self.assertEqual(solved["positions"]["all"], 3463559)
        moves = solved["position"]["moves"]
        self.assertEqual(len(moves), 16)
        for cell, value in moves.items():
            centre = (cell[0] in "bc") + (cell[1] in "23")
            self.assertEqual(value, {"kind": "win", "plies": (11, 7, 5)[centre]}, cell)
        self.assertEqual(solved["position"]["best"], ["b2", "c2", "b3", "c3"])
        self.assertLessEqual(solved["table_bytes"], 50e6)
        text = self.ok("solve")
        self.assertIn("4x4-3: O wins in 5 plies\n", text)
        self.assertIn("  1  w11   w7   w7  w11\n  2   w7   w5   w5   w7\n", text)
        self.assertIn("best: b2 c2 b3 c3\n", text)

    def test_four_in_a_row_is_a_draw(self):
        solved = self.json("solve", "--game", "4x4-4")
        self.assertEqual(solved["value"], {"kind": "draw", "plies": 16})
        self.assertEqual(solved["positions"]["all"], 9067975)

    def test_a_position_by_moves_or_rows(self):
        by_moves = self.json("solve", "--game", "3x3-3", "b2", "b1")["position"]
        self.assertEqual(by_moves["board"], ".x./.o./...")
        # An edge is the wrong answer to the centre.
        self.assertEqual((by_moves["to_move"], by_moves["value"]["kind"]), ("O", "win"))
        for text in (["b2,b1"], ["b2 b1"], [".x./.o./..."], [".X./.O./..."]):
            self.assertEqual(self.json("solve", "--game", "3x3-3", *text)["position"], by_moves)
        text = self.ok("solve", "--game", "3x3-3", "b2", "b1")
        self.assertIn("O to move: O wins in 5 plies\n", text)
        self.assertRegex(text, r"\n  1 +\S+ +X +\S+\n  2 +\S+ +O +\S+\n")

    def test_a_game_that_is_over(self):
        over = self.json("solve", "--game", "3x3-3", "a1 a2 b1 b2 c1")["position"]
        self.assertTrue(over["over"])
        self.assertEqual((over["moves"], over["best"]), ({}, []))
        text = self.ok("solve", "--game", "3x3-3", "a1 a2 b1 b2 c1")
        self.assertIn("This game is over: O has won\n", text)
        self.assertNotIn("best", text)

    def test_bad_input(self):
        self.refused("7x7-5 has more than 16 cells", "solve", "--game", "7x7-5")
        self.refused("'4by4' is no game: write WIDTHxHEIGHT-GOAL", "solve", "--game", "4by4")
        self.refused("'9x9-5' is no game: a board has 1 to 64", "solve", "--game", "9x9-5")
        self.refused("'e1' is not on the board", "solve", "b2", "e1")
        self.refused("'b2' is taken already", "solve", "b2", "b2")
        self.refused("'2b' is no cell", "solve", "2b")
        self.refused("O has put 1 and X 2", "solve", "oxx./..../..../....")
        self.refused("has 6 cells, not 16", "solve", "oxx./..")


class Regret(Case):
    def test_perfect_play_has_none_and_random_play_much(self):
        result = self.json("regret", "perfect", "random", "--positions", "400", "--seed", "3")
        perfect, chance = result["agents"]
        self.assertEqual((perfect["kept"], perfect["best"]), (400, 400))
        self.assertLess(chance["kept_share"], 0.5)
        self.assertGreater(chance["kept_share"], 0.2)
        for agent in result["agents"]:
            self.assertGreaterEqual(agent["longest_ns"], agent["median_ns"])
            self.assertGreaterEqual(agent["total_ns"], agent["longest_ns"])

    def test_a_limit_of_work_gives_the_same_shares_each_time(self):
        arguments = ("regret", "mcts", "negamax:depth=2", "--positions", "50", "--work", "300",
                     "--game", "4x4-4")
        first, second = self.json(*arguments), self.json(*arguments)
        self.assertEqual((first["work"], first["time_ns"]), (300, 0))
        for a, b in zip(first["agents"], second["agents"]):
            for key in ("agent", "kept", "best", "work"):
                self.assertEqual(a[key], b[key])
            self.assertGreater(a["work"], 0)
            self.assertLessEqual(a["work"], 300 * 50)

    def test_names_are_any_bytes(self):
        command = b"external:command=while read l; do case $l in START*) echo OK;; DONE) echo 0\\,0" \
                  b";; END) exit;; esac; done # \xff"
        result = subprocess.run([TANDEM, "kxo", "regret", "--positions", "1", "--json", "--game",
                                 "3x3-3", command], capture_output=True, timeout=300,
                                stdin=subprocess.DEVNULL)
        # An answer that is taken already is an error; no more than that.
        self.assertIn(result.returncode, (0, 1), result)
        self.assertNotIn(b"json", result.stderr)
        if result.returncode == 0:
            self.assertIn("\ufffd", json.loads(result.stdout)["agents"][0]["agent"])

    def test_the_table(self):
        text = self.ok("regret", "mcts:iterations=500", "random", "--positions", "20")
        self.assertIn("4x4-3, 20 positions of seed 1, at most 1.00 ms a move\n", text)
        self.assertRegex(text, r"agent +kept +best +median +mean +longest +work/s\n")
        self.assertRegex(text, r"\nmcts:iterations=500 +\d+\.\d\d % +\d+\.\d\d % .*[0-9kM]\n")
        self.assertRegex(text, r"\nrandom .* -\n")

    def test_an_agent_that_fails(self):
        self.refused("external:command=exit 0: no move: its program has ended", "regret", "external:command=exit 0",
                     "--positions", "1", code=1)

    def test_bad_input(self):
        self.refused("no agent 'mtcs'; there are: ", "regret", "mtcs")
        self.refused("mcts: option threads: '0' is not a number in [1, 64]", "regret", "mcts",
                     "mcts:threads=0")
        self.refused("7x7-5 has more than 16 cells", "regret", "mcts", "--game", "7x7-5")
        self.refused("no move of 2x2-2 loses value", "regret", "mcts", "--game", "2x2-2")
        self.refused("'fast' is not a time", "regret", "mcts", "--time", "fast")
        self.refused("positions", "regret", "mcts", "--positions", "0")


class Play(Case):
    def play(self, lines, *arguments):
        result = subprocess.run([TANDEM, "kxo", "play", "--plain", "--against", "random", *arguments],
                                input=lines, capture_output=True, text=True, timeout=300)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_an_opponent_that_is_none_is_refused_at_once(self):
        text = self.play("against nobody\na1\nquit\n")
        self.assertIn("kxo play: no agent 'nobody'; there are: ", text)
        self.assertNotIn("you play against nobody", text)
        self.assertIn("random played ", text)


class Match(Case):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = os.path.join(directory.name, "games")

    def test_results_elo_and_test_are_those_computed_from_the_games(self):
        result = self.json("match", "mcts", "mcts:iterations=60", "--game", "5x5-4", "--pairs", "40",
                           "--work", "100", "--seed", "7", "--sprt", "-10,15,0.001,0.002",
                           "--save", self.file)
        counts, settings, games = pentanomial(self.file)
        self.assertEqual((sum(counts), result["played_pairs"]), (40, 40))
        couple = result["couples"][0]
        self.assertEqual(couple["pairs"], counts)
        self.assertGreater(len([n for n in counts if n]), 2)
        elo, error = elo_and_error(counts)
        self.assertAlmostEqual(couple["elo"], elo, places=6)
        self.assertAlmostEqual((couple["elo_high"] - couple["elo_low"]) / 2, error, places=3)
        self.assertAlmostEqual(result["sprt"]["llr"], llr(counts, -10, 15), places=6)
        self.assertAlmostEqual(result["sprt"]["upper"], math.log(0.998 / 0.001), places=9)
        first, second = result["players"]
        self.assertEqual(first["won"], second["lost"])
        self.assertEqual(first["won"] + first["drawn"] + first["lost"], len(games))
        # Both games of a pair begin in the same way, pairs do not.
        openings = {tuple(game[:4]) for game in games[::2]}
        self.assertEqual([game[:4] for game in games[::2]], [game[:4] for game in games[1::2]])
        self.assertGreater(len(openings), len(games) // 4)
        self.assertIn(["seed", "7"], settings)

    def test_published_ratios(self):
        # Computed by fishtest: github.com/official-stockfish/Stockfish pulls 3209, 2971, 2951.
        for counts, elo0, elo1, published in (((253, 4282, 17604, 4431, 286), -0.25, 1.25, 2.94),
                                              ((17, 253, 1042, 337, 39), -0.5, 1.5, 2.96),
                                              ((59, 754, 2467, 865, 75), -0.5, 1.5, 2.95)):
            self.assertAlmostEqual(llr(counts, elo0, elo1), published, delta=0.006)

    def test_a_test_ends_the_match(self):
        result = self.json("match", "negamax:depth=3", "random", "--game", "5x5-4", "--sprt",
                           "0,200", "--work", "1000", "--threads", "2")
        self.assertEqual(result["sprt"]["verdict"], "H1")
        self.assertLess(result["played_pairs"], 100)
        text = self.ok("match", "random", "negamax:depth=3", "--game", "5x5-4", "--sprt", "0,200",
                       "--work", "1000")
        self.assertRegex(text, r"SPRT of \+?0 \(H0\) and \+200 Elo \(H1\), .*: H0 accepted\n")

    def test_the_crosstable(self):
        text = self.ok("match", "random", "negamax:depth=2", "mcts", "--pairs", "3", "--work", "300",
                       "--game", "4x4-4", "--threads", "2")
        self.assertIn("4x4-4, 9 of 9 pairs of games, openings of 4 moves, seed 1\n"
                      "at most 300 nodes or iterations a move\n", text)
        self.assertRegex(text, r"\n   player +Elo +\+- +games +score +won +drawn +lost +1 +2 +3\n")
        self.assertRegex(text, r"\n3  random +-\S+ +\S+ +12 +\d+\.\d %")
        self.assertEqual(len(re.findall(r"^\d  ", text, re.M)), 3)

    def test_what_pairs_that_end_alike_tell(self):
        whole = ("negamax:depth=2", "random", "--game", "3x1-1", "--opening", "0")
        # Whoever begins wins.
        text = self.ok("match", *whole, "--pairs", "10")
        self.assertIn("every pair 1:1, the openings decide; try: --game 7x7-5\n", text)
        self.assertRegex(text, r"\n1  negamax:depth=2 +\+0\.0 +- +20 ")
        self.assertNotRegex(text, r"-0\.0|nan|inf")
        # 0.05^(1/10) of the points are 182 Elo.
        lost = "external:command=exit 0"
        result = run("match", "random", lost, "--game", "3x3-3", "--pairs", "10")
        self.assertIn(f"random against {lost}: won every game; Elo > +182 (95 %)\n", result.stdout)
        self.assertRegex(result.stdout, r"\n1  random +> \+182 +- +20 ")
        self.assertRegex(result.stdout, r"\n2  external:command=exit 0 +< -182 +- +20 ")
        result = run("match", lost, "random", "--game", "3x3-3", "--pairs", "2")
        self.assertIn("lost every game; Elo -: too few pairs\n", result.stdout)

    def test_an_interrupted_match_ends_like_an_uninterrupted_one(self):
        arguments = ["match", "mcts", "mcts:exploration=0.7", "--game", "7x7-5", "--work", "400",
                     "--seed", "3"]
        inode = None
        for stop, code in ((signal.SIGKILL, -9), (signal.SIGINT, 1), (signal.SIGTERM, 1)):
            process = subprocess.Popen([TANDEM, "kxo", *arguments, "--pairs", "1000000", "--save",
                                        self.file, *(["--resume"] if inode else [])],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            # Each one writes the file anew before it plays.
            while not os.path.exists(self.file) or os.stat(self.file).st_ino == inode:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            time.sleep(0.3)
            process.send_signal(stop)
            _, errors = process.communicate(timeout=300)
            self.assertEqual(process.returncode, code, errors)
            inode = os.stat(self.file).st_ino  # it may have saved meanwhile
            if code == 1:
                self.assertRegex(errors, r"interrupted after \d+ of 1000000 pairs; try: tandem kxo "
                                         r"match --resume --save ")
        counts, _, _ = pentanomial(self.file)
        pairs = str(sum(counts) + 3)
        # Another number of threads, and what is not given is in the file.
        resumed = self.json("match", "--resume", "--save", self.file, "--threads", "3", "--pairs",
                            pairs)
        whole = self.json(*arguments, "--pairs", pairs, "--threads", "2", "--save",
                          self.file + "2")
        self.assertEqual(resumed, whole)
        with open(self.file, "rb") as one, open(self.file + "2", "rb") as other:
            self.assertEqual(one.read(), other.read())
        # What is complete stays as it is.
        self.assertEqual(self.json("match", "--resume", "--save", self.file), whole)
        self.assertEqual(sorted(os.listdir(os.path.dirname(self.file))), ["games", "games2"])

    def test_an_agent_that_gives_no_move_loses(self):
        result = run("match", "random", "external:command=exit 0", "--pairs", "1", "--game", "3x3-3",
                     "--save", self.file)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("tandem: kxo match: external:command=exit 0 gave no move in 2 of its 2 games, "
                      "which it lost; try: ", result.stderr)
        with open(self.file, encoding="ascii") as file:
            self.assertEqual(len(re.findall(r" ! Broken pipe$", file.read(), re.M)), 2)

    def test_bad_input(self):
        self.refused("2 to 64 players, not 1", "match", "mcts")
        self.refused("no agent 'mtcs'", "match", "mcts", "mtcs")
        self.refused("--sprt: '5' is not two or four numbers", "match", "mcts", "mcts", "--sprt", "5")
        self.refused("elo0 below elo1", "match", "mcts", "mcts", "--sprt", "10,0")
        self.refused("one of two players", "match", "mcts", "td", "q", "--sprt", "0,10")
        self.refused("--resume needs a file", "match", "--resume")
        self.refused("No such file", "match", "--resume", "--save", self.file, code=3)
        self.refused("/no/such/directory", "match", "random", "random", "--pairs", "1", "--save",
                     "/no/such/directory/games", code=1)
        with open(self.file, "w", encoding="ascii") as file:
            file.write("something else\n")
        self.refused("exists already; try: --resume", "match", "mcts", "mcts", "--save", self.file,
                     code=1)
        self.refused("is no match of kxo", "match", "--resume", "--save", self.file, code=1)
        os.remove(self.file)
        self.ok("match", "random", "random", "--pairs", "1", "--save", self.file)
        self.refused("has another seed", "match", "--resume", "--save", self.file, "--seed", "2")
        self.refused("has another game", "match", "--resume", "--save", self.file, "--game", "3x3-3")
        self.refused("has another players", "match", "--resume", "--save", self.file, "mcts", "td")


if __name__ == "__main__":
    unittest.main()
