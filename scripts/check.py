#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The test runner: runs the tests whose name matches the glob $TEST (all) on the machines that
$MACHINE names, separated by commas (all). $T and $M are short for these, and go before them.
`make check TEST=… MACHINE=…` calls it, by way of scripts/check.

uml-7.2 is the uml machine with another series of the kernel, stock-arm64 the stock machine with
another processor. $ALSO names such series and processors; the tests with `# also:` in their head
run there too: with a series on the first of their machines, with a processor on stock.

A test is a script below tests/ that says in its first lines

  # machines: uml kasan stock     where it runs; "host" is beside the machines
  # timeout: SECONDS              how long it may take at most (120); an emulated machine is slow
                                  and gets five times that
  # runs-on: host                 it runs on the host and drives the machine by itself; $OUT is for
                                  its files
  # manual: WHY                   it is left out unless TEST names tests
  # also: WHY                     runs on what ALSO names as well
  # in-tree: WHY                  it is of no use without this checkout: make kselftest-install
                                  leaves it out
  # exclusive: WHY                when nothing runs that could disturb what it measures
  # idle: WHY                     in a machine of its own, beside the others from the start
  # smp: WHY                      things happen at once: on two CPUs too it is searched for leaks
  # no-kmemleak: WHY              it never is; nor is, on uml, what measures time
  # tool: WHY                     it needs build/tool/nft-offload (make tool)

and exits 0, or 4 to be skipped. Its name is its path: tests/lint/shellcheck.sh is
lint-shellcheck. It fails too on a splat in its kernel log, and on what it leaves behind. What it
printed and the kernel log stay in build/check/MACHINE/NAME.{out,log}.
"""

import itertools
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
KINDS = ("debug", "stock", "kasan", "uml", "host")
OK, SKIP, LOST = 0, 4, 125


def kind_of(machine):
    return machine.partition("-")[0]


def must_be_known(*machine):
    if lib("known_machine", *machine).returncode:
        sys.exit(1)


def read(path):
    """All of a file, whatever bytes it has; of one that is not there, nothing."""
    try:
        return path.read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def write(path, text):
    path.write_bytes(text.encode(errors="surrogateescape"))


def lib(*command, env=None):
    """Calls a function of scripts/lib.sh."""
    call = ["bash", "-euo", "pipefail", "-c", 'source "$0"; "$@"', TOP / "scripts/lib.sh", *command]
    return subprocess.run(call, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          text=True, check=False)


# --- which tests there are, and where they run


@dataclass(frozen=True)
class Test:
    """A test, as the first lines of its file describe it."""

    name: str
    path: Path
    machines: tuple
    timeout: int = 120
    words: frozenset = frozenset()  # the others that are there: "manual", "smp", ...

    @classmethod
    def read(cls, path, below):
        """None if the file is no test."""
        head = re.search(r"(^# [a-z-]+:.*\n)+", read(path), re.MULTILINE)
        says = dict(re.findall(r"^# ([a-z-]+): *(.*\S)", head[0] if head else "", re.MULTILINE))
        name = str(path.relative_to(below)).removesuffix(".sh").replace("/", "-")
        return "machines" in says and cls(name, path, tuple(says["machines"].split()),
                                          int(says.get("timeout", 120)), frozenset(says))


def find_tests(below, glob="*"):
    """Those whose name matches. The glob is bash's, with @(a|b) and the like."""
    paths = sorted(path for path in below.rglob("*.sh")
                   if "planted" not in path.relative_to(below).parts)
    tests = [test for path in paths if (test := Test.read(path, below))]
    call = ["bash", "-c", 'for name in "${@:2}"; do [[ $name != $1 ]] || echo "$name"; done',
            "bash", glob, *(test.name for test in tests)]
    names = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return [test for test in tests
            if test.name in names and (glob != "*" or "manual" not in test.words)]


def by_machine(tests, only=(), also=()):
    """The tests of each machine, where `only` are chosen, or all, and `also` beside these."""
    on = {}
    for test in tests:
        names = [name for kind in test.machines for name in only or [kind] if kind_of(name) == kind]
        for other in also if "also" in test.words else ():
            if other != "arm64":
                names.append(f"{test.machines[0]}-{other}")
            elif "stock" in test.machines:
                names.append("stock-arm64")
        for name in dict.fromkeys(names):
            on.setdefault(name, []).append(test)
    return dict(sorted(on.items(), key=lambda item: (KINDS.index(kind_of(item[0])), item[0])))


class Machine:
    """A machine with its kernel, of which many may run at once."""

    def __init__(self, name, out, tests):
        self.name, self.dir, self.tests = name, out / name, tests
        self.kind, _, variant = name.partition("-")
        self.env = dict(os.environ)
        if variant:
            self.env["ARCH" if variant == "arm64" else "KERNEL"] = variant
        # What is emulated is slow; around a test it may need so many seconds.
        self.slowness, self.around = {"debug": (5, 180), "stock": (5, 180),
                                      "kasan": (3, 45)}.get(self.kind, (1, 15))
        self.boots = itertools.count(1)

    def lib(self, *command):
        return lib(*command, env=self.env)

    def is_ready(self):
        return self.lib("ready", self.kind).returncode == 0


class Queue:
    """Tests that several machines take from."""

    def __init__(self, tests):
        self.tests = list(tests)
        self.lock = threading.Lock()

    def next(self, smp=True):
        """The next test, None if there is none; `smp` tests or not."""
        return next((test for test in self.tests if smp or "smp" not in test.words), None)

    def take(self, smp=True):
        with self.lock:
            if test := self.next(smp):
                self.tests.remove(test)
            return test


@dataclass
class Job:
    """A test on the host, or a machine that takes tests from a queue."""

    machine: Machine
    queue: Queue
    places: int  # a CPU has two: uml waits for half of its time, what is emulated never does
    leaks: bool = False  # it is searched for them
    smp: bool = True  # it takes such tests
    on_host: bool = False

    def longest(self):
        return self.machine.slowness * sum(test.timeout for test in self.queue.tests)


def plan(machine, crowded, cpus):
    """The jobs for a machine's tests: idle and first start at once, then main, in the end last."""
    jobs = {"idle": [], "first": [], "main": [], "last": []}
    debug, uml = machine.kind == "debug", machine.kind in ("uml", "kasan")

    def job(when, tests, places=1 if uml else 2, **how):
        jobs[when].append(Job(machine, tests, places, **how))

    # On uml a search takes longer than a lone test, and would slow down what measures time.
    leaks = debug or (machine.kind == "uml" and crowded)
    shared = []
    for test in machine.tests:
        if machine.kind == "host" or "runs-on" in test.words:
            job("main", Queue([test]), 2, on_host=True)
        elif "idle" in test.words:
            job("idle", Queue([test]), 0, leaks=leaks and "no-kmemleak" not in test.words)
        elif "exclusive" in test.words:
            shared.append(test) if debug else job("last", Queue([test]), 2)
        elif "no-kmemleak" in test.words:
            job("main", Queue([test]))
        else:
            shared.append(test)
    # Debug machines start while the others' modules are built. Their tests that measure time come
    # late: a machine that has a CPU of its own is then undisturbed.
    shared.sort(key=lambda test: (debug and "smp" not in test.words, "exclusive" in test.words,
                                  -test.timeout))
    queue = Queue(shared)
    if debug and shared:
        job("first", queue, leaks=True)
        # To boot takes as long as a test: no machine is there for a single one.
        others = sum("smp" not in test.words for test in shared)
        for _ in range(min(cpus - 1, others // 2)):
            job("first", queue, smp=False)
    for _ in range(0 if debug else min(cpus if uml else 1, len(shared))):
        job("main", queue, leaks=leaks)
    return jobs


# --- processes and threads


class Processes:
    """What was started, so that it can be stopped."""

    def __init__(self):
        self.lock, self.running, self.stopped = threading.Lock(), set(), False

    def start(self, command, env, **options):
        """The keyboard's signals do not reach it, and it does not outlive this program."""
        command = ("setpriv", "--pdeathsig", "TERM", "--", *command)
        with self.lock:
            if self.stopped:
                sys.exit()  # ends this thread
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env, process_group=0,
                                     **options)
            self.running.add(child)
            return child

    def wait(self, child):
        status = child.wait()
        with self.lock:
            self.running.remove(child)
            if self.stopped:
                sys.exit()
        return status

    def run(self, command, env=None, **options):
        return self.wait(self.start(command, env, **options))

    def stop(self):
        """Returns when all of it has ended."""
        with self.lock:
            self.stopped = True
            for child in self.running:
                child.terminate()
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join()


class Places:
    """Runs functions in threads, no more at once than there are places for."""

    def __init__(self, free):
        self.free, self.changed, self.threads = free, threading.Condition(), []

    def start(self, places, function, *arguments):
        """As soon as so many places are free."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= places)
            self.free -= places
        self.threads.append(threading.Thread(target=self.run, args=(places, function, arguments)))
        self.threads[-1].start()

    def run(self, places, function, arguments):
        try:
            function(*arguments)
        finally:
            with self.changed:
                self.free += places
                self.changed.notify()

    def wait(self):
        for thread in self.threads:
            thread.join()


# --- a machine at work


def after(test, log):
    """What comes in a kernel log after the end of a test, if that is in it."""
    end = re.search(rf"check: end {re.escape(test)}\n", log) if test else None
    return log[end.end():] if end else log


def judge(log):
    """The splats in a kernel log."""
    found = subprocess.run([TOP / "scripts/judge-log", log], stdout=subprocess.PIPE, check=False)
    return found.stdout.decode(errors="surrogateescape") if found.returncode else ""


class Guest:
    """A boot of a machine, which runs tests until one fails: see guest-run-tests."""

    def __init__(self, check, job):
        self.machine, self.report, self.processes = job.machine, check.report, check.processes
        self.boot = self.file(f"boot-{next(self.machine.boots)}")
        self.log, self.err = self.boot.with_suffix(".log"), self.boot.with_suffix(".err")
        env = {"NFT_OFFLOAD_LEAKS": "on" if job.leaks else "off", "VM_BUILT": "1"}
        with open(self.err, "wb") as err:
            vm = (TOP / "scripts/vm", "--machine", self.machine.kind, "--share", self.machine.dir,
                  "--timeout", "0", "--log", self.log, "--",
                  "/src/scripts/guest-run-tests", self.boot.name)
            self.vm = self.processes.start(vm, self.machine.env | env, stdout=subprocess.PIPE,
                                           stderr=err)
        self.unread, self.answers = b"", 0

    def file(self, name):
        return self.machine.dir / name

    def line(self, seconds):
        """The next line that it says, None at the end."""
        while b"\n" not in self.unread:
            if not select.select([self.vm.stdout], [], [], seconds)[0]:
                raise TimeoutError
            got = os.read(self.vm.stdout.fileno(), 4096)
            if not got:
                return None
            self.unread += got
        line, _, self.unread = self.unread.partition(b"\n")
        return line.decode(errors="replace")

    def answer(self, test):
        """Hands out a test, or none; returns how long it may take."""
        self.answers += 1
        limit = test.timeout * self.machine.slowness if test else 0
        new = self.boot.with_suffix(".new")
        write(new, f"{test.name} {limit} /src/{test.path.relative_to(TOP)}\n" if test else "\n")
        new.rename(self.boot.with_suffix(f".{self.answers}"))
        return limit + self.machine.around

    def run(self, take):
        """Runs the tests that take() gives; returns whether it booted."""
        current, last, splat, good, whole, hung = None, None, "", True, False, False
        wait, start = 300, 0
        try:
            # A machine that stands still says nothing: the time of a test counts here too.
            while not splat and (line := self.line(wait)) is not None:
                match line.split(" ", 4):
                    case ["next"]:
                        current, start = take() if good else None, time.monotonic()
                        wait = self.answer(current)
                    case ["end", name, status, seconds, remark]:
                        log = self.file(f"{name}.log")
                        write(log, after(last, read(log)))
                        splat = judge(log)
                        good = int(status) in (OK, SKIP)
                        if splat:
                            status, remark = 1, f"{remark} splat in the kernel log"
                        self.report(self.machine, name, int(status), seconds, remark.strip())
                        current, last, wait = None, name, self.machine.around
                    case ["finished"]:
                        whole = True
        except TimeoutError:
            hung = True
        if hung or splat:  # Lockdep and others speak once: not the machine for more tests.
            self.vm.terminate()
        self.processes.wait(self.vm)
        self.vm.stdout.close()
        for file in self.machine.dir.glob(f"{self.boot.name}.[0-9]*"):
            file.unlink()

        log = after(last, read(self.log))
        if current:
            begin = re.search(rf"^.*check: begin {re.escape(current.name)}$", log, re.M)
            write(self.file(f"{current.name}.log"), log[begin.start():] if begin else log)
            self.report(self.machine, current.name, LOST, int(time.monotonic() - start),
                        "the machine hung" if hung else "the machine died")
        elif last and not splat:
            rest = self.file(f"after-{last}.log")
            write(rest, log)
            if judge(rest):
                self.report(self.machine, rest.stem, 1, 0, "splat in the kernel log")
            elif not whole:
                self.report(self.machine, rest.stem, LOST, 0, "the machine did not get to its end")
        return self.answers > 0


# --- all of it


class Check:
    """A run of the test runner."""

    def __init__(self, environ, processes):
        # None of these is for what runs below.
        asked = {name: environ.pop(name, "") for name in
                 ("T", "TEST", "M", "MACHINE", "ALSO", "CHECK_TESTS", "CHECK_OUT")}
        self.glob = asked["T"] or asked["TEST"] or "*"
        self.out = Path(asked["CHECK_OUT"] or TOP / "build/check")
        only = (asked["M"] or asked["MACHINE"]).replace(",", " ").split()
        # All of them is no choice: what runs beside the machines runs too.
        if {"uml", "kasan", "debug", "stock"} <= set(only):
            only = []
        arch, self.suite = lib("eval", 'echo "$STOCK_ARCH" "$SUITE"').stdout.split()
        if arch != "amd64":
            for name in only or ["stock"]:
                must_be_known(name)
            only = [f"stock-{arch}"]
            environ.pop("ARCH", None)
        for name in only:
            must_be_known(kind_of(name), "host")
        tests = find_tests(Path(asked["CHECK_TESTS"] or TOP / "tests"), self.glob)
        on = by_machine(tests, only, asked["ALSO"].replace(",", " ").split())
        if not on:
            on_only = f" on {' '.join(only)}" if only else ""
            sys.exit(f"error: no test is called '{self.glob}'{on_only}")
        self.whole = self.glob == "*" and not only
        self.crowded = sum(map(len, on.values())) > 1
        if self.crowded:
            environ["NFT_OFFLOAD_CROWDED"] = "1"
        self.machines = [Machine(name, self.out, tests) for name, tests in on.items()]
        self.processes, self.results, self.lock = processes, [], threading.Lock()

    def run(self):
        """Runs the tests; returns the exit status."""
        begin = time.monotonic()
        where = ", ".join(f"{machine.name} {len(machine.tests)}" for machine in self.machines)
        print(f"tests: {sum(len(machine.tests) for machine in self.machines)} ({where})")
        self.setup()
        cpus = len(os.sched_getaffinity(0))
        places, main, last = Places(2 * cpus), [], []
        for machine in self.machines:
            if not self.prepare(machine):
                names = " ".join(test.name for test in machine.tests)
                self.report(machine, "build", 1, 0, f"no test can run there: {names}")
                machine.tests = []
            jobs = plan(machine, self.crowded, cpus)
            for job in jobs["idle"] + jobs["first"]:
                places.start(job.places, self.do, job)
            main += jobs["main"]
            last += jobs["last"]
        for jobs in main, last:
            for job in sorted(jobs, key=Job.longest, reverse=True):
                places.start(job.places, self.do, job)
            places.wait()

        # No test is lost, whatever became of its machine.
        known = {(machine, name) for _, machine, name in self.results}
        for machine in self.machines:
            for test in machine.tests:
                if (machine.name, test.name) not in known:
                    self.report(machine, test.name, LOST, 0, "was not run to its end")
        if self.whole:
            write(self.out / "tested.md", self.tested())
        print(self.failures(), end="")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"in {time.monotonic() - begin:.0f} s, with {used.ru_utime + used.ru_stime:.0f} s of "
              f"CPU; what each test printed: {self.out}")
        count = [sum(result == which for result, _, _ in self.results)
                 for which in ("ok", "FAIL", "skip")]
        print("{} passed, {} failed, {} skipped".format(*count))
        return 1 if count[1] else 0

    def setup(self):
        """What nothing can do without: its errors are said once. Then the kernels, before there
        are tests, whose time a build would take.
        """
        setup = TOP / "scripts/setup"
        if lib("ready", "root").returncode or lib("ready", "source").returncode:
            if status := self.processes.run((setup, "root", "source")):
                sys.exit(status)
        needs_ynl = any(t.name.startswith("netlink") for m in self.machines for t in m.tests)
        if needs_ynl and lib("ready", "ynl").returncode:
            if status := self.processes.run((setup, "ynl")):
                sys.exit(status)
        # Two at once: a kernel's Rust crates come one after the other, on one CPU.
        places = Places(2)
        for machine in self.machines:
            if machine.kind != "host" and not machine.is_ready():
                places.start(1, self.processes.run, (setup, machine.kind), machine.env)
        if any("tool" in test.words for machine in self.machines for test in machine.tests):
            places.start(1, self.processes.run, (TOP / "scripts/tool", "build"))
        places.wait()

    def prepare(self, machine):
        """The modules for it, and nothing left of an earlier run."""
        machine.dir.mkdir(parents=True, exist_ok=True)
        names = ["build", *(test.name for test in machine.tests)]
        old = [machine.dir / f"{name}.{end}" for name in names for end in ("out", "log")]
        for start in ("boot", "after", "kmemleak"):
            old += machine.dir.glob(f"{start}-*")
        for file in old:
            file.unlink(missing_ok=True)
        if machine.kind == "host":
            return True
        with open(machine.dir / "build.out", "wb") as out:
            make = ("make", "-s", "--no-print-directory", "-C", TOP, f"module-{machine.kind}")
            return machine.is_ready() and not self.processes.run(
                make, machine.env, stdout=out, stderr=out)

    def do(self, job):
        if job.on_host:
            self.on_host(job.machine, job.queue.take())
        else:
            self.in_guests(job)

    def on_host(self, machine, test):
        start = time.monotonic()
        env = {"MACHINE": machine.kind, "TOP": str(TOP), "OUT": str(machine.dir)}
        with open(machine.dir / f"{test.name}.out", "wb") as out:
            command = ("timeout", "--kill-after=10", str(test.timeout), test.path)
            status = self.processes.run(command, machine.env | env, stdout=out, stderr=out)
        self.report(machine, test.name, status, int(time.monotonic() - start),
                    f"no end within {test.timeout} s" if status == 124 else "")

    def in_guests(self, job):
        """Boots the machine, and again for the tests that a failure kept from running."""
        machine, lost = job.machine, False
        while job.queue.next(job.smp):
            guest = Guest(self, job)
            booted = guest.run(lambda: job.queue.take(job.smp))
            errors = read(guest.err)
            guest.err.unlink()
            if booted:
                continue
            # Under emulation, one boot in a score stands still before init, in the kernel's
            # timers. That is no test's fault; a second time it is.
            if not lost:
                lost = True
                print(f"     {machine.name} did not boot, see {guest.log}; once more")
                continue
            while test := job.queue.take(job.smp):
                write(machine.dir / f"{test.name}.out", errors)
                write(machine.dir / f"{test.name}.log", read(guest.log))
                self.report(machine, test.name, LOST, 0, "the machine did not boot")

    def report(self, machine, name, status, seconds, remark=""):
        """One line, and after a failure all there is."""
        result = {OK: "ok", SKIP: "skip"}.get(status, "FAIL")
        printed, log = read(machine.dir / f"{name}.out"), machine.dir / f"{name}.log"
        if result == "skip":
            why = re.search("# SKIP.*", printed)
            remark = why[0] if why else ""
        text = [f"{result:4} {machine.name:11} {name:28} {seconds:>6} s  {remark}"]
        if printed and (result == "FAIL" or self.glob != "*"):
            lines = printed.replace("\0", "").removesuffix("\n").split("\n")
            text += [f"    | {line}" for line in lines]
        if result == "FAIL" and log.exists():
            text += [f"    # {line}" for line in judge(log).split("\n")[:-1]]
            text += [f"    whole kernel log: {log}"]
        with self.lock:
            print("\n".join(text))
            self.results.append((result, machine.name, name))

    def failures(self):
        """Once more at the end, where a long output is read first: what failed, and of it what."""
        lines = []
        for result, machine, name in self.results:
            if result == "FAIL":
                said = read(self.out / machine / f"{name}.out")
                # With what is said of it, before and after.
                wrong = re.findall(r"((?:^#.*\n){,3})^not ok \d+ - (.*)\n((?:^#.*\n){,9})", said,
                                   re.MULTILINE)
                what = "; ".join(text for _, text, _ in wrong) or "see above"
                lines.append(f"failed: {machine} {name}: {what}\n")
                lines += (f"  {line[:240]}\n" for before, _, behind in wrong[:5]
                          for line in (before + behind).splitlines())
        return "".join(lines)

    def tested(self):
        """The table of what ran where, for `make tested-table`."""
        rows = []
        for machine in sorted(self.machines, key=lambda machine: machine.name):
            if machine.kind == "host":
                continue
            kernel = machine.lib("krelease", machine.kind).stdout.strip()
            kernel = re.sub("-(uml|kasan|debug)-.*", "", kernel)
            arch = "arm64" if machine.name.endswith("-arm64") else "amd64"
            origin = "its package" if machine.kind == "stock" else "built from its source"
            names = sorted(name for result, where, name in self.results
                           if (result, where) == ("ok", machine.name))
            # Which, where they are few.
            passed = f"{len(names)}: {' '.join(names)}" if len(names) <= 8 else len(names)
            rows.append((arch, [int(number) for number in re.findall(r"\d+", kernel)],
                         f"| {machine.kind} | {kernel} | {arch} | Debian {self.suite}: {origin} | "
                         f"{passed} |\n"))
        rows.sort(key=lambda row: row[1], reverse=True)
        rows.sort(key=lambda row: row[0])
        return ("| machine | kernel | processor | distribution | tests passed |\n"
                "|---|---|---|---|---|\n" + "".join(row for _, _, row in rows))


def main():
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", line_buffering=True)
    processes = Processes()

    def interrupted(*_):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    try:
        sys.exit(Check(os.environ, processes).run())
    except KeyboardInterrupt:
        processes.stop()
        sys.exit("error: interrupted")


if __name__ == "__main__":
    main()
