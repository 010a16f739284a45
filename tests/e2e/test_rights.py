"""Programs that pass their connections and listeners over Unix sockets, all meshed and STRICT."""
import os
import signal
import socket
import threading

import pytest

from proc import wait_until
from servers import pattern

CLUSTER = """
const cluster = require('cluster'), http = require('http');
cluster.schedulingPolicy = cluster.SCHED_RR;
if (cluster.isPrimary) {
	for (let i = 0; i < 3; i++) cluster.fork();
} else {
	http.createServer((q, s) => {
		let n = 0;
		q.on('data', d => n += d.length);
		q.on('end', () => s.end(`${process.pid} ${n}\\n`));
	}).listen(process.env.PORT, '127.0.0.1');
}
"""


def relays(mesh):
    return os.popen(f"pgrep -P {mesh.weftd.pid} weftd-relay").read().split()


def node_cluster(mesh, servers):
    port, path = mesh.port(), f"{mesh.dir}/cluster.js"
    with open(path, "w") as f:
        f.write(CLUSTER)
    servers(mesh).start(["node", path], "orders", port, env={"PORT": port})
    return port


def test_node_cluster(strict, servers):
    """Round robin: the primary accepts and sends each connection to a worker, which shakes hands. No relay is needed."""
    port = node_cluster(strict, servers)
    workers = set()
    for _ in range(12):
        r = strict.curl(f"http://orders:{port}/", "-d", "x" * 5000)
        assert r.code == 0 and r.text.endswith(" 5000\n"), r
        workers.add(r.text.split()[0])
    assert len(workers) == 3
    assert not relays(strict)
    plain = strict.curl(f"http://127.0.0.1:{port}/", shim=False, service=None)
    assert plain.code != 0, plain


def test_node_cluster_slow_clients(strict, servers):
    """Clients that connect and say nothing do not stop the primary."""
    port = node_cluster(strict, servers)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    r = strict.curl(f"http://orders:{port}/", "-d", "x")
    assert r.code == 0 and r.seconds < 3, r
    for s in silent:
        s.close()


POOL = """
import multiprocessing, os, socket
from multiprocessing import reduction

def work(pipe):
    while True:
        c = socket.socket(fileno=reduction.recv_handle(pipe))
        with c, c.makefile("rwb") as f:
            while line := f.readline():
                f.write(b"%d %s" % (os.getpid(), line))
                f.flush()

if __name__ == "__main__":
    multiprocessing.set_start_method(os.environ["METHOD"])
    pool = []
    for _ in range(2):
        ours, theirs = multiprocessing.Pipe()
        p = multiprocessing.Process(target=work, args=(theirs,))
        p.start()
        pool.append((ours, p))
    with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))) as l:
        n = 0
        while True:
            c, _ = l.accept()
            if os.environ["BEFORE"]:
                c.recv(6)
            n += 1
            ours, p = pool[n % 2]
            reduction.send_handle(ours, c.fileno(), p.pid)
            c.close()
"""

LINES = """
import os, socket, sys
pids = set()
for i in range(6):
    with socket.create_connection(("orders", int(os.environ["PORT"])), 20) as s, s.makefile("rwb") as f:
        if os.environ["BEFORE"]:
            s.sendall(b"before")
        for k in range(3):
            f.write(b"line %d\\n" % k)
            f.flush()
            pid, line = f.readline().split(b" ", 1)
            assert line == b"line %d\\n" % k, line
            pids.add(pid)
print(len(pids))
"""


@pytest.mark.parametrize("before", ["", "1"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(strict, servers, tmp_path, method, before):
    """reduction.send_handle to a pool, before and after the first bytes."""
    port = strict.port()
    (tmp_path / "pool.py").write_text(POOL)
    servers(strict).start(["/usr/bin/python3", tmp_path / "pool.py"], "orders", port,
                          env={"PORT": port, "METHOD": method, "BEFORE": before})
    r = strict.run(["/usr/bin/python3", "-c", LINES], service="web", env={"PORT": port, "BEFORE": before})
    assert r.text == "2\n", r


HAPROXY = """
global
	stats socket %(dir)s/haproxy.sock mode 600 level admin expose-fd listeners
defaults
	mode http
	timeout client 10s
	timeout server 10s
	timeout connect 5s
frontend f
	bind 127.0.0.1:%(port)d
	http-request return status 200 content-type text/plain lf-string "%%[env(ROUND)]"
"""


def test_haproxy_takes_over_listeners(strict, servers):
    """haproxy -x: the new process gets the listeners of the old by its Unix socket; no connection fails meanwhile."""
    port = strict.port()
    conf = f"{strict.dir}/haproxy.cfg"
    with open(conf, "w") as f:
        f.write(HAPROXY % {"dir": strict.dir, "port": port})
    servers(strict).start(["haproxy", "-db", "-f", conf], "orders", port, env={"ROUND": "old"})
    failed, seen, stop = [], set(), threading.Event()

    def load():
        while not stop.is_set():
            r = strict.curl(f"http://orders:{port}/")
            seen.add(r.text) if r.code == 0 else failed.append(r)
    t = threading.Thread(target=load)
    t.start()
    try:
        wait_until("the old one serves", lambda: seen)
        old = strict.processes[-1] if "haproxy" in strict.processes[-1].argv[0] else next(
            p for p in strict.processes if "haproxy" in p.argv[0])
        strict.popen(["haproxy", "-db", "-f", conf, "-x", f"{strict.dir}/haproxy.sock", "-sf", old.pid], service="orders",
                     env={"ROUND": "new"})
        wait_until("the old one ends", lambda: not old.running(), 15)
        wait_until("the new one serves", lambda: len(seen) == 2)
    finally:
        stop.set()
        t.join()
    assert not failed, failed[0]
    strict.wait_endpoints("orders", 1)


DROPPER = """
import os, socket
from multiprocessing import reduction
a, b = socket.socketpair()
if os.fork() == 0:
    a.close()
    os.setgid(65534)
    os.setuid(65534)
    b.send(b"r")
    while True:
        msg, fds, flags, _ = socket.recv_fds(b, 1, 1)
        with socket.socket(fileno=fds[0]) as c:
            c.sendall(b"%d %s" % (os.geteuid(), c.recv(100)))
b.close()
a.recv(1)
with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))) as l:
    while True:
        c, _ = l.accept()
        socket.send_fds(a, [b"x"], [c.fileno()])
        c.close()
"""


def test_worker_of_another_uid(strict, servers):
    """The memory of a session is its uid's: a worker that gave up its rights is carried by the relay."""
    port = strict.port()
    servers(strict).python(DROPPER, "orders", port)
    code = f"""
import socket
for i in range(3):
    with socket.create_connection(("orders", {port}), 20) as s:
        s.sendall(b"%d" % i)
        print(s.recv(100).decode())
"""
    r = strict.run(["/usr/bin/python3", "-c", code], service="web")
    assert r.text == "65534 0\n65534 1\n65534 2\n", r
    assert len(relays(strict)) == 1
