"""Somebody else's test suite, run bare, pass-through and meshed with itself. The bare run's result of each test is what the
others must show; nothing else is known of the tests.

A suite is a class with the methods of Suite. `run` calls them, compares, and holds the deviations to the file
`deviations`: at most BUDGET lines over all suites, each naming one test and the line of its source that shows why it
cannot hold under the mesh. A line there that is not needed, or whose source line is not found, is a failure too."""
import os
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))

import proc  # noqa: E402
from mesh import BUILD, SHIM, Mesh  # noqa: E402
from wire import Wire  # noqa: E402

MODES = ("bare", "pass", "mesh")
BUDGET = 15
TRIES = 3  # timed tests on a busy machine: each try is told in the figures, and one that agrees is enough


class Job:
    """One command of a suite; its output gives the results of one or many tests."""

    def __init__(self, name, argv, cwd, seconds, env=None):
        self.name, self.argv, self.cwd, self.seconds, self.env = name, argv, cwd, seconds, env or {}


class Outcome:
    """How a job ended: `code` as Popen has it, None after a timeout."""

    def __init__(self, code, out, seconds):
        self.code, self.out, self.seconds = code, out, seconds

    @property
    def word(self):
        """One word for jobs that are one test."""
        if self.code is None:
            return "timeout"
        return "ok" if self.code == 0 else f"signal {-self.code}" if self.code < 0 else f"exit {self.code}"


class Suite:
    name = None

    def prepare(self, folder):
        """Fetches and builds below `folder`, which stays for the next run. Called when it is not yet there."""

    def open(self, folder):
        """Called before jobs(), each time."""

    def jobs(self):
        """Every Job of the suite."""

    def results(self, job, outcome):
        """{test: one word or line} of a job that has run. What is written there must not differ by nature."""
        return {job.name: outcome.word}

    def narrow(self, job, tests):
        """The job for these of its tests alone, to try them again; the whole job where that cannot be said."""
        return job

    def source(self, path):
        """Where a file that `deviations` names lies."""
        raise NotImplementedError


class Place:
    """Where one mode's jobs run: a network namespace, a weftd with STRICT if meshed, an environment."""

    def __init__(self, mode):
        self.mode = mode
        self.netns = f"weft-suite-{os.getpid()}-{mode}"
        subprocess.run(["ip", "netns", "add", self.netns], check=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True)
        self.mesh = Mesh(netns=self.netns)
        if mode == "mesh":
            self.mesh.start()
            self.mesh.strict()
        self.wire = Wire(self.netns, self.mesh.dir)
        self.wire.__enter__()

    def env(self, job):
        if self.mode == "bare":
            env = self.mesh.env(shim=False)
        elif self.mode == "pass":
            env = self.mesh.env(WEFT_MODE="off")
        else:
            env = self.mesh.env(service="self")
        env.update(job.env)
        return env

    def run(self, job):
        began = time.monotonic()
        before = set(proc.children())
        log = f"{self.mesh.dir}/job.out"
        with open(log, "wb") as out:
            p = subprocess.Popen(job.argv, env=self.env(job), cwd=job.cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                 preexec_fn=lambda: proc.enter_netns(self.netns), start_new_session=True)
        try:
            code = p.wait(job.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # of an interrupt too
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
            self._sweep(before)
        with open(log, errors="replace") as f:
            return Outcome(code, f.read(), time.monotonic() - began)

    def _sweep(self, before):
        """What a job left running comes to us, the subreaper."""
        left = [p for p in proc.children() if p not in before]
        proc.end_all([p for pid in left for p in [pid] + proc.descendants(pid)])
        for pid in left:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass

    def close(self):
        self.wire.__exit__()
        self.mesh.close()
        subprocess.run(["ip", "netns", "del", self.netns], check=False)


def load_deviations():
    """[(suite, test, file, line's text, why)]: fields between ' | ', '#' begins a comment."""
    found = []
    with open(f"{HERE}/deviations") as f:
        for number, line in enumerate(f, 1):
            if line.strip() and not line.startswith("#"):
                fields = [p.strip() for p in line.split(" | ")]
                if len(fields) != 5 or not all(fields):
                    raise SystemExit(f"deviations:{number}: suite | test | file | line of it | why")
                found.append(fields)
    if len(found) > BUDGET:
        raise SystemExit(f"deviations: {len(found)} lines, {BUDGET} are allowed over all suites")
    return found


class Run:
    def __init__(self, suite, modes, only, verbose, keep=None):
        self.suite, self.modes, self.only, self.verbose, self.keep = suite, modes, only, verbose, keep
        self.places = {}
        self.failures = []
        self.figures = []
        self.compared = 0  # results held against bare's
        self.known = {test for name, test, *_ in load_deviations() if name == suite.name}

    def say(self, text):
        print(f"{self.suite.name}: {text}", flush=True)

    def figure(self, text):
        self.say(text)
        self.figures.append(text)

    def open(self):
        folder = f"{BUILD}/suites/{self.suite.name}"
        if not os.path.exists(f"{folder}/.ready"):
            self.say(f"fetching and building in {folder}")
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            self.suite.prepare(folder)
            open(f"{folder}/.ready", "w").close()
        self.suite.open(folder)

    def once(self, mode, job):
        if mode not in self.places:
            self.places[mode] = Place(mode)
        outcome = self.places[mode].run(job)
        if self.keep:
            with open(f"{self.keep}/{self.suite.name}.{job.name.replace('/', '_')}.{mode}", "w") as f:
                f.write(outcome.out)
        return self.suite.results(job, outcome)

    def job(self, job):
        """Every mode's results of one job; what differs from bare is tried again, in both modes."""
        bare = self.once("bare", job)
        for mode in self.modes:
            if mode == "bare":
                continue
            seen = self.once(mode, job)
            self.compared += len(bare)
            differ = [t for t in sorted(bare.keys() | seen.keys()) if bare.get(t) != seen.get(t)]
            expected = bare
            for again in range(2, TRIES + 1):
                if not differ or (mode == "mesh" and self.known.issuperset(differ)):
                    break
                self.figure(f"{mode}: again: " + ", ".join(
                    f"{t} (bare {expected.get(t)}, {mode} {seen.get(t)})" for t in differ))
                part = self.suite.narrow(job, differ)
                expected, seen = self.once("bare", part), self.once(mode, part)
                differ = [t for t in differ if expected.get(t) != seen.get(t)]
            for t in differ:
                self.failures.append((mode, t, expected.get(t), seen.get(t)))
        if self.verbose:
            self.say(f"{job.name}: " + ", ".join(sorted(set(bare.values()))))
        return bare

    def judge(self):
        """Failures that the file of deviations does not explain, and lines of it that explain nothing."""
        named = {test: (path, line, why) for suite, test, path, line, why in load_deviations() if suite == self.suite.name}
        bad = 0
        for mode, test, bare, seen in self.failures:
            known = mode == "mesh" and test in named
            self.figure(f"{mode}: {'deviates by nature' if known else 'DIFFERS'}: {test}: bare {bare}, {mode} {seen}"
                        + (f" ({named[test][2]})" if known else ""))
            bad += not known
        for test, (path, line, _) in named.items():
            with open(self.suite.source(path), errors="replace") as f:
                if line not in f.read():
                    bad += 1
                    self.figure(f"deviations: {path} has no line '{line}'")
            if not self.only and "mesh" in self.modes and test not in {t for m, t, _, _ in self.failures if m == "mesh"}:
                bad += 1
                self.figure(f"deviations: {test} does not deviate")
        return bad

    def main(self):
        self.open()
        jobs = [j for j in self.suite.jobs() if not self.only or any(j.name == o or j.name.startswith(f"{o}.") for o in self.only)]
        if not jobs:
            raise SystemExit(f"{self.suite.name}: no such test")
        began = time.monotonic()
        bare = {}
        try:
            for job in jobs:
                bare.update(self.job(job))
        finally:
            for place in self.places.values():
                place.close()
        bad = self.judge()
        words = sorted(bare.values())
        self.figure(f"{len(jobs)} jobs, {len(bare)} tests, bare: "
                    + ", ".join(f"{words.count(w)} {w}" for w in sorted(set(words))) + f"; {time.monotonic() - began:.0f} s")
        for mode in self.modes[1:]:
            wire = self.places[mode].wire
            mine = [f for f in self.failures if f[0] == mode]
            self.figure(f"{mode}: {len(bare) - len(mine)} as bare, {len(mine)} not; {wire.connections} connections on loopback, "
                        f"{wire.tls} of them TLS")
        return bad
