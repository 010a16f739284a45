"""Programs and ways of running them beyond the list: nobody wrote weft for these."""
import os
import signal
import socket
import subprocess
import textwrap
import time

import pytest

from proc import alive, children, end_all, wait_until
from servers import certificate, pattern
from test_bad_input import speaks_plain

PYTHON = "/usr/bin/python3"


def test_haproxy_between_two_meshed_nginx(strict, servers):
    """As server for curl and as client of nginx, with its own event loop, splicing and health checks."""
    s = servers(strict)
    nginx = s.nginx("back")
    data = nginx.file("f", pattern(2 << 20))
    port = strict.port()
    conf = f"{strict.dir}/haproxy.cfg"
    with open(conf, "w") as f:
        f.write(textwrap.dedent(f"""
            global
                maxconn 500
            defaults
                mode http
                timeout connect 5s
                timeout client 20s
                timeout server 20s
            frontend f
                bind 127.0.0.1:{port}
                default_backend b
            backend b
                option http-keep-alive
                server one 127.0.0.1:{nginx.port} check inter 200ms
        """))
    s.start(["haproxy", "-db", "-f", conf], "front", port)
    wait_until("its health check passes", lambda: strict.curl(f"http://front:{port}/who").text == "nginx\n")
    for _ in range(5):
        assert strict.curl(f"http://front:{port}/f").out == data
    r = strict.run(["wrk", "-t1", "-c32", "-d2s", f"http://front:{port}/who"], service="web")
    assert "Socket errors" not in r.text and "Non-2xx" not in r.text, r.text


def test_haproxy_tcp_mode_with_splice(strict, servers):
    s = servers(strict)
    nginx = s.nginx("back")
    data = nginx.file("f", pattern(8 << 20))
    port = strict.port()
    conf = f"{strict.dir}/haproxy.cfg"
    with open(conf, "w") as f:
        f.write(f"defaults\n mode tcp\n option splice-auto\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
                f"listen l\n bind 127.0.0.1:{port}\n server one 127.0.0.1:{nginx.port}\n")
    s.start(["haproxy", "-db", "-f", conf], "front", port)
    for _ in range(3):
        assert strict.curl(f"http://front:{port}/f").out == data


def test_http2_through_the_mesh(strict, servers):
    nginx = servers(strict).nginx("files", listen="127.0.0.1:%d http2" % (port := strict.port()), port=port)
    data = nginx.file("f", pattern(3 << 20))
    r = strict.curl(f"http://files:{port}/f", "--http2-prior-knowledge")
    assert r.out == data, r.err


def test_the_applications_own_tls_inside_ours(strict, servers):
    """https under STRICT: TLS in TLS."""
    cert, key = certificate(f"{strict.dir}/own", name="files")
    port = strict.port()
    nginx = servers(strict).nginx("files", listen=f"127.0.0.1:{port} ssl", port=port,
                                  http=f"ssl_certificate {cert}; ssl_certificate_key {key};")
    data = nginx.file("f", pattern(3 << 20))
    r = strict.curl(f"https://files:{port}/f", "--cacert", cert)
    assert r.out == data, r.err


@pytest.mark.parametrize("listen", ["127.0.0.1:{} reuseport", "[::1]:{}", "[::]:{} ipv6only=off", "0.0.0.0:{}"])
def test_ways_to_listen(strict, servers, listen):
    port = strict.port()
    nginx = servers(strict).nginx("orders", listen=listen.format(port), port=port, workers=3)
    for _ in range(20 if listen != "[::1]:{}" else 0):  # a name is an IPv4 address to who does not ask for IPv6
        assert strict.curl("http://orders/who").text == "nginx\n"
    host = "[::1]" if listen.startswith("[") else "127.0.0.1"
    r = strict.curl(f"http://{host}:{port}/who")
    assert r.text == "nginx\n", r
    assert strict.curl(f"http://{host}:{port}/who", shim=False).code != 0
    assert nginx.process.running()


def test_nginx_binary_upgrade(strict, servers):
    """USR2: the old master execs the new one, which inherits the listening sockets by number.

    nginx empties the environment of the new binary but for what `env` names."""
    nginx = servers(strict).nginx("orders", daemon=True,
                                  main="user root; env LD_PRELOAD; env WEFT_SERVICE; env WEFT_SOCKET; env WEFT_LOG;")
    old = nginx.master()
    os.kill(old, signal.SIGUSR2)
    try:
        wait_until("the new master is there", lambda: os.path.exists(f"{nginx.dir}/nginx.pid.oldbin")
                   and os.path.exists(f"{nginx.dir}/nginx.pid") and nginx.master() != old)
        os.kill(old, signal.SIGQUIT)
        wait_until("the old one has ended", lambda: not alive(old))
        # It is announced again when it first accepts; a plain client is refused there, as ever under STRICT.
        assert not speaks_plain(nginx.port)
        strict.wait_endpoints("orders", 1)
        for _ in range(10):
            assert strict.curl("http://orders/who").text == "nginx\n"
    finally:
        end_all([old, nginx.master(), *children(nginx.master())])


LOAD = """
import sys, threading, time, urllib.request
end = time.time() + float(sys.argv[2]); done = []; failed = []
def work():
    while time.time() < end:
        try: assert urllib.request.urlopen(sys.argv[1], timeout=20).read() == b"nginx\\n"; done.append(1)
        except Exception as e: failed.append(repr(e))
t = [threading.Thread(target=work) for _ in range(8)]; [x.start() for x in t]; [x.join() for x in t]
print(len(done) > 50, failed)
"""


@pytest.mark.parametrize("what", ["reload", "upgrade"])
def test_nginx_changes_under_load(strict, servers, what):
    """HUP, again and again; or USR2, then the old master goes: no request fails."""
    nginx = servers(strict).nginx("orders", daemon=True,
                                  main="user root; env LD_PRELOAD; env WEFT_SERVICE; env WEFT_SOCKET; env WEFT_LOG;")
    old = nginx.master()
    load = strict.popen([PYTHON, "-c", LOAD, "http://orders/who", "4"], service="web", name="load")
    try:
        for _ in range(5 if what == "reload" else 0):
            time.sleep(0.5)
            os.kill(old, signal.SIGHUP)
        if what == "upgrade":
            time.sleep(1)
            os.kill(old, signal.SIGUSR2)
            wait_until("the new master is there", lambda: os.path.exists(f"{nginx.dir}/nginx.pid.oldbin")
                       and os.path.exists(f"{nginx.dir}/nginx.pid") and nginx.master() != old)
            wait_until("it has workers", lambda: children(nginx.master()))
            os.kill(old, signal.SIGQUIT)
            wait_until("the old one has ended", lambda: not alive(old))
        load.wait(60)
        assert load.text() == "True []\n"
    finally:
        end_all([old, nginx.master(), *children(nginx.master())])


def test_a_listener_that_was_inherited(strict, servers):
    """Socket activation: somebody without the shim binds and listens, the program only accepts."""
    port = strict.port()
    server = ("import socket, sys\ns = socket.socket(fileno=3)\n"
              "while True:\n c, _ = s.accept()\n try: c.sendall(c.recv(100).upper())\n except OSError as e: print(e)\n c.close()\n")
    starter = ("import os, socket, sys\n"
               f"s = socket.create_server(('127.0.0.1', {port})); s.fileno() == 3 or os.dup2(s.fileno(), 3); os.set_inheritable(3, True)\n"
               "env = dict(os.environ, LD_PRELOAD=os.environ['SHIM'], WEFT_SERVICE='activated')\n"
               f"os.execve('{PYTHON}', ['python3', '-c', {server!r}], env)\n")
    from mesh import SHIM
    p = strict.popen([PYTHON, "-c", starter], shim=False, env={"SHIM": SHIM})
    strict.wait_listening(port, p)
    client = ("import socket, sys\n"
              f"s = socket.create_connection(('127.0.0.1', {port}), 10); s.sendall(b'hello'); print(s.recv(100))\n")
    wait_until("a meshed client is served", lambda: strict.run([PYTHON, "-c", client], service="web").text == "b'HELLO'\n", 5)
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.sendall(b"hello")
        try:
            assert s.recv(100) == b""
        except ConnectionError:
            pass


def test_a_server_that_runs_programs(strict, servers):
    """Children of a meshed server, by fork and exec, with pipes; their output goes over its connection."""
    port = strict.port()
    servers(strict).python("""
import http.server, os, subprocess
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        out = subprocess.run(["sh", "-c", "echo from a child; ls /proc/self/fd | wc -l"], capture_output=True).stdout
        self.send_response(200); self.send_header("Content-Length", str(len(out))); self.end_headers(); self.wfile.write(out)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
""", "runs", port)
    for _ in range(5):
        assert strict.curl(f"http://runs:{port}/").text == "from a child\n4\n"


def test_forking_server(strict, servers):
    """socketserver's ForkingTCPServer: a child for every connection."""
    port = strict.port()
    servers(strict).python("""
import os, socketserver
class H(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line[::-1].strip() + b"\\n")
class S(socketserver.ForkingTCPServer): allow_reuse_address = True; request_queue_size = 64
S(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
""", "forks", port)
    code = f"""
import socket
for n in range(30):
    s = socket.create_connection(("forks", {port}), 10); f = s.makefile("rwb")
    for i in range(5):
        f.write(b"abc%d\\n" % i); f.flush(); assert f.readline() == b"%dcba\\n" % i
    s.shutdown(1); assert f.read() == b""; f.close(); s.close()
print("ok")
"""
    assert strict.run([PYTHON, "-c", code], service="web").text == "ok\n"


def test_multiprocessing_pool_of_clients(strict, servers):
    servers(strict).nginx("orders")
    code = """
import multiprocessing, urllib.request
def get(n): return urllib.request.urlopen("http://orders/who").read()
get(0)  # the parent is meshed before it forks
with multiprocessing.Pool(4) as pool: print(set(pool.map(get, range(80))))
"""
    assert strict.run([PYTHON, "-c", code], service="web").text == "{b'nginx\\n'}\n"


def test_descriptors_above_1024(strict, servers):
    servers(strict).nginx("orders", main="worker_rlimit_nofile 8192;")
    code = """
import resource, select, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
held = []
for n in range(1500):
    s = socket.create_connection(("orders", 80)); held.append(s)
ep = select.epoll()
for s in held: s.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n"); ep.register(s, select.EPOLLIN)
by, got = {s.fileno(): s for s in held}, 0
while by:
    for fd, _ in ep.poll(10):
        d = by[fd].recv(4096)
        if not d: ep.unregister(fd); by.pop(fd)
        got += b"nginx" in d
print(got)
"""
    r = strict.run([PYTHON, "-c", code], service="web", timeout=60)
    assert r.text == "1500\n", r


def test_fifty_clients_at_once(strict, servers):
    servers(strict).nginx("orders")
    many = [subprocess.Popen(["curl", "-sS", "http://orders/who"], env=strict.env("web"), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE) for _ in range(50)]
    answers = {p.communicate(timeout=30) for p in many}
    assert answers == {(b"nginx\n", b"")}


def test_perl_and_bash(strict, servers):
    nginx = servers(strict).nginx("orders")
    perl = ("use IO::Socket::INET; $s = IO::Socket::INET->new(PeerAddr => 'orders', PeerPort => 80) or die $!;"
            "syswrite $s, \"GET /who HTTP/1.0\\r\\n\\r\\n\"; while (sysread $s, $b, 4096) { $all .= $b } print $all =~ /nginx\\n$/ ? 'yes' : 'no';")
    assert strict.run(["perl", "-e", perl], service="web").text == "yes"
    assert nginx.process.running()
