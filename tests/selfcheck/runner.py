# SPDX-License-Identifier: GPL-2.0
"""Tests of the parts of scripts/check.py that start no machine."""

import os
import re
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, os.environ["TOP"] + "/scripts")
import check  # noqa: E402 pylint: disable=wrong-import-position


def a_test(name, machines="uml", timeout=120, *words):
    return check.Test(name, Path(name), tuple(machines.split()), timeout, frozenset(words))


def a_machine(name, *tests):
    return check.Machine(name, Path("out"), list(tests))


class Directory(unittest.TestCase):
    """A directory of tests."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)

    def add(self, name, *says):
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(["#!/bin/bash", *says]) + "\n", encoding="utf-8")
        return check.Test.read(file, self.path)

    def names(self, glob="*"):
        return [test.name for test in check.find_tests(self.path, glob)]


class Header(Directory):
    WORDS = set(re.findall("^  # ([a-z-]+): ", check.__doc__, re.MULTILINE))

    def test_what_it_says(self):
        test = self.add("truth/ways.sh", "# machines: uml debug", "# timeout: 600",
                        "# exclusive: times", "# smp: many")
        self.assertEqual(test.name, "truth-ways")
        self.assertEqual(test.machines, ("uml", "debug"))
        self.assertEqual(test.timeout, 600)
        self.assertEqual(test.words, {"machines", "timeout", "exclusive", "smp"})

    def test_without_a_timeout(self):
        self.assertEqual(self.add("a.sh", "# machines: uml").timeout, 120)

    def test_a_word_without_a_reason_does_not_count(self):
        self.assertNotIn("exclusive", self.add("a.sh", "# machines: uml", "# exclusive: ").words)

    def test_without_machines_it_is_no_test(self):
        self.assertFalse(self.add("lib.sh", "# timeout: 5", "machines: uml"))

    def test_all_tests_say_what_is_understood(self):
        below = check.TOP / "tests"
        for path in below.rglob("*.sh"):
            if test := check.Test.read(path, below):
                with self.subTest(test.name):
                    self.assertLessEqual(test.words, self.WORDS)

    def test_only_what_is_said_at_a_stretch_counts(self):
        test = self.add("a.sh", "# SPDX", "# machines: uml", "# timeout: 5", "#", "# smp: no")
        self.assertEqual(test.words, {"machines", "timeout"})


class Glob(Directory):
    def setUp(self):
        super().setUp()
        for name in ("load.sh", "a.py", "lint/flake8.sh", "truth/ways.sh", "truth/ends.sh",
                     "selfcheck/planted/fail.sh"):
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            self.add(name, "# machines: uml")
        self.add("bench.sh", "# machines: uml", "# manual: it takes long")

    def test_all_in_order(self):
        self.assertEqual(self.names(), ["lint-flake8", "load", "truth-ends", "truth-ways"])

    def test_bash_globs(self):
        for glob, names in (("truth*", ["truth-ends", "truth-ways"]), ("loa?", ["load"]),
                            ("@(load|lint-*)", ["lint-flake8", "load"]), ("bench", ["bench"]),
                            ("!(truth*|bench|lo*)", ["lint-flake8"]), ("tru", []), ("", [])):
            with self.subTest(glob):
                self.assertEqual(self.names(glob), names)

    def test_the_planted_ones_where_they_are_the_tests(self):
        found = check.find_tests(self.path / "selfcheck/planted")
        self.assertEqual([test.name for test in found], ["fail"])


class Where(unittest.TestCase):
    TESTS = (a_test("lint", "host"), a_test("load", "uml debug stock", 120, "also"),
             a_test("wifi", "uml", 120, "also"), a_test("tags", "uml debug"))

    def names(self, *arguments):
        on = check.by_machine(self.TESTS, *arguments)
        return {machine: " ".join(test.name for test in tests) for machine, tests in on.items()}

    def test_all_in_the_order_in_which_they_start(self):
        on = self.names()
        self.assertEqual(on, {"debug": "load tags", "stock": "load", "uml": "load wifi tags",
                              "host": "lint"})
        self.assertEqual(list(on), ["debug", "stock", "uml", "host"])

    def test_some(self):
        self.assertEqual(self.names(["stock", "host"]), {"stock": "load", "host": "lint"})

    def test_another_kernel(self):
        self.assertEqual(self.names(["uml-7.2"]), {"uml-7.2": "load wifi tags"})

    def test_another_processor(self):
        self.assertEqual(self.names(["stock-arm64"]), {"stock-arm64": "load"})

    def test_also(self):
        self.assertEqual(self.names(["debug"], ["7.2", "arm64"]), {
            "debug": "load tags", "uml-7.2": "load wifi", "stock-arm64": "load"})

    def test_what_a_machine_is_told(self):
        self.assertEqual(a_machine("uml-7.2").env["KERNEL"], "7.2")
        self.assertEqual(a_machine("stock-arm64").env["ARCH"], "arm64")
        self.assertEqual(a_machine("uml").env, dict(os.environ))


class Order(unittest.TestCase):
    TESTS = (a_test("short", "", 10), a_test("long", "", 900), a_test("host", "", 20, "runs-on"),
             a_test("idle", "", 900, "idle"), a_test("timed", "", 50, "exclusive"),
             a_test("timed-smp", "", 40, "exclusive", "smp"), a_test("smp", "", 60, "smp"),
             a_test("fuzz", "", 600, "no-kmemleak"), a_test("other", "", 30))

    def plan(self, kind, crowded=True, cpus=2):
        """When, whose tests, and how."""
        jobs = check.plan(a_machine(kind, *self.TESTS), crowded, cpus)
        return {when: [(" ".join(test.name for test in job.queue.tests), job.places, job.leaks)
                       for job in jobs[when]] for when in jobs}

    def test_uml(self):
        shared = ("long smp other short", 1, True)
        self.assertEqual(self.plan("uml"), {
            "idle": [("idle", 0, True)], "first": [],
            "main": [("host", 2, False), ("fuzz", 1, False), shared, shared],
            "last": [("timed", 2, False), ("timed-smp", 2, False)]})

    def test_kasan(self):
        shared = ("long smp other short", 1, False)
        self.assertEqual(self.plan("kasan"), {
            "idle": [("idle", 0, False)], "first": [],
            "main": [("host", 2, False), ("fuzz", 1, False), shared, shared],
            "last": [("timed", 2, False), ("timed-smp", 2, False)]})

    def test_uml_alone(self):
        self.assertFalse(any(leaks for jobs in self.plan("uml", crowded=False).values()
                             for _, _, leaks in jobs))

    def test_debug(self):
        shared = "smp timed-smp long other short timed"
        self.assertEqual(self.plan("debug"), {
            "idle": [("idle", 0, True)], "first": [(shared, 2, True), (shared, 2, False)],
            "main": [("host", 2, False), ("fuzz", 2, False)], "last": []})

    def test_debug_machines_are_as_many_as_are_worth_it(self):
        self.assertEqual(len(self.plan("debug", cpus=1)["first"]), 1)
        self.assertEqual(len(self.plan("debug", cpus=8)["first"]), 3)

    def test_stock(self):
        self.assertEqual(self.plan("stock"), {
            "idle": [("idle", 0, False)], "first": [],
            "main": [("host", 2, False), ("fuzz", 2, False), ("long smp other short", 2, False)],
            "last": [("timed", 2, False), ("timed-smp", 2, False)]})

    def test_host(self):
        jobs = check.plan(a_machine("host", a_test("lint"), a_test("setup")), True, 2)["main"]
        self.assertEqual([(job.on_host, job.places) for job in jobs], [(True, 2)] * 2)

    def test_what_takes_longest(self):
        jobs = [check.plan(a_machine(kind, a_test("a", kind, 100)), True, 1)["main"][0]
                for kind in ("uml", "stock", "host")]
        self.assertEqual([job.longest() for job in jobs], [100, 500, 100])


class Queue(unittest.TestCase):
    def test_each_is_taken_once(self):
        queue = check.Queue(Order.TESTS[:2])
        self.assertEqual([queue.take().name, queue.take().name], ["short", "long"])
        self.assertIsNone(queue.take())
        self.assertIsNone(queue.next())

    def test_a_machine_that_takes_none_of_a_kind(self):
        queue = check.Queue([a_test("smp", "", 1, "smp"), a_test("other")])
        self.assertEqual(queue.take(smp=False).name, "other")
        self.assertIsNone(queue.take(smp=False))
        self.assertEqual(queue.take().name, "smp")


class Places(unittest.TestCase):
    def test_no_more_at_once(self):
        places, running, seen = check.Places(2), [], []

        def work(wanted):
            running.append(wanted)
            seen.append(sum(running))
            time.sleep(0.001)  # so that another may come too early
            running.remove(wanted)

        for number in range(50):
            places.start(1 + number % 2, work, 1 + number % 2)
        places.wait()
        self.assertEqual(len(seen), 50)
        self.assertEqual(max(seen), 2)
        self.assertEqual(places.free, 2)

    def test_one_that_fails_gives_its_places_back(self):
        places = check.Places(2)
        places.start(2, sys.exit)
        places.start(2, lambda: None)
        places.wait()
        self.assertEqual(places.free, 2)


class Log(unittest.TestCase):
    LOG = "[ 1.0] boot\n[ 2.0] check: end load\n[ 3.0] check: begin tags\n"

    def test_what_comes_after_a_test(self):
        self.assertEqual(check.after("load", self.LOG), "[ 3.0] check: begin tags\n")

    def test_of_a_log_that_does_not_have_it(self):
        for last in (None, "tags", "oad", "loa"):
            self.assertEqual(check.after(last, self.LOG), self.LOG)


if __name__ == "__main__":
    unittest.main()
