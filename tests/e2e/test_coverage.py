"""weft status --coverage and weft check: what passes by the mesh, and why."""
import json
import os
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from proc import wait_until
from servers import certificate
from test_modes import change
from test_protocols import HTTPS

# Listens on its port until it is ended. RAW: by system calls of its own, which no library sees. SECCOMP: under a filter that
# forbids Unix sockets, which its weftd then is.
LISTENER = r"""
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#ifdef SECCOMP
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#endif

#ifdef RAW
static long raw(long n, long a, long b, long c)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}
#endif

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])) };
#ifdef SECCOMP
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = { sizeof(f) / sizeof(f[0]), f };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p);
#endif
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
#ifdef RAW
	int fd = raw(SYS_socket, AF_INET, SOCK_STREAM, 0);
	raw(SYS_bind, fd, (long)&a, sizeof(a));
	raw(SYS_listen, fd, 5, 0);
#else
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 5))
		return 1;
#endif
	for (;;)
		pause();
}
"""


@pytest.fixture
def build(tmp_path):
    source = tmp_path / "listener.c"
    source.write_text(LISTENER)

    def make(*flags, cc="gcc"):
        out = str(tmp_path / f"listener-{cc}{''.join(flags)}")
        subprocess.run([cc, *flags, "-o", out, str(source)], check=True, timeout=60)
        os.chmod(tmp_path, 0o755)
        return out
    return make


def coverage(mesh):
    return mesh.weft_json("status", "--coverage")


def passed(mesh, what, list_="passed"):
    return [r for r in coverage(mesh)[list_] if r["what"] == what]


def test_what_listens_outside_and_why(mesh, build, servers):
    servers(mesh).nginx("orders")
    bare = build()
    setuid = build("-g")
    os.chown(setuid, 65534, 65534)
    os.chmod(setuid, 0o4755)
    mesh.redis_set("WorkloadGroup", "nobody", {"selectors": ["unix:uid:4711"]})
    want = {}

    def start(why, argv0, service="some", shim=True, **env):
        port = mesh.port()
        p = mesh.popen([argv0, port], service=service, shim=shim, env=env, name=f"listener-{why}")
        mesh.wait_listening(port, p)
        want[f"127.0.0.1:{port}"] = why
        return p
    start("static", build("-static"))
    start("musl", build(cc="musl-gcc"), shim=False)
    start("setuid", setuid)
    start("notLoaded", bare, shim=False)
    start("off", bare, WEFT_MODE="off")
    start("raw", build("-DRAW"))
    start("seccomp", build("-DSECCOMP"), WEFT_NO_BROKER="wait:100ms,closed")
    start("noIdentity", bare, service="nobody")
    start(None, bare, service="meshed")
    mesh.wait_endpoints("meshed", 1)
    ours = {r["address"]: r for r in coverage(mesh)["outside"] if r["address"] in want}
    assert {a: r["what"] for a, r in ours.items()} == {a: w for a, w in want.items() if w}
    assert all(r["help"] and r["why"] and r["pid"] for r in ours.values())
    text = mesh.weft("status", "--coverage").text
    assert "statically linked" in text and "orders.default" in text
    check = mesh.weft("check").text
    for row in ours.values():
        assert row["help"] in check, check


def test_32_bit_programs_are_named(mesh, build):
    """The loader only warns, and the program runs without us: weft run refuses it, and coverage shows it."""
    program = build("-m32")
    r = mesh.weft("run", "--service", "old", "--", program, "1")
    assert r.code == 2 and b"32-bit" in r.err, r
    port = mesh.port()
    mesh.wait_listening(port, mesh.popen([program, port], service="old"))
    assert [r["what"] for r in coverage(mesh)["outside"] if r["address"] == f"127.0.0.1:{port}"] == ["foreign"]


def test_musl_programs_are_named(mesh, build):
    """musl's loader gives up over a library that needs glibc: the program does not start by hand, and weft run says why."""
    program = build(cc="musl-gcc")
    r = mesh.weft("run", "--service", "old", "--", program, "1")
    assert r.code == 2 and b"musl" in r.err, r
    r = mesh.run([program, mesh.port()], service="old")
    assert r.code == 127 and b"libweft.so: " in r.err and b"symbol not found" in r.err, r
    # A program with the library starts it without, however it does so.
    for starter in (["/usr/bin/bash", "-c", f"timeout 0.5 {program} {mesh.port()}"],
                    ["/usr/bin/timeout", "0.5", program, mesh.port()],
                    ["/usr/bin/python3", "-c", f"""
import os, signal, time
pid = os.posix_spawn("{program}", ["{program}", "{mesh.port()}"], os.environ)
time.sleep(0.5); os.kill(pid, signal.SIGTERM)
raise SystemExit(124 if os.WIFSIGNALED(os.waitpid(pid, 0)[1]) else 1)
"""]):
        r = mesh.run(starter, service="starter")
        assert r.code == 124 and not r.err, r
    assert open(f"{mesh.dir}/shim.log").read().count("is started without the shim: it is linked with musl") >= 3


def test_plain_connections_are_counted(mesh, servers):
    """By the program itself, in its own memory: weftd hears of them when somebody asks, also when the program is gone."""
    stranger = socket.create_server(("127.0.0.1", 0))
    port = stranger.getsockname()[1]
    r = mesh.run(["/usr/bin/python3", "-c", f"""
import socket
for _ in range(3): socket.create_connection(("127.0.0.1", {port})).close()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(("127.0.0.1", 9))
"""], service="web")
    assert r.code == 0, r
    rows = wait_until("three plain connections", lambda: passed(mesh, "plain"))
    assert [(r["address"], r["count"], r["service"]) for r in rows] == [(f"127.0.0.1:{port}", 3, "web.default")]
    assert [(r["address"], r["count"]) for r in passed(mesh, "udp")] == [("127.0.0.1:9", 1)]
    stranger.close()


def test_who_comes_in_the_clear(mesh):
    port = mesh.port()
    cert, key = certificate(f"{mesh.dir}/own", "secure")
    p = mesh.popen(["/usr/bin/python3", "-c", HTTPS], service="secure", env={"PORT": port, "CERT": cert, "KEY": key})
    mesh.wait_listening(port, p)
    mesh.wait_name("secure")
    mesh.curl(f"https://127.0.0.1:{port}/", "-k", shim=False, service=None)
    mesh.curl(f"http://127.0.0.1:{port}/", shim=False, service=None)
    mesh.curl(f"https://secure:{port}/", "-k")
    assert [(r["address"], r["count"]) for r in passed(mesh, "admittedOwnTls")] == [(f"127.0.0.1:{port}", 1)]
    assert [(r["address"], r["count"]) for r in passed(mesh, "admittedPlain")] == [(f"127.0.0.1:{port}", 1)]
    totals = {p["service"]: p["totals"] for p in coverage(mesh)["processes"]}
    assert totals["secure.default"]["admitted"] == 1 and totals["web.default"]["dialled"] == 1


def test_observe_tells_what_would_be(strict, servers):
    change(strict, "MeshConfig", "observe")
    time.sleep(1)  # a mode is in force after a second
    nginx = servers(strict).nginx("orders")
    strict.apply("AuthorizationPolicy", "no-mole", {
        "selector": {"matchLabels": {"app": "orders"}}, "action": "DENY",
        "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/mole"]}}]}]})
    assert strict.curl("http://orders/who").text == "nginx\n"  # in the clear: nobody encrypts in observe
    assert strict.curl(nginx.url + "/who", shim=False, service=None).text == "nginx\n"
    rows = passed(strict, "wouldRefuse", "observed")
    assert [(r["address"], r["reason"], r["count"]) for r in rows] == [(f"127.0.0.1:{nginx.port}", "NOT_TLS", 2)]
    assert [r["count"] for r in wait_until("curl is gone", lambda: passed(strict, "wouldMesh", "observed"))] == [1]
    assert "would be refused" in strict.weftd.text()
    strict.apply("DestinationRule", "orders", {"host": "orders", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}})
    change(strict, "WorkloadGroup", "observe")  # of the server alone
    change(strict, "MeshConfig", "enforce")
    wait_until("clients encrypt", lambda: strict.curl("http://orders/who", service="web").text == "nginx\n" and
               passed(strict, "wouldAdmit", "observed"))
    strict.wait_name("orders")
    assert strict.curl("http://orders/who", service="mole").text == "nginx\n"
    assert [r["reason"] for r in passed(strict, "wouldRefuse", "observed") if r["reason"] != "NOT_TLS"] == ["AUTHZ_DENIED"]
