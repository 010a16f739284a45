"""Servers and weftd that come, go and are killed; what runs goes on."""
import os
import signal
import socket
import subprocess
import time

import pytest

from proc import alive, children, descendants, end_all, wait_until
from test_bad_input import speaks_plain

DENY_WEB = {"selector": {"matchLabels": {"app": "orders"}}, "action": "DENY",
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/web"]}}]}]}

# A client that runs all the time: one line in, one connection, one line out.
ASKER = """
import socket, sys
for line in sys.stdin:
    try:
        s = socket.create_connection((line.strip() or "orders", 80), 10)
        s.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
        print("got", s.makefile("rb").read().split(b"\\r\\n\\r\\n", 1)[-1].decode().strip(), flush=True)
        s.close()
    except OSError as e:
        print("error", e, flush=True)
"""


class Asker:
    """A long-lived meshed client."""

    def __init__(self, mesh, service="web"):
        self.p = mesh.popen(["/usr/bin/python3", "-u", "-c", ASKER], service=service, stdin=subprocess.PIPE,
                            name=f"asker-{len(mesh.processes)}")
        self.asked = 0

    def ask(self, name="orders", seconds=15):
        self.p.popen.stdin.write(f"{name}\n".encode())
        self.p.popen.stdin.flush()
        self.asked += 1

        def answer():
            text = self.p.text()
            lines = text.splitlines()
            return lines[self.asked - 1] if len(lines) >= self.asked and text.endswith("\n") else None
        return wait_until("the client answers", answer, seconds)


# --- servers ---

def test_kill_9_withdraws_within_a_second(strict, servers):
    nginx = servers(strict).nginx("orders", main="master_process off;")
    strict.wait_endpoints("orders", 1)
    nginx.process.kill()
    began = time.monotonic()
    strict.wait_endpoints("orders", 0, 2)
    assert time.monotonic() - began < 1.0
    assert strict.curl("http://orders/who").code == 7


def test_closing_the_listener_withdraws(strict):
    port = strict.port()
    p = strict.popen(["/usr/bin/python3", "-u", "-c", f"""
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", {port})); s.listen()
sys.stdin.readline(); s.close(); print("closed"); sys.stdin.readline()
"""], service="brief", stdin=subprocess.PIPE)
    strict.wait_endpoints("brief", 1)
    p.popen.stdin.write(b"\n")
    p.popen.stdin.flush()
    strict.wait_endpoints("brief", 0, 2)
    assert p.running()


def test_every_new_connection_succeeds_after_kill_9_of_one_of_two(strict, servers):
    a = servers(strict).nginx("orders@v1", who="v1", main="master_process off;")
    servers(strict).nginx("orders@v2", who="v2", main="master_process off;")
    strict.wait_endpoints("orders", 2)
    asker = Asker(strict)
    assert {asker.ask() for _ in range(40)} == {"got v1", "got v2"}
    a.process.kill()
    assert {asker.ask() for _ in range(60)} == {"got v2"}  # from the first one on


def test_daemon_with_its_double_fork(strict, servers):
    nginx = servers(strict).nginx("orders", daemon=True)
    wait_until("the starter ends", lambda: not nginx.process.running())
    assert strict.curl("http://orders/who").text == "nginx\n"
    time.sleep(1.5)  # the starter has long gone: this must not withdraw it
    assert len(strict.endpoints("orders")) == 1
    assert strict.curl("http://orders/who").text == "nginx\n"
    family = [nginx.master(), *children(nginx.master())]
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    strict.wait_endpoints("orders", 0, 3)


def test_prefork_with_the_master_killed(strict, servers):
    nginx = servers(strict).nginx("orders", workers=3)
    assert strict.curl("http://orders/who").text == "nginx\n"
    workers = children(nginx.process.pid)
    assert len(workers) == 3
    try:
        nginx.process.kill()
        time.sleep(1.5)
        assert all(alive(w) for w in workers)
        assert len(strict.endpoints("orders")) == 1
        for _ in range(10):
            assert strict.curl("http://orders/who").text == "nginx\n"
    finally:
        end_all(workers)
    strict.wait_endpoints("orders", 0, 3)


def test_a_child_that_inherited_the_listener_by_exec_does_not_keep_it(strict):
    port = strict.port()
    p = strict.popen(["/usr/bin/python3", "-c", f"""
import os, socket, subprocess, time
s = socket.socket(); s.bind(("127.0.0.1", {port})); s.listen(); s.set_inheritable(True)
subprocess.Popen(["sleep", "1000"], close_fds=False)
time.sleep(1000)
"""], service="brief")
    strict.wait_endpoints("brief", 1)
    wait_until("it has a child", lambda: children(p.pid))
    family = descendants(p.pid)
    p.kill()
    strict.wait_endpoints("brief", 0, 3)
    assert alive(family[0])
    end_all(family)


def test_a_peer_that_is_killed_is_no_orderly_end(strict, servers):
    """A killed process sends no close_notify: its reader is told (ECONNRESET), where a bare one would see an end."""
    port = strict.port()
    p = servers(strict).python("""
import os, socket, time
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
c, _ = s.accept()
c.sendall(b"half of it")
time.sleep(1000)
""", "brief", port)
    reader = strict.popen(["/usr/bin/python3", "-u", "-c", f"""
import socket
s = socket.create_connection(("brief", {port}))
print(s.recv(100))
try: print("end", s.recv(100))
except ConnectionResetError: print("reset")
"""], service="web")
    wait_until("it has the first half", lambda: "half of it" in reader.text())
    p.kill()
    reader.wait()
    assert reader.text().splitlines()[-1] == "reset", reader.text()


# --- weftd ---

def test_weftd_killed_and_restarted(strict, servers):
    servers(strict).nginx("orders")
    asker = Asker(strict)
    assert asker.ask() == "got nginx"
    strict.kill_weftd()
    for _ in range(5):
        assert asker.ask() == "got nginx"
    strict.forget_redis()
    strict.start()
    assert asker.ask() == "got nginx"
    strict.wait_endpoints("orders", 1)
    assert strict.curl("http://orders/who").text == "nginx\n"
    # ... and the running ones follow the new one
    strict.apply("AuthorizationPolicy", "no-web", DENY_WEB)
    wait_until("web is denied", lambda: asker.ask() != "got nginx", 3)


@pytest.mark.seconds(120)
def test_a_deny_written_while_weftd_is_down_holds_after_its_restart(make_mesh, servers, tmp_path):
    """The Redis is its own here, as in production: kill -9 of weftd, SET, start; for processes started before."""
    path = f"{tmp_path}/redis.sock"
    redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(tmp_path)],
                             stdout=subprocess.DEVNULL)
    try:
        wait_until("redis is there", lambda: os.path.exists(path))
        mesh = make_mesh(redis=f"unix:{path}", options=["--ca", "--attest", "open"])
        mesh.redis_path = path
        mesh.strict()
        nginx = servers(mesh).nginx("orders")
        asker = Asker(mesh)
        assert asker.ask() == "got nginx"
        mesh.kill_weftd()
        mesh.redis_set("AuthorizationPolicy", "no-web", DENY_WEB)
        time.sleep(0.5)
        assert asker.ask() == "got nginx"  # nobody has told it
        mesh.start()
        began = time.monotonic()
        wait_until("web is denied", lambda: asker.ask() != "got nginx", 5)
        assert time.monotonic() - began < 4
        time.sleep(1)
        assert asker.ask() != "got nginx"
        assert not speaks_plain(nginx.port)
        mesh.redis_del("AuthorizationPolicy", "no-web")
        wait_until("web is let in", lambda: asker.ask() == "got nginx", 5)
    finally:
        redis.terminate()
        redis.wait()


def test_running_processes_go_on_without_weftd_and_redis(strict, servers):
    nginx = servers(strict).nginx("orders")
    asker = Asker(strict)
    assert asker.ask() == "got nginx"
    strict.stop_all_control()
    time.sleep(3.5)  # the heartbeat is older than 3 s now: that must not change anything
    for _ in range(5):
        began = time.monotonic()
        assert asker.ask() == "got nginx"
        assert time.monotonic() - began < 3
    assert not speaks_plain(nginx.port)  # STRICT is not lost with Redis


def test_a_new_process_without_weftd_is_closed(strict, servers):
    servers(strict).nginx("orders")
    assert strict.curl("http://orders/who").text == "nginx\n"
    strict.stop_all_control()
    r = strict.curl("http://orders/who", timeout=20)
    assert r.code != 0 and not r.out, r
    assert r.seconds < 10, r


def test_losing_redis_data_does_not_lose_strict_or_deny(strict, servers):
    nginx = servers(strict).nginx("orders")
    strict.apply("AuthorizationPolicy", "no-web", DENY_WEB)
    asker = Asker(strict)
    other = Asker(strict, "other")
    wait_until("web is denied", lambda: asker.ask() != "got nginx")
    assert other.ask() == "got nginx"
    strict.redis("FLUSHALL")
    time.sleep(1)
    assert asker.ask() != "got nginx"
    assert other.ask() == "got nginx"
    assert not speaks_plain(nginx.port)
    status = strict.page("/status")
    assert status["store"]["state"] == "held" and not status["healthy"], status


def test_sigterm_withdraws_this_hosts_endpoints(make_mesh, servers, tmp_path):
    path = f"{tmp_path}/redis.sock"
    redis = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(tmp_path)],
                             stdout=subprocess.DEVNULL)
    try:
        wait_until("redis is there", lambda: os.path.exists(path))
        mesh = make_mesh(redis=f"unix:{path}", options=["--ca", "--attest", "open"])
        mesh.redis_path = path
        servers(mesh).nginx("orders")
        mesh.wait_endpoints("orders", 1)
        wait_until("it is in Redis", lambda: mesh.redis("KEYS", "weft:WorkloadEntry:*"))
        mesh.weftd.popen.terminate()
        assert mesh.weftd.wait() == 0
        assert mesh.redis("KEYS", "weft:WorkloadEntry:*") == []
    finally:
        redis.terminate()
        redis.wait()


def test_the_embedded_redis_ends_with_weftd(make_mesh):
    mesh = make_mesh()
    family = descendants(mesh.weftd.pid)
    assert family
    mesh.weftd.popen.terminate()
    assert mesh.weftd.wait() == 0
    wait_until("its redis-server ends", lambda: not any(alive(p) for p in family))


CLOSER = """
import os, select, socket
l = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=64)
while True:
    if {polls}:
        select.select([l], [], [])
    c, _ = l.accept()
    c.close()
"""


@pytest.mark.parametrize("polls", [pytest.param(True, marks=pytest.mark.full), False])
def test_silent_clients_of_a_server_that_closes_at_once(strict, servers, polls):
    """What the program has closed waits for the client's handshake, and no longer than that may take."""
    port = strict.port()
    server = servers(strict).python(CLOSER.format(polls=polls), "orders", port)

    def descriptors():
        return len(os.listdir(f"/proc/{server.pid}/fd"))
    before = descriptors()
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    wait_until("all are accepted", lambda: descriptors() >= before + 10)
    wait_until("all are gone", lambda: descriptors() == before, 20)
    for c in clients:
        c.close()
