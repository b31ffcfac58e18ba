"""Tests of what a comparison makes of others on the machine: python3 -m unittest discover -s benches"""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import compare
import noise
from noise import Usage

STAT = "cpu  100 20 30 800 50 0 10 40 7 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 5\n"


class Noise(unittest.TestCase):
    def test_time_that_others_got_is_in_use_and_waiting_is_not(self):
        self.assertEqual(noise.parse(STAT, 100), Usage(busy=2.0, total=10.5))
        # An old system tells fewer.
        self.assertEqual(noise.parse("cpu  100 0 0 300\n", 100), Usage(busy=1.0, total=4.0))

    def test_what_is_measured_is_not_others(self):
        before, after = Usage(10, 100), Usage(14, 108)
        self.assertAlmostEqual(noise.others(before, after, 0), 0.5)
        self.assertAlmostEqual(noise.others(before, after, 3.8), 0.025)
        # Clocks of processes and of the machine differ a little.
        self.assertEqual(noise.others(before, after, 4.1), 0)
        self.assertEqual(noise.others(before, before, 0), 0)

    def test_no_ratio_beside_others(self):
        self.assertTrue(noise.quiet(0.05))
        self.assertFalse(noise.quiet(0.06))
        busy = [0.4]
        self.assertEqual(noise.verdict(3, [], 3, False), "ratio")
        self.assertEqual(noise.verdict(3, busy * 2, 3, True), "ratio")
        self.assertEqual(noise.verdict(2, busy, 3, False), "again")
        self.assertEqual(noise.verdict(2, busy * 6, 3, False), "again")
        self.assertEqual(noise.verdict(2, busy * 7, 3, False), "refused")
        self.assertEqual(noise.verdict(2, busy, 3, True), "marked")
        self.assertEqual(noise.verdict(1, busy, 3, True), "again")

    def test_a_child_that_was_left_behind_is_waited_for(self):
        watch = noise.Watch()
        before = watch.own()
        spin = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
        leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {spin!r}])"
        subprocess.run([sys.executable, "-c", leave], check=True)
        watch.share()
        self.assertGreater(watch.own() - before, 0.3)

    def test_a_look_sees_what_others_took(self):
        with tempfile.TemporaryDirectory() as folder:
            stat = Path(folder) / "stat"
            stat.write_text("cpu  1000 0 0 1000\n")
            watch = noise.Watch(stat)
            stat.write_text("cpu  201000 0 0 601000\n")
            # This process's own time is a thousandth of that.
            self.assertAlmostEqual(watch.share(), 0.25, places=2)
            self.assertEqual(watch.share(), 0, "no time has passed")

    def test_instruction_sets(self):
        self.assertEqual(noise.instruction_set("flags\t: sse2 avx2 fma\n"), "AVX2")
        self.assertEqual(noise.instruction_set("flags\t: avx512f avx2 fma\n"), "AVX-512")
        self.assertEqual(noise.instruction_set("Features\t: asimd\n"), "portable")


class Rows(unittest.TestCase):
    CASE = compare.Case(0, 4, 512, 2)
    RESULTS = [compare.Result(tps=200.0, peak=2**30)], [compare.Result(tps=100.0, peak=2**31)]

    def test_a_refused_case_has_no_ratio(self):
        self.assertIn("**2.00x**", compare.row(self.CASE, "eager", *self.RESULTS, "ratio", []))
        marked = compare.row(self.CASE, "eager", *self.RESULTS, "marked", [0.125])
        self.assertIn("~2.00x (others 12%)", marked)
        refused = compare.row(self.CASE, "eager", *self.RESULTS, "refused", [0.125, 0.25])
        self.assertNotIn("2.00x", refused)
        self.assertIn("refused: others 25%", refused)
        cells = {text.count("|") for text in (marked, refused)}
        self.assertEqual(cells, {len(compare.HEADER) + 1})

    def test_a_noisy_round_is_done_again(self):
        shares = iter([0.5, 0.0, 0.3, 0.0])
        runs = []

        class Watch:
            def start(self):
                runs.append("start")

            def share(self):
                return next(shares)

        kept, noisy, said = compare.rounds(Watch(), lambda: runs.append("round") or "r", wanted=2, allow=False)
        self.assertEqual((kept, noisy, said), (["r", "r"], [0.5, 0.3], "ratio"))
        self.assertEqual(runs, ["start", "round"] * 4)

    def test_noise_ends_a_case(self):
        class Watch:
            def start(self):
                pass

            def share(self):
                return 0.2

        kept, noisy, said = compare.rounds(Watch(), lambda: "r", wanted=1, allow=False)
        self.assertEqual((kept, len(noisy), said), ([], 3, "refused"))
        kept, noisy, said = compare.rounds(Watch(), lambda: "r", wanted=1, allow=True)
        self.assertEqual((kept, len(noisy), said), (["r"], 1, "marked"))


if __name__ == "__main__":
    unittest.main()
