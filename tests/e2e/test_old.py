"""The library of this build in older root file systems: the same file, another glibc."""
import os
import shutil
import subprocess
import tempfile

import pytest

from mesh import SHIM
from servers import pattern

SERVER = """
import os, socket, threading
def serve(c):
    with c:
        head = c.recv(4096)
        body = open("/data", "rb").read()
        c.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(os.environ["PORT"])))
s.listen(16)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],)).start()
"""


def mirror():
    """Where this machine gets its own Debian packages from."""
    r = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)"], capture_output=True, text=True, check=True)
    uris = [line.split()[0] for line in r.stdout.splitlines() if line.endswith(" Debian") and "security" not in line]
    return uris[0].rstrip("/") if uris else "http://deb.debian.org/debian"


@pytest.fixture(scope="module")
def bullseye():
    """A Debian 11 with curl and Python. It has neither /proc nor /dev mounted: weft needs neither."""
    root = tempfile.mkdtemp(prefix="weft-bullseye-")
    r = subprocess.run(["debootstrap", "--variant=minbase", "--include=curl,python3-minimal", "bullseye", root, mirror()],
                       capture_output=True, text=True, timeout=1200)
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-2000:]
    os.chmod(root, 0o755)
    shutil.copy(SHIM, f"{root}/libweft.so")
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.full
@pytest.mark.seconds(1500)
def test_debian_11_serves_and_is_served(bullseye, make_mesh, servers):
    """curl and a server inside, with each other and with today's programs outside; weftd is outside."""
    mesh = make_mesh(run_dir=f"{bullseye}/tmp")
    mesh.strict()
    inside = {"LD_PRELOAD": None, "WEFT_LOG": None}
    run_dir = mesh.dir.removeprefix(bullseye)

    def chroot(argv, service):
        return ["chroot", bullseye, "/usr/bin/env", "LD_PRELOAD=/libweft.so", f"WEFT_SERVICE={service}",
                f"WEFT_SOCKET={run_dir}/run/weftd.sock", f"WEFT_LOG=warn:{run_dir}/shim.log", *argv]
    glibc = mesh.run(["chroot", bullseye, "ldd", "--version"], shim=False).text
    assert "2.31" in glibc.splitlines()[0], glibc
    data = pattern(3_000_000)
    with open(f"{bullseye}/data", "wb") as f:
        f.write(data)
    port = mesh.port()
    old = mesh.popen(chroot(["/usr/bin/python3", "-c", SERVER], "old"), shim=False, name="old", env={**inside, "PORT": port})
    mesh.wait_listening(port, old)
    mesh.wait_name("old")
    nginx = servers(mesh).nginx("new")
    nginx.file("data", data)
    for url in ("http://old/", "http://new/data"):
        r = mesh.run(chroot(["/usr/bin/curl", "-sS", "--max-time", "20", url], "web"), shim=False, env=inside)
        assert r.out == data, (r.code, len(r.out), r.err)
        assert mesh.curl(url).out == data
    # STRICT: without the library nothing is served, so it was meshed.
    assert mesh.curl(f"http://127.0.0.1:{port}/", shim=False, service=None).code != 0
    totals = {p["service"]: p["totals"] for p in mesh.weft_json("status", "--coverage")["processes"] if p["pid"]}
    assert totals["old.default"]["admitted"] == 2 and totals["old.default"]["refused"] == 1
