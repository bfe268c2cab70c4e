# SPDX-License-Identifier: Apache-2.0
"""tandem kxo: what it prints, against values of the games that are known, and how it ends."""
import json
import os
import re
import subprocess
import sys
import unittest

TANDEM = sys.argv.pop(1) if len(sys.argv) > 1 else "tandem"


def run(*arguments, timeout=300):
    return subprocess.run([TANDEM, "kxo", *arguments], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, env=dict(os.environ))


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
        for command in ([], ["agents"], ["regret"], ["solve"]):
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
        self.refused("subcommand is required")
        self.refused("AGENT", "regret")


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

    def test_the_table(self):
        text = self.ok("regret", "mcts:iterations=500", "random", "--positions", "20")
        self.assertIn("4x4-3, 20 positions of seed 1, at most 1.00 ms a move\n", text)
        self.assertRegex(text, r"agent +kept +best +median +mean +longest +work/s\n")
        self.assertRegex(text, r"\nmcts:iterations=500 +\d+\.\d\d % +\d+\.\d\d % .*[0-9kM]\n")
        self.assertRegex(text, r"\nrandom .* -\n")

    def test_an_agent_that_fails(self):
        self.refused("external:command=exit 0: no move: ", "regret", "external:command=exit 0",
                     "--positions", "1", code=1)

    def test_bad_input(self):
        self.refused("no agent 'mtcs'; there are: ", "regret", "mtcs")
        self.refused("mcts: option threads: '0' is not a number in [1, 64]", "regret", "mcts",
                     "mcts:threads=0")
        self.refused("7x7-5 has more than 16 cells", "regret", "mcts", "--game", "7x7-5")
        self.refused("no move of 2x2-2 loses value", "regret", "mcts", "--game", "2x2-2")
        self.refused("'fast' is not a time", "regret", "mcts", "--time", "fast")
        self.refused("positions", "regret", "mcts", "--positions", "0")


if __name__ == "__main__":
    unittest.main()
