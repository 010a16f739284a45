"""weft try: says "the same" of programs that do not notice the mesh, names what differs in others, and leaves nothing."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

import proc
from mesh import BUILD, WEFT

PYTHON = "/usr/bin/python3"
NOBODY = 65534

ECHO = """
import socket, sys, threading
server = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        c, _ = server.accept()
        while data := c.recv(100):
            c.sendall(data)
        c.close()
threading.Thread(target=serve, daemon=True).start()
for n in range(3):
    c = socket.create_connection(server.getsockname())
    c.sendall(b"x" * (n + 1))
    c.shutdown(socket.SHUT_WR)
    while data := c.recv(100):
        print(len(data))
"""
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\\n")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def folder():
    """For temporary files alone, so that what is left can be seen."""
    path = tempfile.mkdtemp(prefix="weft-", dir="/tmp")
    os.chmod(path, 0o777)
    yield path
    left = os.listdir(path)
    shutil.rmtree(path)
    assert not left, left


def weft_try(folder, *words, program=WEFT, **kw):
    env = {"PATH": os.environ["PATH"], "TMPDIR": folder}
    return subprocess.run([program, "try", *words], capture_output=True, text=True, timeout=60, env=env, **kw)


def as_json(folder, *words, code, **kw):
    r = weft_try(folder, "-o", "json", *words, **kw)
    if r.returncode != code:
        pytest.fail(f"exit {r.returncode}\n{r.stdout}{r.stderr}")  # whole, which an assertion would cut
    found = json.loads(r.stdout)
    assert found["same"] == (code == 0)
    return found, {run["run"]: run for run in found["runs"]}


def test_nothing_differs(folder):
    _, runs = as_json(folder, "--", PYTHON, "-c", ECHO, code=0)
    assert {r["end"] for r in runs.values()} == {"exit 0"}
    assert runs["bare"]["connectionEnds"] == runs["meshed"]["connectionEnds"] == 6
    assert runs["bare"]["mtlsEnds"] == runs["pass-through"]["mtlsEnds"] == 0
    assert runs["meshed"]["mtlsEnds"] == 6


def test_what_it_says(folder):
    r = weft_try(folder, "--", PYTHON, "-c", ECHO)
    assert r.returncode == 0 and r.stdout.endswith("The program behaves under weft as it does bare.\n"), r
    r = weft_try(folder, "--", "/bin/sh", "-c", "exit 7")
    assert r.returncode == 0 and "exit 7" in r.stdout and "no connection was mTLS" in r.stdout, r


def test_differences_are_named(folder):
    """A program that looks for what must differ: the library in its environment, and a call's result."""
    found, runs = as_json(folder, "--", PYTHON, "-c", """
import os, sys
meshed = os.environ.get("WEFT_SERVICE")
print("common")
print("meshed" if meshed else "bare")
if meshed:
    import socket
    try:
        socket.create_connection(("127.0.0.1", 1))
    except OSError:
        sys.exit(5)
""", code=1)
    what = {(d["run"], d["what"]): d["text"] for d in found["differences"]}
    assert what["meshed", "standard output"] == ["- bare", "+ meshed"]
    assert what["meshed", "end of the program"] == ["exit 5; bare: exit 0"]
    assert any("ECONNREFUSED" in line for line in what["meshed", "results of calls"])
    assert {run for run, _ in what} == {"meshed"} and not runs["pass-through"]["differs"]


def test_connections_are_compared(folder):
    found, _ = as_json(folder, "--", PYTHON, "-c", ECHO + """
import os
if os.environ.get("WEFT_SERVICE"):
    socket.create_connection(server.getsockname()).sendall(b"more")
""", code=1)
    text = [line for d in found["differences"] if d["what"] == "connections" for line in d["text"]]
    assert any(line.startswith("+ client: ") and "4 sent" in line for line in text), found


def test_what_differs_by_nature(folder):
    """Numbers, order and single lines that differ bare are no finding; the rest still is compared."""
    script = "date +%N; tr -dc a-z </dev/urandom | head -c 20; echo; echo fixed"
    found, _ = as_json(folder, "--", "/bin/sh", "-c", script, code=0)
    assert any("between two bare runs" in note for note in found["notes"])
    r = weft_try(folder, "--", "/bin/sh", "-c", "date +%N; echo ${WEFT_SERVICE:+meshed}")
    assert r.returncode == 1 and "+ meshed" in r.stdout, r
    r = weft_try(folder, "--ignore", "^mesh", "--ignore", "^$", "--", "/bin/sh", "-c", "echo ${WEFT_SERVICE:+meshed}")
    assert r.returncode == 0, r


def test_server_and_client(folder):
    port = proc.free_port()
    client = f"curl -sS --noproxy '*' http://127.0.0.1:{port}/"
    _, runs = as_json(folder, "--client", client, "--", PYTHON, "-c", SERVER, str(port), code=0)
    assert runs["meshed"]["client"] == "exit 0" and runs["meshed"]["end"] == "SIGTERM"
    assert runs["meshed"]["mtlsEnds"] == runs["meshed"]["connectionEnds"] == 2


def test_input_and_environment(folder):
    with tempfile.NamedTemporaryFile("w") as f:
        f.write("one\ntwo\n")
        f.flush()
        kept = tempfile.mkdtemp(prefix="weft-") + "/kept"
        r = weft_try(folder, "--stdin", f.name, "--env", "A=b", "--keep", kept, "--", "/bin/sh", "-c", "cat; echo $A")
    try:
        assert r.returncode == 0, r
        for run in ("bare", "bare-again", "pass-through", "meshed"):
            with open(f"{kept}/{run}/program.stdout") as f:
                assert f.read() == "one\ntwo\nb\n", run
    finally:
        shutil.rmtree(os.path.dirname(kept))


def test_what_cannot_be_tried(folder, tmp_path):
    source = tmp_path / "s.c"
    source.write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "static", source], check=True)
    for words, said in (
            (["--", tmp_path / "static"], "statically linked"),
            (["--", "/no/such/program"], "no such program"),
            ([], "needs a command"),
            (["--timeout", "soon", "--", "true"], "--timeout takes seconds"),
            (["--ignore", "[", "--", "true"], "--ignore ["),
            (["--env", "A", "--", "true"], "--env takes"),
            (["--timeout", "0.5", "--", "sleep", "60"], "does not end within 0.5 s"),
            (["--timeout", "0.5", "--client", "true", "--", "sleep", "60"], "does not listen on TCP within 0.5 s"),
            (["--client", "true", "--", "true"], "ends before it listens")):
        r = weft_try(folder, *words)
        assert r.returncode == 2 and said in r.stderr and not r.stdout, (words, r)


def test_only_the_meshed_run_hangs(folder):
    r = weft_try(folder, "--timeout", "2", "--", "/bin/sh", "-c", "[ -z $WEFT_SERVICE ] || exec sleep 60")
    assert r.returncode == 1 and "did not end in time; bare: exit 0" in r.stdout, r


def test_what_daemonizes_is_ended(folder):
    r = weft_try(folder, "--", "/bin/sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & exit 0")
    assert r.returncode == 0 and "left behind, ended now: 1" in r.stdout, r


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(folder, sig):
    """Each run says in a file that it is there; the third is the meshed one. Then weft is told to end."""
    with tempfile.TemporaryDirectory() as mark:
        script = f"n=$(ls {mark} | wc -l); touch {mark}/$n; [ $n -lt 2 ] || sleep 300"
        p = subprocess.Popen([WEFT, "try", "--", "/bin/sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env={"PATH": os.environ["PATH"], "TMPDIR": folder})
        proc.wait_until("the meshed run", lambda: len(os.listdir(mark)) == 3)
        family = proc.descendants(p.pid)
        assert len(family) >= 3, "the program, weftd and its Redis"
        p.send_signal(sig)
        assert p.wait(20) == 128 + sig
        p.stdout.close()
        assert not [pid for pid in family if proc.alive(pid)]


def test_as_an_ordinary_user(folder):
    """Copied to where that user may read it, as an installed weft would be."""
    home = tempfile.mkdtemp(prefix="weft-")
    os.chmod(home, 0o755)
    try:
        for name in ("weft", "weftd", "libweft.so", "libwefttrace.so"):
            shutil.copy(f"{BUILD}/{name}", home)
        _, runs = as_json(folder, "--", PYTHON, "-c", ECHO, code=0, program=f"{home}/weft", user=NOBODY, group=NOBODY,
                          extra_groups=[], cwd="/")
        assert runs["meshed"]["mtlsEnds"] == 6
    finally:
        shutil.rmtree(home)


def test_it_takes_seconds(folder):
    began = time.monotonic()
    assert weft_try(folder, "--", "true").returncode == 0
    assert time.monotonic() - began < 20
