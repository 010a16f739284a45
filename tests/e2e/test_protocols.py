"""Who speaks first, and protocols that weft carries as they are: TLS of the program's own, HTTP/2, and both ends talking at once."""
import socket

import pytest

from proc import wait_until
from servers import certificate

# One server of each kind on a port of its own: greets at once, answers what it hears, or does both.
SPEAKER = """
import os, socket, threading
first, last = b"220 hello\\r\\n", b"bye\\r\\n"
def serve(c, kind):
    with c:
        if kind != "answers":
            c.sendall(first)
        if kind != "greets":
            heard = c.recv(100)
            c.sendall(heard + last)
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=64)
while True:
    threading.Thread(target=serve, args=(s.accept()[0], os.environ["KIND"])).start()
"""

# The same in event loops, where nobody waits in a call of the socket itself.
SPEAKER_ASYNCIO = """
import asyncio, os
first, last, kind = b"220 hello\\r\\n", b"bye\\r\\n", os.environ["KIND"]
async def serve(r, w):
    if kind != "answers":
        w.write(first)
        await w.drain()
    if kind != "greets":
        w.write(await r.read(100) + last)
    await w.drain()
    w.close()
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"])) as s:
        await s.serve_forever()
asyncio.run(main())
"""
SPEAKER_NODE = """
const kind = process.env.KIND;
require("net").createServer((c) => {
    c.on("error", () => 0);
    if (kind !== "answers") c.write("220 hello\\r\\n");
    if (kind === "greets") c.end();
    else c.once("data", (d) => c.end(d + "bye\\r\\n"));
}).listen(process.env.PORT, "127.0.0.1");
"""

# One that never asks whether a write was taken whole: a fresh connection has room for a greeting.
SPEAKER_HASTY = """
import os, select, socket
first, last, kind = b"220 hello\\r\\n", b"bye\\r\\n", os.environ["KIND"]
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=64)
while True:
    c = s.accept()[0]
    c.setblocking(False)
    try:
        if kind != "answers":
            c.send(first)
        if kind != "greets":
            select.select([c], [], [])
            c.send(c.recv(100) + last)
    except ConnectionError:
        pass
    c.close()
"""

# One conversation after the other; prints the median of the milliseconds to the first byte, and what was heard.
TALKER = """
import socket, statistics, sys, time
host, port, kind, n = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
took, heard = [], set()
for _ in range(n):
    with socket.create_connection((host, port), 10) as s:
        began = time.monotonic()
        if kind != "greets":
            s.sendall(b"ehlo ")
        data = s.recv(100)
        took.append(time.monotonic() - began)
        while more := s.recv(100):
            data += more
        heard.add(data)
print(round(statistics.median(took) * 1000, 2), heard)
"""


SPEAKERS = {"threads": ["/usr/bin/python3", "-c", SPEAKER], "asyncio": ["/usr/bin/python3", "-c", SPEAKER_ASYNCIO],
            "node": ["node", "-e", SPEAKER_NODE], "hasty": ["/usr/bin/python3", "-c", SPEAKER_HASTY]}


def speaker(mesh, kind, how="threads"):
    port = mesh.port()
    p = mesh.popen(SPEAKERS[how], service=kind, env={"PORT": port, "KIND": kind})
    mesh.wait_listening(port, p)
    mesh.wait_name(kind)
    return port


def talk(mesh, host, port, kind, shim=True, n=5):
    r = mesh.run(["/usr/bin/python3", "-c", TALKER, host, port, kind, n], service="web" if shim else None, shim=shim)
    assert r.code == 0, r
    ms, _, heard = r.text.partition(" ")
    return float(ms), heard.strip()


SAID = {"greets": "{b'220 hello\\r\\n'}", "answers": "{b'ehlo bye\\r\\n'}", "both": "{b'220 hello\\r\\nehlo bye\\r\\n'}"}


@pytest.mark.parametrize("how", list(SPEAKERS))
@pytest.mark.parametrize("kind", ["greets", "answers", "both"])
def test_whoever_speaks_first(mesh, kind, how):
    """PERMISSIVE: with a mesh client nobody waits for the other to show what it is; a client without the shim is served too."""
    port = speaker(mesh, kind, how)
    ms, heard = talk(mesh, kind, port, kind)
    assert heard == SAID[kind] and ms < 50, (ms, heard)
    ms, heard = talk(mesh, "127.0.0.1", port, kind, shim=False)
    assert heard == SAID[kind] and ms < 400, (ms, heard)
    mesh.strict()
    wait_until("STRICT is in force", lambda: refuses_plaintext(port))
    ms, heard = talk(mesh, kind, port, kind)
    assert heard == SAID[kind] and ms < 50, (ms, heard)


def refuses_plaintext(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as s:
            s.sendall(b"ehlo ")
            return not s.recv(10)
    except ConnectionError:
        return True


LONG = """
import os, socket
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
c = s.accept()[0]
c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
c.setblocking(False)
print(c.send(b"x" * 60000), flush=True)
c.close()
s.accept()
"""


def test_more_than_a_socket_takes_for_a_client_in_the_clear(mesh):
    """Written before the client was known to be none of the mesh, to a socket with little room, and closed: it all arrives."""
    port = mesh.port()
    p = mesh.popen(["/usr/bin/python3", "-c", LONG], service="greets", env={"PORT": port})
    mesh.wait_listening(port, p)
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wait_until("it has written", lambda: p.text())
        heard = b""
        while more := s.recv(1000):
            heard += more
    assert p.text() == "60000\n" and heard == b"x" * 60000, (p.text(), len(heard))


def test_how_long_a_server_waits_that_speaks_first(mesh):
    """MeshConfig.protocolDetectionTimeout, for clients without the shim."""
    port = speaker(mesh, "greets")
    mesh.apply("MeshConfig", "default", {"protocolDetectionTimeout": "20ms"})
    wait_until("20 ms are in force", lambda: talk(mesh, "127.0.0.1", port, "greets", shim=False)[0] < 100)
    assert talk(mesh, "greets", port, "greets")[1] == SAID["greets"]


HTTPS = """
import http.server, os, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "6"); self.end_headers(); self.wfile.write(b"https\\n")
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); c.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
s.socket = c.wrap_socket(s.socket, server_side=True)
s.serve_forever()
"""
NODE_HTTPS = """
const fs = require("fs");
require("https").createServer({ cert: fs.readFileSync(process.env.CERT), key: fs.readFileSync(process.env.KEY) },
    (q, r) => r.end("https\\n")).listen(process.env.PORT, "127.0.0.1");
"""
NODE_GET = """
require("https").get({ host: process.argv[1], port: process.argv[2], path: "/", rejectUnauthorized: false, agent: false },
    (r) => r.pipe(process.stdout)).on("error", (e) => { console.error(e); process.exit(1); });
"""


@pytest.mark.parametrize("server", ["python", "node", "openssl"])
def test_tls_of_its_own_inside_the_mesh(mesh, server):
    """An https server, meshed: its TLS goes through ours as any bytes do, and through a PERMISSIVE port without ours."""
    port = mesh.port()
    cert, key = certificate(f"{mesh.dir}/own", "secure")
    argv = {"python": ["/usr/bin/python3", "-c", HTTPS], "node": ["node", "-e", NODE_HTTPS],
            "openssl": ["openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-www"]}[server]
    p = mesh.popen(argv, service="secure", env={"PORT": port, "CERT": cert, "KEY": key})
    mesh.wait_listening(port, p)
    mesh.wait_name("secure")
    want = "s_server" if server == "openssl" else "https\n"
    assert want in mesh.curl(f"https://127.0.0.1:{port}/", "-k", shim=False, service=None).text
    mesh.strict()
    wait_until("STRICT is in force", lambda: refuses_plaintext(port))
    assert want in mesh.curl(f"https://secure:{port}/", "--cacert", cert).text  # the inner certificate is checked by curl
    r = mesh.run(["node", "-e", NODE_GET, "secure", port], service="web")
    assert want in r.text, r
    r = mesh.run(["openssl", "s_client", "-connect", f"secure:{port}", "-CAfile", cert, "-verify_return_error", "-servername", "secure"],
                 service="web", input=b"GET / HTTP/1.0\r\n\r\n")
    assert b"Verify return code: 0" in r.out, r
    assert mesh.curl(f"https://127.0.0.1:{port}/", "-k", shim=False, service=None).code != 0  # STRICT: TLS, but not of the mesh


# 16 streams at once over one connection; prints the bytes of all.
NODE_HTTP2 = """
const session = require("http2").connect("http://orders");
let bytes = 0, left = 16;
for (let i = 0; i < 16; i++) {
    const s = session.request({ ":path": "/big" });
    s.on("data", (d) => bytes += d.length);
    s.on("end", () => { if (!--left) { console.log(bytes); session.close(); } });
    s.end();
}
"""


def test_http2_with_prior_knowledge(strict, servers):
    nginx = servers(strict).nginx("orders", listen="127.0.0.1:%d http2" % (port := strict.port()), port=port)
    data = nginx.file("big", bytes(range(256)) * 4096)
    r = strict.curl("http://orders/big", "--http2-prior-knowledge", "-w", "%{stderr}%{http_version}")
    assert r.out == data and r.err == b"2", r
    r = strict.run(["node", "-e", NODE_HTTP2], service="web")
    assert r.text == f"{16 * len(data)}\n", r
