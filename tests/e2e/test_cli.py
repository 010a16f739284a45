"""The command line: plain text for people, -o json for programs, exit status for scripts."""
import json
import os

import pytest

from mesh import WEFT


@pytest.fixture
def orders(strict, servers):
    nginx = servers(strict).nginx("orders@v1")
    strict.wait_endpoints("orders", 1)
    return nginx


def test_version(mesh):
    assert mesh.weft("version").text.startswith("weft ")
    assert mesh.weft_json("version")


def test_status(strict, orders):
    r = strict.weft("status")
    assert r.code == 0 and r.text.strip(), r
    status = strict.weft_json("status")
    assert status["ready"] is True and status["healthy"] is True, status


def test_status_without_weftd(make_mesh):
    mesh = make_mesh(start=False)
    r = mesh.weft("status")
    assert r.code != 0 and r.err.strip(), r
    assert "Traceback" not in r.text


def test_status_wait_waits(make_mesh):
    mesh = make_mesh(start=False)
    mesh.start(wait=False)
    r = mesh.weft("status", "--wait")
    assert r.code == 0, r
    assert mesh.page("/status")["ready"]


def test_endpoints(strict, orders):
    r = strict.weft("endpoints")
    assert r.code == 0 and "orders" in r.text and str(orders.port) in r.text and "v1" in r.text, r
    data = strict.weft_json("endpoints")
    text = json.dumps(data)
    assert "orders.default" in text and str(orders.port) in text


def test_identity(strict, orders):
    assert strict.curl("http://orders/who").text == "nginx\n"
    r = strict.weft("identity")
    assert r.code == 0 and "spiffe://cluster.local/ns/default/sa/orders" in r.text, r
    assert "spiffe://cluster.local/ns/default/sa/orders" in json.dumps(strict.weft_json("identity"))


def test_run(strict, orders):
    """weft run sets the preload and the service and becomes the program: same exit status, same output."""
    r = strict.run([WEFT, "run", "--service", "web", "--", "curl", "-sS", "http://orders/who"], shim=False)
    assert r.text == "nginx\n" and r.code == 0, r
    assert strict.run([WEFT, "run", "--", "sh", "-c", "exit 7"], shim=False).code == 7
    assert strict.run([WEFT, "run", "--", "/no/such/program"], shim=False).code == 127


def test_check(strict, orders):
    r = strict.weft("check")
    assert r.code == 0, r
    assert r.text.strip()


def test_check_refuses_what_cannot_be_meshed(strict):
    """A static program cannot load the shim, and is told by name."""
    source = f"{strict.dir}/s.c"
    with open(source, "w") as f:
        f.write("int main(void) { return 0; }\n")
    static = f"{strict.dir}/static-program"
    assert strict.run(["gcc", "-static", "-o", static, source], shim=False).code == 0
    r = strict.weft("check", static)
    assert r.code != 0 and "static" in (r.text + r.err.decode()), r


def test_analyze(strict, orders):
    assert strict.weft("analyze").code == 0
    strict.redis_set("AuthorizationPolicy", "wrong", {"action": "PERHAPS"})
    strict.wait_status("AuthorizationPolicy", "wrong", False)
    r = strict.weft("analyze")
    assert r.code != 0 and "wrong" in r.text and "action" in r.text, r
    assert "wrong" in json.dumps(json.loads(strict.weft("analyze", "-o", "json").out))


def test_unknown_words(mesh):
    for words in (["no-such-command"], ["status", "--no-such-option"], ["status", "-o", "xml"], []):
        r = mesh.weft(*words)
        assert r.code not in (0, 139, 134), (words, r)
        assert r.err or r.out


def test_weftd_options():
    from mesh import WEFTD
    import subprocess
    for words, clue in ((["--no-such"], "no-such"), (["--svid-ttl", "minus"], "svid-ttl"), (["--vip-cidr", "x"], "vip-cidr"),
                        (["--redis", "ftp://x"], "redis")):
        r = subprocess.run([WEFTD, "--state-dir", "/nonexistent/x", *words], capture_output=True, text=True, timeout=10)
        assert r.returncode not in (0, 139, 134) and clue in r.stderr, (words, r)
    r = subprocess.run([WEFTD, "--help"], capture_output=True, text=True, timeout=10)
    assert r.returncode == 0 and "--advertise" in r.stdout, r
    assert os.path.exists(WEFTD)
