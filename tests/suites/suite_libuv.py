"""libuv's own tests (Debian's source package libuv1), each in a process family of its own, as its runner does it."""
import re
import subprocess

import debian
from suite import Job, Suite

SECONDS = 120  # of one test; libuv's own bound is 5 s times the multiplier below for most


class Libuv(Suite):
    name = "libuv"

    def prepare(self, folder):
        tree = debian.source("libuv1", folder)
        for step in (["cmake", "-S", tree, "-B", f"{tree}/build", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"],
                     ["cmake", "--build", f"{tree}/build", "-j2", "--target", "uv_run_tests"]):
            debian.run(step)

    def open(self, folder):
        self.tree = f"{folder}/libuv1"

    def jobs(self):
        program = f"{self.tree}/build/uv_run_tests"
        env = {"UV_RUN_AS_ROOT": "1", "UV_TEST_TIMEOUT_MULTIPLIER": "4", "RES_OPTIONS": "attempts:0"}
        listed = subprocess.run([program, "--list"], env=env, capture_output=True, text=True, check=True).stdout
        names = re.findall(r"(?m)^(\w+)", listed)  # with the helpers of each in brackets on a line of their own
        return [Job(name, [program, name], self.tree, SECONDS, env) for name in dict.fromkeys(names)]

    def results(self, job, outcome):
        """ok, skip, or not ok with the assertion that failed: the tests print that as `in FILE on line N: expression`."""
        if outcome.code is None:
            return {job.name: "timeout"}
        m = re.search(r"(?m)^(not ok|ok) 1 - \S+(.*)$", outcome.out)
        if not m:
            return {job.name: outcome.word}
        if m.group(1) == "ok":
            return {job.name: "skip" if "SKIP" in m.group(2) else "ok"}
        why = re.search(r"Assertion failed in \S*?(test/\S+) on line (\d+)", outcome.out)
        return {job.name: f"failed at {why.group(1)}:{why.group(2)}" if why else "failed"}

    def source(self, path):
        return f"{self.tree}/{path}"


SUITE = Libuv()
