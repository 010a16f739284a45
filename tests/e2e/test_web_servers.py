"""Web servers, application servers and proxies, STRICT on both ends: what goes through is compared byte for byte."""
import os

import pytest

from servers import certificate, pattern, write

PYTHON = "/usr/bin/python3"


def full(value):
    return pytest.param(value, marks=pytest.mark.full)


def keep_alive(mesh, url, n, code="200", **kw):
    """n requests over one connection of curl; says how many connections it made."""
    r = mesh.curl(url, "-w", "%{num_connects} %{http_code}\n", "-o", "/dev/null", *[w for _ in range(n - 1) for w in ("-o", "/dev/null", url)],
                  **kw)
    lines = r.text.split("\n")[:-1]
    assert [line.split()[1] for line in lines] == [code] * n, r
    return sum(int(line.split()[0]) for line in lines)


def load(mesh, url, *words):
    r = mesh.run(["wrk", "-t1", "-c16", "-d1s", *words, url], service="web")
    assert r.code == 0 and "Socket errors" not in r.text and "Non-2xx" not in r.text and "Requests/sec" in r.text, r.text


def test_php_fpm_behind_nginx(strict, servers):
    """FastCGI over TCP; nginx is client and server, php-fpm's workers accept in turn."""
    port = strict.port()
    root = f"{strict.dir}/php"
    os.mkdir(root)
    write(f"{root}/index.php", """\
        <?php
        header('Content-Type: application/octet-stream');
        if (isset($_GET['n'])) { echo str_repeat('0123456789abcdef', (int)$_GET['n'] / 16); return; }
        if ($_SERVER['REQUEST_METHOD'] === 'POST') { echo file_get_contents('php://input'); return; }
        echo "php ", PHP_SAPI, "\\n";
        """)
    conf = write(f"{strict.dir}/fpm.conf", f"""\
        [global]
        error_log = {strict.dir}/fpm.log
        daemonize = no
        [www]
        user = www-data
        group = www-data
        listen = 127.0.0.1:{port}
        pm = static
        pm.max_children = 3
        pm.max_requests = 50
        php_admin_value[post_max_size] = 100M
        php_admin_flag[display_errors] = off
        """)
    s = servers(strict)
    s.start(["php-fpm8.2", "-F", "-y", conf, "-n"], "fpm", port)
    s.nginx("orders", server=f"""location /php {{ fastcgi_pass 127.0.0.1:{port}; include /etc/nginx/fastcgi_params;
        fastcgi_param SCRIPT_FILENAME {root}/index.php; }}""")
    assert strict.curl("http://orders/php").text == "php fpm-fcgi\n"
    assert strict.curl("http://orders/php?n=8000000").out == b"0123456789abcdef" * 500000
    data = pattern(5 << 20)
    with open(f"{strict.dir}/body", "wb") as f:
        f.write(data)
    assert strict.curl("http://orders/php", "--data-binary", f"@{strict.dir}/body").out == data
    load(strict, "http://orders/php")


APACHE = """
ServerRoot {dir}
ServerName localhost
PidFile {dir}/pid
DefaultRuntimeDir {dir}
Mutex file:{dir} default
Listen 127.0.0.1:{port}
LoadModule mpm_{mpm}_module /usr/lib/apache2/modules/mod_mpm_{mpm}.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule {cgi}_module /usr/lib/apache2/modules/mod_{cgi}.so
{more}
ErrorLog {dir}/error.log
User www-data
Group www-data
DocumentRoot {dir}/www
ScriptAlias /cgi/ {dir}/cgi/
KeepAlive On
MaxKeepAliveRequests 0
<Directory />
Require all granted
</Directory>
"""
SCRIPT = """#!/bin/sh
printf 'Content-Type: application/octet-stream\\r\\n\\r\\n'
if [ "$REQUEST_METHOD" = POST ]; then f=$(mktemp); cat >$f; cat $f; rm $f; else echo "cgi $QUERY_STRING"; fi
"""


@pytest.mark.parametrize("mpm", ["prefork", "event"])
def test_apache(strict, servers, mpm):
    """Children that accept in turn, or threads around one epoll; CGI programs write to pipes; sendfile."""
    d, port = f"{strict.dir}/apache", strict.port()
    for sub in ("", "/www", "/cgi"):
        os.mkdir(d + sub)
    write(f"{d}/cgi/echo", SCRIPT, 0o755)
    data = pattern(20 << 20)
    with open(f"{d}/www/f", "wb") as f:
        f.write(data)
    cgi = "cgid" if mpm == "event" else "cgi"
    conf = write(f"{d}/conf", APACHE.format(dir=d, port=port, mpm=mpm, cgi=cgi, more=f"ScriptSock {d}/cgisock" if cgi == "cgid" else ""))
    servers(strict).start(["apache2", "-DFOREGROUND", "-f", conf], "shop", port)
    assert strict.curl(f"http://shop:{port}/f").out == data
    assert keep_alive(strict, f"http://shop:{port}/f", 5) == 1
    assert strict.curl(f"http://shop:{port}/cgi/echo?a=b").text == "cgi a=b\n"
    assert strict.curl(f"http://shop:{port}/cgi/echo", "--data-binary", f"@{d}/www/f").out == data
    load(strict, f"http://shop:{port}/f", "-c4")
    r = strict.run(["ab", "-q", "-n", "400", "-c", "8", f"http://shop:{port}/cgi/echo"], service="web")
    assert "Failed requests:        0" in r.text, r


WSGI = """
def app(environ, start):
    n = int(environ.get("QUERY_STRING") or 0)
    body = environ["wsgi.input"].read() if environ["REQUEST_METHOD"] == "POST" else b"0123456789abcdef" * n
    start("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "application/octet-stream")])
    return [body]
"""


@pytest.mark.parametrize("words", [
    ["gunicorn", "-w", "2", "-k", "sync"], ["gunicorn", "-w", "2", "-k", "gthread", "--threads", "4", "--keep-alive", "5"],
    full(["gunicorn", "-w", "2", "-k", "gevent"]), full(["gunicorn", "-w", "2", "-k", "tornado"]),
    full(["uwsgi", "--master", "--processes", "2", "--plugin", "python3", "--http-socket"])], ids=lambda w: w[0] + w[4][:8])
def test_python_application_servers(strict, servers, words):
    port = strict.port()
    write(f"{strict.dir}/app.py", WSGI)
    at = f"127.0.0.1:{port}"
    argv = [*words, "-b", at, "app:app"] if words[0] == "gunicorn" else [*words, at, "--wsgi-file", "app.py", "--callable", "app", "--die-on-term"]
    p = servers(strict).start(argv, "app", port)
    assert strict.curl(f"http://app:{port}/?300000").out == b"0123456789abcdef" * 300000
    data = pattern(3 << 20)
    with open(f"{strict.dir}/body", "wb") as f:
        f.write(data)
    assert strict.curl(f"http://app:{port}/", "--data-binary", f"@{strict.dir}/body").out == data
    r = strict.run(["ab", "-q", "-k", "-n", "300", "-c", "8", f"http://app:{port}/?10"], service="web")
    assert "Failed requests:        0" in r.text, (r, p.text())


def test_lighttpd(strict, servers):
    """One process around epoll, with CGI and a proxy to nginx."""
    s = servers(strict)
    nginx = s.nginx("back")
    d, port = f"{strict.dir}/lighttpd", strict.port()
    os.mkdir(d)
    write(f"{d}/echo.cgi", SCRIPT, 0o755)
    data = nginx.file("f", pattern(9 << 20))
    with open(f"{d}/f", "wb") as f:
        f.write(data)
    conf = write(f"{d}/conf", f"""
        server.modules = ("mod_cgi", "mod_proxy")
        server.document-root = "{d}"
        server.bind = "127.0.0.1"
        server.port = {port}
        server.upload-dirs = ("{d}")
        cgi.assign = (".cgi" => "")
        server.max-request-size = 100000
        $HTTP["url"] =~ "^/back" {{
            proxy.server = ("" => (("host" => "127.0.0.1", "port" => {nginx.port})))
            proxy.header = ("map-urlpath" => ("/back" => "/"))
        }}
        """)
    s.start(["lighttpd", "-D", "-f", conf], "light", port)
    assert strict.curl(f"http://light:{port}/f").out == data
    assert strict.curl(f"http://light:{port}/back/f").out == data
    assert strict.curl(f"http://light:{port}/echo.cgi?x").text == "cgi x\n"
    assert strict.curl(f"http://light:{port}/echo.cgi", "--data-binary", f"@{d}/f").out == data
    load(strict, f"http://light:{port}/f", "-c4")


@pytest.mark.full
@pytest.mark.parametrize("kind", ["squid", "tinyproxy", "privoxy", "varnish"])
def test_proxies(strict, servers, kind):
    """Meshed on both sides: curl to the proxy, the proxy to nginx."""
    s = servers(strict)
    nginx = s.nginx("back")
    data = nginx.file("f", pattern(5 << 20))
    d, port = f"{strict.dir}/{kind}", strict.port()
    os.mkdir(d)
    os.chmod(d, 0o777)
    conf = f"{d}/conf"
    if kind == "squid":
        write(conf, f"""
            http_port 127.0.0.1:{port}
            http_access allow all
            cache_effective_user proxy
            pid_filename {d}/pid
            access_log none
            cache_log {d}/cache.log
            cache deny all
            netdb_filename none
            coredump_dir {d}
            shutdown_lifetime 0 seconds
            pinger_enable off
            """)
        argv = ["squid", "-N", "-f", conf]
    elif kind == "tinyproxy":
        write(conf, f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\nUser nobody\nGroup nogroup\nLogFile \"{d}/log\"\n")
        argv = ["tinyproxy", "-d", "-c", conf]
    elif kind == "privoxy":
        write(conf, f"listen-address 127.0.0.1:{port}\nlogdir {d}\nconfdir /etc/privoxy\ntemporary-directory {d}\nkeep-alive-timeout 5\n")
        argv = ["privoxy", "--no-daemon", conf]
    else:
        argv = ["varnishd", "-F", "-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{nginx.port}", "-n", d, "-s", "malloc,64m", "-T", "none"]
    p = s.start(argv, "proxy", port)
    words = [f"http://127.0.0.1:{nginx.port}/f"] if kind != "varnish" else [f"http://proxy:{port}/f"]
    via = [] if kind == "varnish" else ["--proxy", f"http://proxy:{port}", "--noproxy", ""]
    for _ in range(3):
        r = strict.curl(words[0], *via)
        assert r.out == data, (r.err, p.text()[-2000:])
    if kind in ("squid", "tinyproxy"):
        r = strict.curl(words[0], *via, "--proxytunnel")
        assert r.out == data or kind == "squid", r
    assert strict.curl(words[0], *via, shim=False).code != 0


@pytest.mark.full
def test_stunnel(strict, servers):
    """Threads, and TLS of its own on the plain side of the mesh: curl https to stunnel, stunnel to nginx."""
    s = servers(strict)
    nginx = s.nginx("back")
    data = nginx.file("f", pattern(5 << 20))
    port = strict.port()
    cert, key = certificate(f"{strict.dir}/own", name="tunnel")
    conf = write(f"{strict.dir}/stunnel.conf", f"""\
        foreground = yes
        pid =
        [a]
        accept = 127.0.0.1:{port}
        connect = 127.0.0.1:{nginx.port}
        cert = {cert}
        key = {key}
        """)
    s.start(["stunnel4", conf], "tunnel", port)
    for _ in range(3):
        r = strict.curl(f"https://tunnel:{port}/f", "--cacert", cert)
        assert r.out == data, r


def test_http2(strict, servers):
    """With prior knowledge, many streams on one connection: carried as it is."""
    s = servers(strict)
    port, root = strict.port(), f"{strict.dir}/www"
    os.mkdir(root)
    data = pattern(4 << 20)
    with open(f"{root}/f", "wb") as f:
        f.write(data)
    s.start(["nghttpd", "--no-tls", "-d", root, "-n", "2", port], "h2", port)
    assert strict.curl(f"http://h2:{port}/f", "--http2-prior-knowledge").out == data
    r = strict.run(["h2load", "-n", "200", "-c", "4", "-m", "10", f"http://h2:{port}/f"], service="web")
    assert "200 succeeded, 0 failed, 0 errored" in r.text, r


GRPC_SERVER = """
import concurrent.futures, grpc, os
def unary(request, context): return request[::-1]
def stream(requests, context):
    for r in requests: yield r.upper()
class H(grpc.GenericRpcHandler):
    def service(self, d):
        if d.method == "/t.T/Unary": return grpc.unary_unary_rpc_method_handler(unary)
        if d.method == "/t.T/Stream": return grpc.stream_stream_rpc_method_handler(stream)
s = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
s.add_generic_rpc_handlers((H(),))
assert s.add_insecure_port("127.0.0.1:" + os.environ["PORT"])
s.start(); s.wait_for_termination()
"""
GRPC_CLIENT = """
import grpc, random, sys
c = grpc.insecure_channel(sys.argv[1], options=[("grpc.max_receive_message_length", -1)])
unary, stream = c.unary_unary("/t.T/Unary"), c.stream_stream("/t.T/Stream")
for n in (0, 1, 1000, 100000, 3000000):
    data = random.Random(n).randbytes(n); assert unary(data, timeout=10) == data[::-1]
calls = [unary.future(b"%d" % n, timeout=10) for n in range(300)]
assert [f.result() for f in calls] == [(b"%d" % n)[::-1] for n in range(300)]
assert list(stream((b"a%d" % n for n in range(200)), timeout=10)) == [b"A%d" % n for n in range(200)]
print("ok")
"""


@pytest.mark.full
def test_grpc_client_and_server(strict, servers):
    """gRPC's own event engine and resolver (c-ares or libc's): the server's real address is meshed too."""
    port = strict.port()
    servers(strict).python(GRPC_SERVER, "rpc", port)
    for target in (f"127.0.0.1:{port}", f"dns:///rpc:{port}"):
        r = strict.run([PYTHON, "-c", GRPC_CLIENT, target], service="web", env={"GRPC_DNS_RESOLVER": "native"})
        assert r.text == "ok\n", r
    assert strict.run([PYTHON, "-c", GRPC_CLIENT, f"127.0.0.1:{port}"], shim=False).code != 0
