"""Programs that know nothing of weft, as client and as server under STRICT: byte for byte as without it."""
import os
import re
import ssl
import textwrap

import pytest

from proc import wait_until
from servers import certificate, pattern

MB = 1 << 20
PYTHON = "/usr/bin/python3"


def script(mesh, name, text):
    path = f"{mesh.dir}/{name}"
    with open(path, "w") as f:
        f.write(textwrap.dedent(text))
    return path


# --- nginx ---

@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_nginx_bodies_of_100_mb_both_ways(strict, servers, sendfile):
    nginx = servers(strict).nginx("files", http=f"sendfile {sendfile}; keepalive_timeout 60;")
    data = nginx.file("big", pattern(100 * MB))
    got = f"{strict.dir}/got"
    r = strict.curl("http://files/big", "-o", got, timeout=60)
    assert r.code == 0, r
    assert open(got, "rb").read() == data
    r = strict.curl("http://files/put/up", "-T", got, "-o", os.devnull, "-w", "%{http_code}", timeout=60)
    assert r.text == "201", r
    assert open(f"{nginx.root}/put/up", "rb").read() == data


def test_nginx_keep_alive_and_pipelining(strict, servers):
    nginx = servers(strict).nginx("files")
    data = nginx.file("a", pattern(30000))
    outs = ["-o", os.devnull] * 20
    r = strict.run(["curl", "-sS", "-w", "%{num_connects} ", *outs, *["http://files/a"] * 20], service="web")
    assert r.text.split() == ["1"] + ["0"] * 19, r
    code = f"""
        import socket
        s = socket.create_connection(("files", 80))
        s.sendall(b"GET /a HTTP/1.1\\r\\nHost: files\\r\\n\\r\\n" * 49 + b"GET /a HTTP/1.1\\r\\nHost: files\\r\\nConnection: close\\r\\n\\r\\n")
        all = b""
        while chunk := s.recv(70000):
            all += chunk
        parts = all.split(b"HTTP/1.1 200 OK")[1:]
        print(len(parts), {{p.split(b"\\r\\n\\r\\n", 1)[1] == open({str(nginx.root + "/a")!r}, "rb").read() for p in parts}})
    """
    r = strict.run([PYTHON, script(strict, "pipeline.py", code)], service="web")
    assert r.text == "50 {True}\n", r
    assert len(data) == 30000


@pytest.mark.parametrize("main", ["worker_processes_4", "master_off", "daemon"])
def test_nginx_process_models(strict, servers, main):
    kw = {"worker_processes_4": dict(workers=4), "master_off": dict(main="master_process off;"),
          "daemon": dict(daemon=True)}[main]
    nginx = servers(strict).nginx("orders", **kw)
    try:
        for _ in range(20):
            assert strict.curl("http://orders/who").text == "nginx\n"
    finally:
        if main == "daemon":
            os.kill(nginx.master(), 15)


def test_nginx_reload_keeps_serving(strict, servers):
    """SIGHUP: new workers, the same listening sockets."""
    nginx = servers(strict).nginx("orders")
    assert strict.curl("http://orders/who").text == "nginx\n"
    with open(nginx.conf) as f:
        text = f.read()
    with open(nginx.conf, "w") as f:
        f.write(text.replace('"nginx\\n"', '"reloaded\\n"'))
    os.kill(nginx.master(), 1)

    def who():
        r = strict.curl("http://orders/who")
        assert r.code == 0, r
        return r.text
    wait_until("the new workers answer", lambda: who() == "reloaded\n")


def test_nginx_https_on_a_permissive_port_is_untouched(mesh, servers):
    """A ClientHello without our ALPN belongs to the application: its own certificate, its own TLS version."""
    cert, key = certificate(f"{mesh.dir}/https")
    nginx = servers(mesh).nginx("secure", listen="127.0.0.1:%(port)d ssl" % {"port": (port := mesh.port())}, port=port,
                                http=f"ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;")
    for shim in (False, True):
        for tls in ("1.2", "1.3"):
            r = mesh.run(["curl", "-sS", "--cacert", cert, f"--tlsv{tls}", "--tls-max", tls, "--resolve",
                          f"localhost:{port}:127.0.0.1", f"https://localhost:{port}/who"], service="web", shim=shim)
            assert r.text == "nginx\n", (shim, tls, r)
    context = ssl.create_default_context(cafile=cert)
    assert context and nginx.process.running()


def test_nginx_as_a_client_is_a_proxy(strict, servers):
    servers(strict).nginx("back", who="behind")
    servers(strict).nginx("front", server="location /p/ { proxy_pass http://back/; proxy_http_version 1.1; }",
                          http="upstream back { server back:80; keepalive 4; }")
    for _ in range(10):
        assert strict.curl("http://front/p/who").text == "behind\n"


# --- command-line clients ---

def test_wget(strict, servers):
    nginx = servers(strict).nginx("files")
    data = nginx.file("w", pattern(3 * MB))
    r = strict.run(["wget", "-q", "-O", "-", "http://files/w"], service="web")
    assert r.code == 0 and r.out == data, r.code


def test_wrk_256_connections_without_errors(strict, servers):
    nginx = servers(strict).nginx("files", main="worker_rlimit_nofile 8192;")
    nginx.file("k", pattern(1024))
    r = strict.run(["wrk", "-t2", "-c256", "-d5s", "--latency", "http://files/k"], service="web", timeout=40)
    assert r.code == 0, r
    assert "Socket errors" not in r.text and "Non-2xx" not in r.text, r.text
    assert int(re.search(r"(\d+) requests in", r.text).group(1)) > 1000, r.text


@pytest.mark.parametrize("size", [1024, 15000, 200000])
def test_wrk_sizes(strict, servers, size):
    nginx = servers(strict).nginx("files")
    nginx.file("k", pattern(size))
    r = strict.run(["wrk", "-t2", "-c16", "-d2s", "http://files/k"], service="web", timeout=40)
    assert r.code == 0 and "Socket errors" not in r.text and "Non-2xx" not in r.text, r.text
    requests, read = re.search(r"(\d+) requests in \S+, (\S+) read", r.text).groups()
    assert int(requests) > 20, r.text
    assert read


@pytest.mark.parametrize("keep_alive", [True, False])
def test_ab(strict, servers, keep_alive):
    nginx = servers(strict).nginx("files")
    nginx.file("k", pattern(5000))
    # ab parses the name itself but resolves it by getaddrinfo; it wants a path.
    r = strict.run(["ab", "-q", "-n", "400", "-c", "8", *(["-k"] if keep_alive else []), "http://files/k"],
                   service="web", timeout=60)
    assert r.code == 0, r
    assert re.search(r"Complete requests:\s+400\n", r.text) and re.search(r"Failed requests:\s+0\n", r.text), r.text
    assert re.search(r"HTML transferred:\s+2000000 bytes", r.text), r.text


# --- Python ---

def test_python_http_server_and_urllib(strict, servers):
    root = f"{strict.dir}/pub"
    os.mkdir(root)
    data = pattern(5 * MB)
    with open(f"{root}/f", "wb") as f:
        f.write(data)
    port = strict.port()
    servers(strict).start([PYTHON, "-m", "http.server", "-b", "127.0.0.1", "-d", root, str(port)], "pub", port)
    r = strict.run([PYTHON, "-c", "import sys, urllib.request as u\n"
                    f"for n in range(3): d = u.urlopen('http://pub:{port}/f').read()\nsys.stdout.buffer.write(d)"],
                   service="web")
    assert r.code == 0 and r.out == data, r.err
    assert strict.curl(f"http://pub:{port}/f").out == data


def test_python_threading_server(strict, servers):
    port = strict.port()
    servers(strict).python("""
import os, socketserver
class H(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
class S(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 100
S(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
""", "upper", port)
    code = """
        import concurrent.futures, socket, sys
        def one(n):
            with socket.create_connection(("upper", int(sys.argv[1]))) as s:
                f = s.makefile("rwb")
                for i in range(20):
                    f.write(b"line %d of %d\\n" % (i, n)); f.flush()
                    assert f.readline() == b"LINE %d OF %d\\n" % (i, n)
                s.shutdown(socket.SHUT_WR)
                assert f.read() == b""
            return 1
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            print(sum(pool.map(one, range(100))))
    """
    r = strict.run([PYTHON, script(strict, "threads.py", code), str(port)], service="web", timeout=60)
    assert r.text == "100\n", r


ASYNCIO_SERVER = """
import asyncio, os
async def serve(r, w):
    data = await r.read()  # until the client's half-close
    w.write(data[::-1])
    await w.drain()
    w.close()
async def main():
    s = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]), limit=1 << 20)
    async with s: await s.serve_forever()
asyncio.run(main())
"""


def test_asyncio_streams_and_half_close(strict, servers):
    port = strict.port()
    servers(strict).python(ASYNCIO_SERVER, "back", port)
    code = """
        import asyncio, random, sys
        async def one(n):
            r, w = await asyncio.open_connection("back", int(sys.argv[1]))
            data = random.Random(n).randbytes(n * 40000 + 1)
            w.write(data); w.write_eof(); await w.drain()
            back = await r.read()
            w.close(); await w.wait_closed()
            return back == data[::-1]
        async def main():
            print(all(await asyncio.gather(*(one(n) for n in range(30)))))
        asyncio.run(main())
    """
    r = strict.run([PYTHON, script(strict, "streams.py", code), str(port)], service="web", timeout=60)
    assert r.text == "True\n", r


def test_asyncio_cancel(strict, servers):
    """A cancelled connect, read and write leave the loop and the other connections well."""
    port = strict.port()
    servers(strict).python(ASYNCIO_SERVER, "back", port)
    code = """
        import asyncio, sys
        port = int(sys.argv[1])
        async def connect_and_wait():
            r, w = await asyncio.open_connection("back", port)
            try:
                await r.read()
            finally:
                w.close()
        async def main():
            for delay in (0, 0.0005, 0.002, 0.01, 0.05):
                tasks = [asyncio.create_task(connect_and_wait()) for _ in range(10)]
                await asyncio.sleep(delay)
                for t in tasks: t.cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(d, asyncio.CancelledError) for d in done), done
            try:
                await asyncio.wait_for(connect_and_wait(), 0.1)
            except asyncio.TimeoutError:
                pass
            r, w = await asyncio.open_connection("back", port)
            w.write(b"still well"); w.write_eof()
            print((await r.read()).decode())
            w.close()
        asyncio.run(main())
    """
    r = strict.run([PYTHON, script(strict, "cancel.py", code), str(port)], service="web", timeout=60)
    assert r.text == "llew llits\n", r


def test_asyncio_client_and_server_in_one_loop(strict):
    code = """
        import asyncio
        async def serve(r, w):
            while line := await r.readline():
                w.write(line); await w.drain()
            w.close()
        async def main():
            s = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = s.sockets[0].getsockname()[1]
            async def one(n):
                r, w = await asyncio.open_connection("127.0.0.1", port)
                for i in range(20):
                    w.write(b"%d %d\\n" % (n, i))
                    assert await r.readline() == b"%d %d\\n" % (n, i)
                w.close(); await w.wait_closed()
            await asyncio.gather(*(one(n) for n in range(20)))
            print("ok")
        asyncio.run(main())
    """
    r = strict.run([PYTHON, script(strict, "loop.py", code)], service="self", timeout=60)
    assert r.text == "ok\n", r


def test_select_driven_client(strict, servers):
    nginx = servers(strict).nginx("files")
    data = nginx.file("s", pattern(MB))
    code = """
        import select, socket, sys
        s = socket.socket(); s.setblocking(False)
        try: s.connect(("files", 80))
        except BlockingIOError: pass
        out, all = b"GET /s HTTP/1.0\\r\\n\\r\\n", b""
        while True:
            r, w, _ = select.select([s], [s] if out else [], [], 10)
            if w: out = out[s.send(out[:5]):]
            if r:
                chunk = s.recv(10000)
                if not chunk: break
                all += chunk
            assert r or w
        sys.stdout.buffer.write(all.split(b"\\r\\n\\r\\n", 1)[1])
    """
    r = strict.run([PYTHON, script(strict, "sel.py", code)], service="web")
    assert r.out == data, r.err


# --- node ---

NODE_SERVER = """
const http = require('http');
http.createServer((req, res) => {
	if (req.method === 'POST') { res.writeHead(200); req.pipe(res); return; }
	res.end('node ' + req.url + '\\n');
}).listen(+process.env.PORT, '127.0.0.1');
"""


def test_node_server_and_client(strict, servers):
    port = strict.port()
    servers(strict).start(["node", "-e", NODE_SERVER], "nodes", port, env={"PORT": port})
    assert strict.curl(f"http://nodes:{port}/x").text == "node /x\n"
    body = script(strict, "body", "")
    data = pattern(8 * MB)
    with open(body, "wb") as f:
        f.write(data)
    assert strict.curl(f"http://nodes:{port}/", "--data-binary", f"@{body}", "-H", "Expect:").out == data
    client = f"""
        const http = require('http'), crypto = require('crypto');
        const agent = new http.Agent({{ keepAlive: true, maxSockets: 4 }});
        const sent = crypto.randomBytes(300000);
        let left = 60, ports = new Set();
        for (let i = 0; i < 60; i++) {{
            const req = http.request({{ host: 'nodes', port: {port}, method: 'POST', agent }}, res => {{
                const parts = []; ports.add(res.socket.localPort);
                res.on('data', d => parts.push(d));
                res.on('end', () => {{
                    if (!Buffer.concat(parts).equals(sent)) {{ console.log('differs'); process.exit(1); }}
                    if (--left === 0) {{ console.log('same', ports.size); agent.destroy(); }}
                }});
            }});
            req.on('error', e => {{ console.log(e); process.exit(1); }});
            req.write(sent.subarray(0, 1000)); req.end(sent.subarray(1000));
        }}
    """
    r = strict.run(["node", script(strict, "client.js", client)], service="web", timeout=60)
    assert r.text == "same 4\n", r


def test_node_client_and_server_in_one_loop(strict):
    code = """
        const http = require('http');
        const s = http.createServer((q, r) => q.pipe(r)).listen(0, '127.0.0.1', () => {
            let left = 30;
            for (let i = 0; i < 30; i++) {
                const q = http.request({ port: s.address().port, host: '127.0.0.1', method: 'PUT' }, r => {
                    let n = 0; r.on('data', d => n += d.length);
                    r.on('end', () => { if (n !== 100000 + i) process.exit(3); if (--left === 0) { console.log('ok'); process.exit(0); } });
                });
                q.end(Buffer.alloc(100000 + i));
            }
        });
    """
    r = strict.run(["node", script(strict, "both.js", code)], service="self", timeout=60)
    assert r.text == "ok\n", r


# --- redis ---

@pytest.fixture
def cache(strict, servers):
    port = strict.port()
    servers(strict).start(["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                           "--dir", strict.dir], "cache", port)
    return port


def test_redis_and_its_client(strict, cache):
    def cli(*words, **kw):
        return strict.run(["redis-cli", "-h", "cache", "-p", cache, *words], service="web", **kw)
    assert cli("SET", "k", "v").text == "OK\n"
    assert cli("GET", "k").text == "v\n"
    value = pattern(2 * MB)
    assert cli("-x", "SET", "big", input=value).text == "OK\n"
    assert cli("--raw", "GET", "big").out == value + b"\n"
    script_of_many = "".join(f"SET key:{n} {n}\n" for n in range(5000)).encode()
    r = cli("--pipe", input=script_of_many)
    assert "errors: 0, replies: 5000" in r.text, r
    assert cli("DBSIZE").text == "5002\n"


def test_redis_benchmark_with_pipelining(strict, cache):
    r = strict.run(["redis-benchmark", "-h", "cache", "-p", cache, "-n", "40000", "-c", "50", "-P", "16", "-q", "-t",
                    "set,get,lpush,lrange_100"], service="web", timeout=80)
    assert r.code == 0, r
    assert len(re.findall(r"requests per second", r.text)) >= 4, r.text
    assert "rror" not in r.text, r.text


# --- socat ---

def test_socat_both_ways(strict, servers):
    port = strict.port()
    data = pattern(3 * MB)
    servers(strict).start(["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", "PIPE"], "echo", port)
    r = strict.run(["socat", "-t10", "-", f"TCP:echo:{port}"], service="web", input=data, timeout=60)
    assert r.out == data, (len(r.out), r.err)
