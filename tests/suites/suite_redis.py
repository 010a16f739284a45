"""Redis' own Tcl suite (Debian's source package redis) around Debian's redis-server of the same version: what concerns
connections, and the basic types. Each file of it is a job: a Tcl process that runs the tests, one that collects, and the
servers that they start, talk to and replicate among themselves."""
import os
import re
import shutil

import debian
from suite import Job, Suite

SECONDS = 600
FILES = """
    unit/networking unit/auth unit/protocol unit/querybuf unit/limits unit/obuf-limits unit/client-eviction unit/quit unit/pause
    unit/keyspace unit/pubsub unit/pubsubshard unit/multi unit/tracking unit/wait unit/shutdown unit/introspection
    unit/type/string unit/type/list unit/type/hash unit/type/set unit/type/zset unit/type/stream
    integration/redis-cli integration/redis-benchmark integration/block-repl integration/failover
    integration/replication integration/replication-2 integration/replication-3 integration/replication-4
    integration/replication-buffer integration/replication-psync
    """.split()
PROGRAMS = ("redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb")


class Redis(Suite):
    name = "redis"

    def prepare(self, folder):
        tree = debian.source("redis", folder)
        with open(f"{tree}/src/version.h") as f:
            version = re.search(r'REDIS_VERSION "(.*?)"', f.read()).group(1)
        if f"v={version} " not in debian.run(["redis-server", "--version"]):
            raise SystemExit(f"redis-server is not {version}, of which the tests are")
        for program in PROGRAMS:  # the tests look for what they would have built
            os.symlink(shutil.which(program), f"{tree}/src/{program}")

    def open(self, folder):
        self.tree = f"{folder}/redis"

    def jobs(self):
        return [Job(name, ["tclsh", "tests/test_helper.tcl", "--single", name, "--clients", "1"], self.tree, SECONDS, {"TERM": "dumb"})
                for name in FILES]

    def results(self, job, outcome):
        """A word for each test, told apart by name and number, and one for the end of the run."""
        found = {f"{job.name}: all": outcome.word}
        for word, name in re.findall(r"(?m)^\[(ok|err|ignore|skip|exception)\]: (.*)$", outcome.out):
            name = re.sub(r" \(\d+ ms\)$| in tests/\S+\.tcl$", "", name)
            test, n = f"{job.name}: {name}", 1
            while test in found:
                n += 1
                test = f"{job.name}: {name} #{n}"
            found[test] = word
        return found

    def source(self, path):
        return f"{self.tree}/{path}"


SUITE = Redis()
