"""Languages and their runtimes as server and client, STRICT on both ends."""
import subprocess

import pytest

from servers import pattern, write

PYTHON = "/usr/bin/python3"


def echo_client(mesh, service, port, rounds=30):
    """Line by line, then a megabyte each way, then a half-close: what comes back must be what went in."""
    code = f"""
import random, socket, threading
for n in range({rounds}):
    s = socket.create_connection(("{service}", {port}), 20); f = s.makefile("rwb")
    for i in range(4):
        f.write(b"abc%d\\n" % i); f.flush(); assert f.readline() == b"abc%d\\n" % i
    if n % 10 == 0:
        data = (b"%x" % random.Random(n).getrandbits(8 << 17)) .ljust(1 << 18, b"0")[:1 << 18] + b"\\n"
        t = threading.Thread(target=s.sendall, args=(data,)); t.start()
        assert f.readline() == data; t.join()
    s.shutdown(1); assert f.read() == b"", "more after the end"; f.close(); s.close()
print("ok")
"""
    r = mesh.run([PYTHON, "-c", code], service="web", timeout=60)
    assert r.text == "ok\n", r


JAVA_SERVER = """
import com.sun.net.httpserver.*; import java.io.*; import java.net.*; import java.nio.*; import java.nio.channels.*; import java.util.*;
    import java.util.concurrent.*;
public class Server {
    static void http(int port) throws Exception {
        HttpServer s = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 64);
        s.setExecutor(Executors.newFixedThreadPool(4));
        s.createContext("/", x -> { byte[] b = x.getRequestBody().readAllBytes(); if (b.length == 0) b = "java\\n".getBytes();
            x.sendResponseHeaders(200, b.length); x.getResponseBody().write(b); x.close(); });
        s.start();
    }
    static void nio(int port) throws Exception {
        Selector sel = Selector.open(); ServerSocketChannel l = ServerSocketChannel.open();
        l.bind(new InetSocketAddress("127.0.0.1", port), 64); l.configureBlocking(false); l.register(sel, SelectionKey.OP_ACCEPT);
        while (true) {
            sel.select();
            for (Iterator<SelectionKey> i = sel.selectedKeys().iterator(); i.hasNext();) {
                SelectionKey k = i.next(); i.remove();
                if (k.isAcceptable()) { SocketChannel c = l.accept(); c.configureBlocking(false); c.register(sel, SelectionKey.OP_READ,
                    ByteBuffer.allocateDirect(8192)); continue; }
                SocketChannel c = (SocketChannel) k.channel(); ByteBuffer b = (ByteBuffer) k.attachment();
                if (k.isReadable()) { int n = c.read(b); if (n < 0) { k.cancel(); c.close(); continue; } b.flip();
                    k.interestOps(SelectionKey.OP_WRITE); }
                else { c.write(b); if (!b.hasRemaining()) { b.clear(); k.interestOps(SelectionKey.OP_READ); } }
            }
        }
    }
    static void aio(int port) throws Exception {
        AsynchronousServerSocketChannel l = AsynchronousServerSocketChannel.open().bind(new InetSocketAddress("127.0.0.1", port), 64);
        l.accept(null, new CompletionHandler<AsynchronousSocketChannel, Void>() {
            public void failed(Throwable t, Void v) { t.printStackTrace(); }
            public void completed(AsynchronousSocketChannel c, Void v) {
                l.accept(null, this); ByteBuffer b = ByteBuffer.allocate(5000);
                CompletionHandler<Integer, Boolean> h = new CompletionHandler<>() {
                    public void failed(Throwable t, Boolean w) { try { c.close(); } catch (IOException e) {} }
                    public void completed(Integer n, Boolean wrote) {
                        if (n < 0) { failed(null, wrote); return; }
                        if (!wrote) b.flip();
                        if (b.hasRemaining()) c.write(b, true, this); else { b.clear(); c.read(b, false, this); }
                    }
                };
                c.read(b, false, h);
            }
        });
        Thread.sleep(1000000);
    }
    public static void main(String[] a) throws Exception {
        int port = Integer.parseInt(a[1]);
        if (a[0].equals("http")) http(port); else if (a[0].equals("nio")) nio(port); else aio(port);
    }
}
"""
JAVA_CLIENT = """
import java.io.*; import java.net.*; import java.net.http.*; import java.nio.*; import java.nio.channels.*; import java.util.*;
    import java.util.concurrent.*;
public class Client {
    static byte[] data(int n) { byte[] b = new byte[n]; new Random(n).nextBytes(b); return b; }
    static void must(boolean x) { if (!x) throw new IllegalStateException(); }
    static void http(String url) throws Exception {
        HttpClient c = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        List<CompletableFuture<HttpResponse<byte[]>>> f = new ArrayList<>();
        for (int n = 1; n < 40;
            n++) f.add(c.sendAsync(HttpRequest.newBuilder(URI.create(url))
            .POST(HttpRequest.BodyPublishers.ofByteArray(data(n * 5003))).build(), HttpResponse.BodyHandlers.ofByteArray()));
        for (int n = 1; n < 40; n++) must(Arrays.equals(f.get(n - 1).get(20, TimeUnit.SECONDS).body(), data(n * 5003)));
        URLConnection u = new URL(url).openConnection(); must(new String(u.getInputStream().readAllBytes()).equals("java\\n"));
    }
    static void echo(String host, int port) throws Exception {
        Socket s = new Socket(host, port); byte[] d = data(1000000);
        Thread t = new Thread(() -> { try { s.getOutputStream().write(d); s.shutdownOutput(); } catch (IOException e) {
            e.printStackTrace(); } }); t.start();
        must(Arrays.equals(s.getInputStream().readAllBytes(), d)); t.join(); s.close();
        SocketChannel c = SocketChannel.open(new InetSocketAddress(host, port)); c.write(ByteBuffer.wrap(d, 0, 3000)); c.shutdownOutput();
        ByteBuffer b = ByteBuffer.allocate(4000); while (c.read(b) >= 0); must(b.position() == 3000); c.close();
        AsynchronousSocketChannel a = AsynchronousSocketChannel.open(); a.connect(new InetSocketAddress(host, port)).get(10,
            TimeUnit.SECONDS);
        must(a.write(ByteBuffer.wrap(d, 0, 100)).get(10, TimeUnit.SECONDS) == 100); b.clear(); must(a.read(b).get(10,
            TimeUnit.SECONDS) == 100); a.close();
    }
    interface Block { void run() throws Exception; }
    static void closedWhile(String what, Block block, Closeable c) throws Exception {
        String[] said = { "nothing" };
        Thread t = new Thread(() -> { try { block.run(); said[0] = "returned"; } catch (Exception e) {
            said[0] = e.getClass().getSimpleName(); } }); t.start();
        Thread.sleep(200); c.close(); t.join(5000); System.out.println(what + ": " + (t.isAlive() ? "stuck" : said[0]));
    }
    static void closes(String host, int port) throws Exception {
        Socket s = new Socket(host, port); closedWhile("socket", () -> s.getInputStream().read(), s);
        SocketChannel c = SocketChannel.open(new InetSocketAddress(host, port)); closedWhile("channel",
            () -> c.read(ByteBuffer.allocate(9)), c);
        SocketChannel n = SocketChannel.open(new InetSocketAddress(host, port)); n.configureBlocking(false);
            Selector sel = Selector.open(); n.register(sel, SelectionKey.OP_READ);
        closedWhile("selector", () -> sel.select(), sel);
        Socket i = new Socket(host, port); i.setSoTimeout(100); try { i.getInputStream().read(); } catch (SocketTimeoutException e) {
            System.out.println("timeout"); }
        i.getOutputStream().write(65); must(i.getInputStream().read() == 65); i.close();
    }
    public static void main(String[] a) throws Exception {
        if (a[0].equals("http")) http(a[1]); else if (a[0].equals("echo")) echo(a[1], Integer.parseInt(a[2])); else closes(a[1],
            Integer.parseInt(a[2]));
        System.out.println("ok");
    }
}
"""
JAVA = ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-cp"]


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    """Compiled once."""
    d = tmp_path_factory.mktemp("java")
    write(f"{d}/Server.java", JAVA_SERVER)
    write(f"{d}/Client.java", JAVA_CLIENT)
    subprocess.run(["javac", "-d", d, f"{d}/Server.java", f"{d}/Client.java"], check=True, timeout=80)
    return d


@pytest.mark.full
def test_java_http(strict, servers, classes):
    """HttpServer and HttpClient: selectors, pools, keep-alive; and URLConnection."""
    port = strict.port()
    servers(strict).start([*JAVA, classes, "Server", "http", port], "java", port)
    assert strict.curl(f"http://java:{port}/").text == "java\n"
    r = strict.run([*JAVA, classes, "Client", "http", f"http://java:{port}/"], service="web", timeout=60)
    assert r.text == "ok\n", r


@pytest.mark.full
@pytest.mark.parametrize("kind", ["nio", "aio"])
def test_java_channels(strict, servers, classes, kind):
    """A selector loop, and asynchronous channels with their own poller; blocking, channel and asynchronous clients.
    A close in one thread wakes the reader in another as it does bare (the JDK puts another socket over the fd)."""
    port = strict.port()
    servers(strict).start([*JAVA, classes, "Server", kind, port], "java", port)
    echo_client(strict, "java", port)
    client = [*JAVA, classes, "Client"]
    r = strict.run([*client, "echo", "java", port], service="web", timeout=60)
    assert r.text == "ok\n", r
    r = strict.run([*client, "closes", "java", port], service="web", timeout=60)
    assert r.text == "socket: SocketException\nchannel: AsynchronousCloseException\nselector: ClosedSelectorException\ntimeout\nok\n" \
        or r.text == "socket: SocketException\nchannel: AsynchronousCloseException\nselector: returned\ntimeout\nok\n", r


CLUSTER = """
const cluster = require('cluster'), http = require('http');
if (cluster.isPrimary) { cluster.schedulingPolicy = process.env.POLICY == 'rr' ? cluster.SCHED_RR : cluster.SCHED_NONE; for (let i = 0;
    i < 2; i++) cluster.fork(); }
else http.createServer((q, r) => { let b = []; q.on('data', d => b.push(d)).on('end',
    () => r.end(b.length ? Buffer.concat(b) : 'node\\n')); }).listen(+process.env.PORT, '127.0.0.1');
"""


@pytest.mark.parametrize("policy", ["rr", "none"])
def test_node_cluster(strict, servers, policy):
    """Round robin sends accepted connections to the workers over Unix sockets; the other way the workers share the listener."""
    port = strict.port()
    script = write(f"{strict.dir}/cluster.js", CLUSTER)
    servers(strict).start(["node", script], "cluster", port, env={"PORT": port, "POLICY": policy})
    data = pattern(1 << 20)
    write(f"{strict.dir}/body", "")
    with open(f"{strict.dir}/body", "wb") as f:
        f.write(data)
    for _ in range(6):
        assert strict.curl(f"http://cluster:{port}/").text == "node\n"
        assert strict.curl(f"http://cluster:{port}/", "--data-binary", f"@{strict.dir}/body").out == data
    r = strict.run(["ab", "-q", "-k", "-n", "500", "-c", "8", f"http://cluster:{port}/"], service="web")
    assert "Failed requests:        0" in r.text, r


ECHO = {
    # perl: a process per connection, buffered streams of its own
    "perl": ["perl", "-MIO::Socket::INET", "-e", """
        $SIG{CHLD} = 'IGNORE'; $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ENV{PORT}, Listen => 64,
            ReuseAddr => 1) or die;
        while (1) { $c = $l->accept or next; if (!fork) { close $l; $c->autoflush(1); while (<$c>) { print $c $_ } exit } close $c }"""],
    # ruby: a thread per connection, non-blocking inside
    "ruby": ["ruby", "-rsocket", "-e", """
        l = TCPServer.new('127.0.0.1',
            ENV['PORT'].to_i); loop { Thread.new(l.accept) { |c| while (s = c.gets) do c.write s end; c.close } }"""],
    "tclsh": None,
    "lua": None,
    "guile": ["guile", "-c", """
        (use-modules (ice-9 rdelim) (ice-9 threads)) (define l (socket PF_INET SOCK_STREAM 0)) (setsockopt l SOL_SOCKET SO_REUSEADDR 1)
        (bind l AF_INET INADDR_LOOPBACK (string->number (getenv "PORT"))) (listen l 64)
        (let loop () (let ((c (car (accept l)))) (call-with-new-thread (lambda () (setvbuf c 'block) (let next ((s (read-line c 'concat)))
          (if (eof-object? s) (close c) (begin (display s c) (force-output c) (next (read-line c 'concat)))))))) (loop))"""],
    "erl": ["erl", "-noshell", "-eval", """
        {P, _} = string:to_integer(os:getenv("PORT")), {ok, L} = gen_tcp:listen(P, [binary, {ip, {127,0,0,1}}, {active, false}, {backlog,
            64}, {reuseaddr, true}]),
        E = fun E(C) -> case gen_tcp:recv(C, 0) of {ok, B} -> ok = gen_tcp:send(C, B), E(C); _ -> gen_tcp:close(C) end end,
        A = fun A() -> {ok, C} = gen_tcp:accept(L), gen_tcp:controlling_process(C, spawn(fun() -> receive go -> E(C) end end)) , A() end,
        F = fun F() -> {ok, C} = gen_tcp:accept(L), Q = spawn(fun() -> receive go -> E(C) end end), gen_tcp:controlling_process(C, Q),
            Q ! go, F() end, F()."""],
    "php": ["php", "-r", """
        $l = stream_socket_server('tcp://127.0.0.1:' . getenv('PORT')); $all = [(int)$l => $l];
        while (1) { $r = $all; $w = $e = null; stream_select($r, $w, $e, null); foreach ($r as $s) {
          if ($s === $l) { $c = stream_socket_accept($l); stream_set_blocking($c, false); $all[(int)$c] = $c; continue; }
          $b = fread($s, 65536); if (($b === '' || $b === false) && feof($s)) { unset($all[(int)$s]); fclose($s); continue; }
          stream_set_blocking($s, true); for ($n = 0; $n < strlen($b); $n += fwrite($s, substr($b, $n))); stream_set_blocking($s,
              false); } }"""],
    "socat": ["socat", "TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", "PIPE"],
    "ncat": ["ncat", "-lk", "127.0.0.1", "{port}", "-e", "/bin/cat"],
    "twisted": [PYTHON, "-c", """
from twisted.internet import protocol, reactor; import os
class E(protocol.Protocol):
    def dataReceived(self, d): self.transport.write(d)
f = protocol.Factory(); f.protocol = E; reactor.listenTCP(int(os.environ["PORT"]), f, 64, "127.0.0.1"); reactor.run()"""],
    "gevent": [PYTHON, "-c", """
from gevent.server import StreamServer; import os
def e(s, a):
    while (d := s.recv(5000)): s.sendall(d)
StreamServer(("127.0.0.1", int(os.environ["PORT"])), e, backlog=64).serve_forever()"""],
    "uvloop": [PYTHON, "-c", """
import asyncio, os, uvloop
async def e(r, w):
    while (d := await r.read(5000)): w.write(d); await w.drain()
    w.close()
async def main(): await (await asyncio.start_server(e, "127.0.0.1", int(os.environ["PORT"]))).serve_forever()
uvloop.install(); asyncio.run(main())"""],
}
TCL = """
proc take {c a p} { fconfigure $c -translation binary -blocking 0 -buffering line; fileevent $c readable [list go $c] }
proc go {c} { if {[gets $c s] >= 0} { puts $c $s; flush $c } elseif {[eof $c]} { close $c } }
socket -server take -myaddr 127.0.0.1 $env(PORT)
vwait forever
"""
LUA = """
local socket = require('socket')
local l = assert(socket.bind('127.0.0.1', os.getenv('PORT'), 64))
while true do local c = l:accept(); c:setoption('tcp-nodelay', true); while true do local s = c:receive('*l'); if not s then break end;
    c:send(s .. '\\n') end; c:close() end
"""


SOON = {"perl", "ruby", "socat", "tclsh", "perl-http-tiny", "ruby-net-http", "tcl-http", "wget"}  # the others with --full


def split(names):
    return [n if n in SOON else pytest.param(n, marks=pytest.mark.full) for n in sorted(names)]


@pytest.mark.parametrize("name", split(ECHO))
def test_echo_servers(strict, servers, name):
    port = strict.port()
    argv = ECHO[name]
    if name == "tclsh":
        argv = ["tclsh", write(f"{strict.dir}/echo.tcl", TCL)]
    if name == "lua":
        argv = ["lua5.4", "-e", LUA]
    p = servers(strict).start([a.replace("{port}", str(port)) for a in argv], "echo", port, env={"PORT": port})
    echo_client(strict, "echo", port)
    assert p.running(), p.text()


GET = {
    "perl-http-tiny": [
        "perl", "-MHTTP::Tiny", "-e",
        "my $h = HTTP::Tiny->new; for (1 .. 5) { my $r = $h->get($ARGV[0]); die $r->{content} unless $r->{success}; "
        "$b = $r->{content} } print $b"],
    "ruby-net-http": [
        "ruby", "-rnet/http", "-e",
        "u = URI(ARGV[0]); Net::HTTP.start(u.host, u.port) { |h| $b = nil; 5.times { $b = h.get(u.path).body }; "
        "$stdout.binmode.write $b }"],
    "php-streams": ["php", "-r", "echo file_get_contents($argv[1]);"],
    "tcl-http": ["tclsh", "{tcl}"],
    "lua-http": ["lua5.4", "-e", "local b = require('socket.http').request(arg[1]); io.write(b)"],
    "R": [
        "R", "--no-echo", "--vanilla", "-e",
        "h <- sub('.*//([^/]*).*', '\\\\1', commandArgs(TRUE)); "
        "s <- socketConnection(h, 80, open='r+b', blocking=TRUE); writeLines('GET /f HTTP/1.0\\r\\n\\r', s); "
        "b <- raw(0); while (length(x <- readBin(s, 'raw', 65536))) b <- c(b, x); "
        "i <- which(b[-1] == 10 & b[-length(b)] == 13); h <- i[which(diff(i) == 2)[1] + 1] + 1; "
        "writeBin(b[-(1:h)], 'got')", "--args"],
    "wget": ["wget", "-q", "-O", "-"],
    "aria2": ["sh", "-c", "aria2c -q --async-dns=false -x4 -s4 -k1M -d . -o got --allow-overwrite=true \"$0\" >&2; cat got"],
    "lftp": ["lftp", "-c", "cat \"$1\"", "-e", "{none}"],
    "python-tornado": [
        PYTHON, "-c",
        "import sys, asyncio; from tornado.httpclient import AsyncHTTPClient as C\n"
        "async def m(): return (await C().fetch(sys.argv[1])).body\nsys.stdout.buffer.write(asyncio.run(m()))"],
    "erl-httpc": [
        "erl", "-noshell", "-eval",
        "inets:start(), [U] = init:get_plain_arguments(), {ok, {_, _, B}} = httpc:request(get, {U, []}, [], "
        "[{body_format, binary}]), file:write(standard_io, B), halt().", "-extra"],
}
TCLHTTP = ("package require http\nset t [http::geturl [lindex $argv 0] -binary 1]\n"
           "fconfigure stdout -translation binary\nputs -nonewline [http::data $t]\n")


@pytest.mark.parametrize("name", split(GET))
def test_http_clients(strict, servers, name):
    nginx = servers(strict).nginx("files")
    data = nginx.file("f", pattern(3 << 20))
    url = "http://files/f"
    argv = GET[name]
    if name == "tcl-http":
        argv = ["tclsh", write(f"{strict.dir}/get.tcl", TCLHTTP)]
    argv = ["lftp", "-c", f"cat {url}"] if name == "lftp" else [*argv, url]
    if name == "lua-http":
        argv = ["lua5.4", write(f"{strict.dir}/get.lua", argv[2]), url]
    if name == "erl-httpc":
        argv = [a.replace("file:write(standard_io, B)", "file:write_file(\"got\", B)") for a in argv]
    r = strict.run(argv, service="web", timeout=40)
    got = open(f"{strict.dir}/got", "rb").read() if name in ("erl-httpc", "R") else r.out
    assert r.code == 0 and got == data, (r.code, len(got), r.err[-2000:])


@pytest.mark.full
def test_ruby_webrick(strict, servers):
    port = strict.port()
    servers(strict).start(["ruby", "-rwebrick", "-e", f"""
        s = WEBrick::HTTPServer.new(BindAddress: '127.0.0.1', Port: {port}, AccessLog: [], Logger: WEBrick::Log.new(File::NULL))
        s.mount_proc('/') {{ |q, r| r.body = q.body || "ruby\\n" }}; s.start"""], "ruby", port)
    assert strict.curl(f"http://ruby:{port}/").text == "ruby\n"
    r = strict.run(["ab", "-q", "-k", "-n", "200", "-c", "4", f"http://ruby:{port}/"], service="web")
    assert "Failed requests:        0" in r.text, r


def test_gawk_and_bash_devices(strict, servers):
    """Streams of programs that name a connection as a file: /inet/tcp of gawk, /dev/tcp of bash."""
    servers(strict).nginx("files")
    awk = r'BEGIN { s = "/inet/tcp/0/files/80"; printf "GET /who HTTP/1.0\r\n\r\n" |& s; while ((s |& getline l) > 0) last = l; print last }'
    assert strict.run(["gawk", awk], service="web").text == "nginx\n"
    bash = r'exec 3<>/dev/tcp/files/80; printf "GET /who HTTP/1.0\r\n\r\n" >&3; while read -r l; do last=$l; done <&3; echo "$last"'
    assert strict.run(["bash", "-c", bash], service="web").text == "nginx\n"
    children = (r'exec 3<>/dev/tcp/files/80; sh -c "printf \"GET /who HTTP/1.0\r\n\r\n\" >&3"; head -c 8 <&3; echo; '
                'python3 -c "import os; print(os.read(3, 7))"; cat <&3 | tail -n 1')
    assert strict.run(["bash", "-c", children], service="web").text == "HTTP/1.1\nb' 200 OK'\nnginx\n"

