"""PostgreSQL as server and client, STRICT on both ends."""
import os
import pwd
import shutil
import subprocess

import pytest

from proc import wait_until
from servers import certificate, pattern

pytestmark = pytest.mark.full
PG = "/usr/lib/postgresql/15/bin"


class Postgres:
    """A cluster of its own, run by the user postgres as its programs demand."""

    def __init__(self, mesh, *options):
        self.mesh, self.port, self.dir = mesh, mesh.port(), f"{mesh.dir}/pg"
        user = pwd.getpwnam("postgres")
        os.mkdir(self.dir, 0o700)
        os.chown(self.dir, user.pw_uid, user.pw_gid)
        cert, key = certificate(f"{mesh.dir}/pg-own", name="db")
        subprocess.run([f"{PG}/initdb", "-D", self.dir, "-A", "trust", "-N", "--no-instructions", "-E", "UTF8"], check=True, user="postgres",
                       capture_output=True, cwd=mesh.dir)
        for path in (cert, key):
            shutil.copy(path, self.dir)
            os.chown(f"{self.dir}/{os.path.basename(path)}", user.pw_uid, user.pw_gid)
        os.chmod(f"{self.dir}/pg-own.key", 0o600)
        self.process = mesh.popen(
            [f"{PG}/postgres", "-D", self.dir, "-p", self.port, "-k", "", "-c", "listen_addresses=127.0.0.1", "-c", "ssl=on",
             "-c", "ssl_cert_file=pg-own.pem", "-c", "ssl_key_file=pg-own.key", "-c", "fsync=off", *options], service="db", user="postgres")
        mesh.wait_listening(self.port, self.process)
        mesh.wait_name("db")
        wait_until("postgres answers", lambda: self.psql("select 1").text == "1\n", 20)

    def url(self, ssl):
        return f"host=db port={self.port} user=postgres dbname=postgres sslmode={ssl}"

    def psql(self, *commands, ssl="disable", **kw):
        words = [w for c in commands for w in ("-c", c)]
        return self.mesh.run(["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self.url(ssl), *words], service="web", **kw)


@pytest.fixture
def postgres(strict):
    return Postgres(strict)


@pytest.mark.seconds(180)
@pytest.mark.parametrize("ssl", ["disable", "require"])
def test_postgres_copies_100_mb_both_ways(postgres, ssl):
    """COPY in and out by psql; with sslmode=require, postgres' own TLS inside ours."""
    line = pattern(500).hex().encode() + b"\n"
    data = b"%d\t" % 7 + line
    data *= (100 << 20) // len(data)
    path = f"{postgres.mesh.dir}/in"
    with open(path, "wb") as f:
        f.write(data)
    r = postgres.psql("create unlogged table t (n int, s text)", f"\\copy t from '{path}'", ssl=ssl, timeout=90)
    assert r.code == 0, r
    r = postgres.psql("copy t to stdout", ssl=ssl, timeout=90)
    assert r.code == 0 and r.out == data, r.err
    want = "t\n" if ssl == "require" else "f\n"
    assert postgres.psql("select ssl from pg_stat_ssl where pid = pg_backend_pid()", ssl=ssl).text == want


def test_pgbench(postgres):
    """A process per connection on the server, epoll with threads and reconnects in the client."""
    pgbench = [f"{PG}/pgbench", "-h", "db", "-p", postgres.port, "-U", "postgres"]
    run = lambda *words: postgres.mesh.run([*pgbench, *words, "postgres"], service="web", timeout=60)
    assert run("-i", "-s", "2", "-q").code == 0
    for words in (["-c", "8", "-j", "2", "-T", "2"], ["-c", "4", "-j", "2", "-T", "2", "-C"], ["-S", "-M", "prepared", "-c", "4", "-t", "200"]):
        r = run(*words)
        assert r.code == 0 and "number of failed transactions: 0 (0.000%)" in r.text, r


def test_postgres_cancel_and_listen(postgres):
    """A cancel request goes over a connection of its own; NOTIFY arrives unasked."""
    assert "canceling statement due to user request" in postgres.mesh.run(
        ["timeout", "-s", "INT", "1", "psql", "-Xq", postgres.url("disable"), "-c", "select pg_sleep(20)"], service="web").err.decode()
    r = postgres.psql("listen a", "notify a, 'hello'", "select 1")
    assert r.code == 0 and 'notification "a" with payload "hello"' in r.text, r
