# SPDX-License-Identifier: Apache-2.0
"""tandem-kxo-mpi: the same models with any number of processes, also after one of them was lost."""
import csv
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, TANDEM, MPIRUN = sys.argv[1:4]
del sys.argv[1:4]
SMALL = ("--game", "3x3-3", "--generation", "256", "--evaluate-every", "1024")
# Once a rank is gone the others need no time to end.
AT_ONCE = {"OMPI_MCA_odls_base_sigkill_timeout": "0"}
# Ranks share the CPUs with each other and with other tests: none is tied to one, and who waits lets
# others run.
ENVIRONMENT = {**os.environ, "OMPI_MCA_btl_base_warn_component_unused": "0",
               "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_mpi_yield_when_idle": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1",
               "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_ALLOW_RUN_AS_ROOT": "1",
               "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class Mpi(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def start(self, command, *arguments, **environment):
        return subprocess.Popen([*command, "train", *arguments], cwd=self.directory,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True,
                                env={**ENVIRONMENT, **environment})

    def ranks(self, number, *arguments, **environment):
        return self.start([MPIRUN, "-n", str(number), PROGRAM], *arguments, **environment)

    def ok(self, process):
        output, errors = process.communicate(timeout=200)
        self.assertEqual(process.returncode, 0, output + errors)
        return output

    def result(self, run):
        """What the published model's bytes are, and the curve without its seconds."""
        with open(os.path.join(self.directory, run, "curve.csv"), newline="") as file:
            rows = [[value for name, value in row.items() if name != "seconds"]
                    for row in csv.DictReader(file)]
        with open(os.path.join(self.directory, run, "model"), "rb") as file:
            model = file.read()  # megabytes, which nobody wants to see
        return len(model), hashlib.sha256(model).hexdigest(), rows

    def test_any_number_of_processes_makes_the_same_model(self):
        limit = ("--games", "4096")
        alone = self.start([TANDEM, "kxo"], *SMALL, *limit, "--out", "alone")
        farms = {number: self.ranks(number, *SMALL, *limit, "--out", str(number))
                 for number in (1, 2, 3)}
        self.ok(alone)
        for number, farm in farms.items():
            output = self.ok(farm)
            self.assertEqual(output.count("4096 games"), 2, output)  # told by one of them
            self.assertEqual(self.result(str(number)), self.result("alone"), number)

    def test_networks_too(self):
        arguments = ("--game", "6x3-3", "--generation", "8", "--evaluate-every", "32", "--games",
                     "64")
        alone = self.start([TANDEM, "kxo"], *arguments, "--out", "alone")
        self.ok(self.ranks(3, *arguments, "--out", "three"))
        self.ok(alone)
        self.assertEqual(self.result("three"), self.result("alone"))

    def test_when_a_process_is_lost_the_others_end_and_training_goes_on_from_the_checkpoint(self):
        process = self.ranks(2, *SMALL, "--seconds", "600", "--save-every", "0", "--out", "run",
                             **AT_ONCE)
        checkpoint = os.path.join(self.directory, "run", "checkpoint")
        while not os.path.exists(checkpoint):
            self.assertIsNone(process.poll())
            time.sleep(0.05)
        os.kill(self.child_of(process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=100)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("signal 9", errors)
        # Far enough beyond the checkpoint, whatever that has.
        with open(os.path.join(self.directory, "run", "curve.csv")) as file:
            games = int(file.read().splitlines()[-1].split(",")[0]) + 8192
        alone = self.start([TANDEM, "kxo"], *SMALL, "--games", str(games), "--out", "alone")
        self.ok(self.ranks(3, "--resume", "--games", str(games), "--out", "run"))
        self.ok(alone)
        self.assertEqual(self.result("run"), self.result("alone"))

    @staticmethod
    def child_of(parent):
        """The last process that mpirun started."""
        children = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat") as file:
                        if int(file.read().rpartition(")")[2].split()[1]) == parent:
                            children.append(int(entry))
                except OSError:
                    pass  # has ended
        return max(children)

    def test_errors_are_told_once(self):
        cases = [(self.ranks(2, *arguments, **AT_ONCE), words, code) for arguments, words, code in (
            (("--lambda", "7"), "lambda is not in [0, 1]", 2),
            (("--wrong",), "try: tandem-kxo-mpi train --help", 2),
            (("--resume", "--out", "none"), "there is none", 3))]
        for process, words, code in cases:
            _, errors = process.communicate(timeout=100)
            self.assertEqual(process.returncode, code, errors)
            self.assertEqual(errors.count(words), 1, errors)

    def test_what_stops_mpirun_saves_first(self):
        process = self.ranks(2, *SMALL, "--seconds", "600", "--out", "run")
        while not os.path.exists(os.path.join(self.directory, "run", "checkpoint")):
            self.assertIsNone(process.poll())
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
        self.assertNotEqual(process.returncode, 0)
        self.ok(self.start([TANDEM, "kxo"], "--resume", "--games", "1", "--out", "run"))


if __name__ == "__main__":
    unittest.main()
