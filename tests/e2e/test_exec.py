"""Programs that start others on their meshed connections: the session goes along, and every byte stays in the mesh."""
import os
import signal
import textwrap

import pytest

from proc import wait_until
from test_bad_input import speaks_plain

PYTHON = "/usr/bin/python3"

# Answers each line with its length, until the end; then says how many lines there were.
LINES = """
import os, socket, threading
def serve(c):
    f, n = c.makefile("rb"), 0
    for line in f:
        n += 1
        c.sendall(b"%d bytes\\n" % len(line))
    c.sendall(b"%d lines\\n" % n)
    c.close()
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""


def quiet(mesh):
    """The shim had nothing to complain of."""
    return open(f"{mesh.dir}/shim.log").read()


def ask(mesh, name, port, text, service="client"):
    """Sends all, ends its side, and reads to the end of the other: one meshed client."""
    code = ("import socket, sys\n"
            "c = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)\n"
            "c.sendall(sys.stdin.buffer.read())\n"
            "c.shutdown(socket.SHUT_WR)\n"
            "while (b := c.recv(65536)): sys.stdout.buffer.write(b)\n")
    r = mesh.run([PYTHON, "-c", code, name, str(port)], service=service, input=text.encode())
    assert r.code == 0, r
    return r.text


@pytest.fixture
def lines(strict, servers):
    """A STRICT mesh with a server of lines; its port."""
    port = strict.port()
    servers(strict).python(LINES, "lines", port)
    return strict, port


# --- servers that start a program per connection ---

@pytest.mark.parametrize("user, options", [("root", ["-E"]), ("nobody", ["-E"]), ("root", []), ("nobody", [])])
def test_openbsd_inetd(strict, servers, user, options):
    """accept, fork, dup2, setuid, exec: programs that know files only, as another uid too. Without -E it takes LD_PRELOAD out
    of their environment: then the relay speaks for them."""
    cat, shell = strict.port(), strict.port()
    conf = f"{strict.dir}/inetd.conf"
    script = f"{strict.dir}/greet"
    with open(script, "w") as f:
        f.write("#!/bin/sh\necho hello\nread name\necho \"you are $name\"\ntr a-z A-Z\n")
    os.chmod(script, 0o755)
    with open(conf, "w") as f:
        f.write(f"127.0.0.1:{cat} stream tcp nowait {user} /bin/cat cat\n"
                f"127.0.0.1:{shell} stream tcp nowait {user} {script} greet\n")
    p = strict.popen(["/usr/sbin/inetd", "-i", *options, conf], service="super", name="inetd")
    strict.wait_listening(cat, p)
    strict.wait_listening(shell, p)
    strict.wait_name("super")
    text = "".join(f"line {i}\n" for i in range(5000))
    for _ in range(3):
        assert ask(strict, "super", cat, text) == text
        assert ask(strict, "super", shell, "joe\nall of this\n") == "hello\nyou are joe\nALL OF THIS\n"
    assert not quiet(strict)


@pytest.mark.parametrize("how", ["", ",nofork", ",pipes"])
def test_socat_exec(strict, servers, how):
    port = strict.port()
    servers(strict).start(["socat", f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr", f"EXEC:sort -r{how}"], "sorted", port)
    for _ in range(2):
        assert ask(strict, "sorted", port, "a\nb\nc\n") == "c\nb\na\n"
    assert not quiet(strict)


def test_python_server_that_starts_programs(strict, servers):
    """subprocess by vfork with the socket as stdin and stdout, by number (pass_fds), and by posix_spawn."""
    port = strict.port()
    servers(strict).python(textwrap.dedent("""
        import os, socket, subprocess
        s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
        while True:
            c, _ = s.accept()
            how = c.recv(1)
            if how == b"1":
                subprocess.run(["cat"], stdin=c, stdout=c, check=True)
            elif how == b"2":
                subprocess.run(["sh", "-c", f"cat <&{c.fileno()} >&{c.fileno()}"], pass_fds=[c.fileno()], check=True)
            elif how == b"3":
                os.set_inheritable(c.fileno(), True)
                subprocess.run(f"cat <&{c.fileno()} | tr a-z A-Z >&{c.fileno()}", shell=True, close_fds=False, check=True)
            elif how == b"4":
                a = [(os.POSIX_SPAWN_DUP2, c.fileno(), 0), (os.POSIX_SPAWN_DUP2, c.fileno(), 1)]
                os.waitpid(os.posix_spawnp("cat", ["cat"], os.environ, file_actions=a), 0)
            c.sendall(b"and the server again\\n")
            c.close()
        """), "start", port)
    for how in "1234":
        data = "much of it " * 20000 + "\n"
        want = data.upper() if how == "3" else data
        assert ask(strict, "start", port, how + data) == want + "and the server again\n", how
    assert not quiet(strict)


def test_perl_server_that_starts_programs(strict, servers):
    port = strict.port()
    servers(strict).start(["perl", "-e", textwrap.dedent("""
        use IO::Socket::INET; use Fcntl;
        my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ENV{PORT}, Listen => 5, ReuseAddr => 1) or die;
        while (my $c = $s->accept) {
            my $pid = fork;
            if (!$pid) {
                open STDIN, "<&", $c; open STDOUT, ">&", $c; $| = 1;
                print "from perl\\n";
                exec "sed", "s/a/b/g";
            }
            waitpid $pid, 0;
            print $c "and perl\\n";
            fcntl $c, F_SETFD, 0;
            system "echo system >&" . fileno $c;
            print $c `echo backtick`;
            close $c;
        }
        """)], "perl", port, env={"PORT": port})
    for _ in range(3):
        assert ask(strict, "perl", port, "banana\n" * 100) == \
            "from perl\n" + "bbnbnb\n" * 100 + "and perl\nsystem\nbacktick\n"
    assert not quiet(strict)


def test_node_child_with_a_socket_as_stdio(lines):
    """A client: the child talks on the connection that node made."""
    mesh, port = lines
    r = mesh.run(["node", "-e", textwrap.dedent("""
        const net = require("net"), { spawn } = require("child_process");
        const c = net.connect(+process.argv[1], "lines");
        c.on("connect", () => {
            const p = spawn("sh", ["-c", "echo one; read x; echo $x >&2"], { stdio: [c, c, "inherit"] });
            p.on("exit", code => console.log("exit", code));
        });
        """), str(port)], service="client")
    assert r.code == 0 and r.err == b"4 bytes\n", r
    assert r.text == "exit 0\n", r  # node itself gives such a socket up
    assert not quiet(mesh)


def test_bash_dev_tcp_and_its_children(lines):
    mesh, port = lines
    r = mesh.run(["bash", "-c", textwrap.dedent(f"""
        exec 3<>/dev/tcp/lines/{port} || exit 1
        echo first >&3
        head -c 8 <&3
        for i in 1 2 3; do
            (echo subshell $i >&3)
            sh -c 'read x <&3; echo "child: $x"'
        done
        printf 'a\\nbb\\nccc\\n' | cat >&3
        head -c 24 <&3
        nice env sh -c 'exec python3 -c "import os; os.write(3, b\\"deep\\\\n\\"); print(os.read(3, 100))"'
        echo last >&3
        read -u 3 x
        echo "$x"
        """)], service="client")
    assert r.code == 0, r
    assert r.text == "8 bytes\n".replace("8", "6") + "child: 11 bytes\n" * 3 + \
        "2 bytes\n3 bytes\n4 bytes\n" + "b'5 bytes\\n'\n" + "5 bytes\n", r
    assert not quiet(mesh)


# --- programs that execute themselves anew ---

REEXEC = """
import os, socket, sys
def serve(c):
    c.sendall(b"hello from pid change %d\\n" % (len(sys.argv) - 1))
    f = c.makefile("rwb", buffering=0)
    for line in f:
        f.write(line[::-1].strip() + b"\\n")
if len(sys.argv) > 1:
    serve(socket.socket(fileno=int(sys.argv[1])))
    sys.exit(0)
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    c, _ = s.accept()
    if os.fork() == 0:
        os.set_inheritable(c.fileno(), True)
        os.execv(sys.executable, [sys.executable, os.environ["SELF"], str(c.fileno())])
    c.close()
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0: break
        except ChildProcessError:
            break
"""


def test_a_server_that_executes_itself_per_connection(strict, servers):
    """As sshd does."""
    port, path = strict.port(), f"{strict.dir}/server.py"
    with open(path, "w") as f:
        f.write(REEXEC)
    servers(strict).start([PYTHON, path], "again", port, env={"PORT": port, "SELF": path})
    for _ in range(5):
        assert ask(strict, "again", port, "abc\nxyz\n") == "hello from pid change 1\ncba\nzyx\n"
    assert not quiet(strict)


KEEPS = """
import os, select, socket, sys
fds = [int(a) for a in sys.argv[2:]]
if fds:
    s, conns = socket.socket(fileno=fds[0]), [socket.socket(fileno=fd) for fd in fds[1:]]
else:
    s, conns = socket.create_server(("127.0.0.1", int(os.environ["PORT"]))), []
generation = int(sys.argv[1])
while True:
    for r in select.select([s, *conns], [], [])[0]:
        if r is s:
            conns.append(s.accept()[0])
            continue
        data = r.recv(1000)
        if not data:
            conns.remove(r)
            r.close()
        elif data == b"again":
            for x in (s, *conns):
                x.set_inheritable(True)
            os.execv(sys.executable, [sys.executable, os.environ["SELF"], str(generation + 1)] + [str(x.fileno()) for x in (s, *conns)])
        else:
            r.sendall(b"%d:%s" % (generation, data))
"""


def test_a_daemon_that_executes_itself_keeps_its_connections(strict, servers):
    port, path = strict.port(), f"{strict.dir}/server.py"
    with open(path, "w") as f:
        f.write(KEEPS)
    servers(strict).start([PYTHON, path, "1"], "keeps", port, env={"PORT": port, "SELF": path})
    r = strict.run([PYTHON, "-c", textwrap.dedent("""
        import socket, sys
        def say(c, text, want):
            c.sendall(text)
            got = c.recv(100)
            assert got == want, (got, want)
        conns = [socket.create_connection(("keeps", int(sys.argv[1])), 20) for _ in range(40)]
        for c in conns:
            say(c, b"x", b"1:x")
        for generation in (2, 3, 4):
            conns[generation].sendall(b"again")
            new = socket.create_connection(("keeps", int(sys.argv[1])), 20)
            say(new, b"new", b"%d:new" % generation)
            for c in conns:
                say(c, b"y", b"%d:y" % generation)
            new.close()
        print("all kept")
        """), str(port)], service="client")
    assert r.text == "all kept\n", r
    assert not quiet(strict)


def pid_in(path):
    """None as long as nobody has written it."""
    text = open(path).read().strip() if os.path.exists(path) else ""
    return int(text) if text else None


def test_nginx_binary_upgrade_under_load(strict, servers):
    """USR2: a new master inherits the listeners (NGINX=fd;fd) and nothing else of the environment, the old one is told to
    go. No request fails, and the new one is in the mesh as the old one was."""
    nginx = servers(strict).nginx("orders", daemon=True)
    nginx.file("f", b"x" * 1000)
    try:
        load = strict.popen(["ab", "-q", "-c", "8", "-n", "5000", f"http://orders:{nginx.port}/f"], service="web", name="ab")
        for n in (1, 2):
            wait_until("requests are served", lambda: nginx.access_log().count("\n") > n * 400, 30)
            old = nginx.master()
            os.kill(old, signal.SIGUSR2)
            wait_until("the new master is there", lambda: pid_in(f"{nginx.dir}/nginx.pid") not in (None, old))
            assert load.running(), "the load was over before the upgrade"
            os.kill(old, signal.SIGQUIT)
            wait_until("the old master is gone", lambda: not os.path.exists(f"{nginx.dir}/nginx.pid.oldbin"), 20)
        assert load.wait(60) == 0, load.text()
        assert "Complete requests:      5000" in load.text() and "Failed requests:        0" in load.text(), load.text()
        assert "Non-2xx" not in load.text(), load.text()
        for _ in range(5):
            assert strict.curl(f"http://orders:{nginx.port}/who").text == "nginx\n"
        strict.wait_endpoints("orders", 1)
        assert not speaks_plain(nginx.port)
    finally:
        os.kill(nginx.master(), signal.SIGQUIT)
        wait_until("nginx has ended", lambda: not os.path.exists(f"{nginx.dir}/nginx.pid"), 20)
