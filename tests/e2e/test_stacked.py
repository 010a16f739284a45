"""Other preloaded libraries beside the shim, in both orders; the shim twice, by one path and by two."""
import glob
import shutil

import pytest

from mesh import SHIM
from servers import pattern


def library(name):
    found = sorted(glob.glob(f"/usr/lib/*-linux-gnu/{name}"))
    assert found, f"{name} is not installed (scripts/install-deps)"
    return found[0]


LIBRARIES = {
    "jemalloc": "libjemalloc.so.2",
    "tcmalloc": "libtcmalloc_minimal.so.4",
    "faketime": "faketime/libfaketimeMT.so.1",
    "fakeroot": "libfakeroot/libfakeroot-sysv.so",
    "eatmydata": "libeatmydata.so",
}


def serve_and_ask(mesh, servers, preload):
    """nginx and python as servers, curl and python as clients: all of them with `preload`."""
    s = servers(mesh)
    more = dict(LD_PRELOAD=preload)
    nginx = s.nginx(env=more)
    body = nginx.file("body", pattern(3_000_000))
    for _ in range(2):
        r = mesh.curl("http://orders/body", env=more)
        assert r.code == 0 and r.out == body, r
    port = mesh.port()
    p = mesh.popen(["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", str(port), "-d", nginx.root],
                   service="files", env=more)
    mesh.wait_listening(port, p)
    mesh.wait_name("files")
    code = f"import urllib.request as u, sys; sys.stdout.buffer.write(u.urlopen('http://files:{port}/body').read())"
    r = mesh.run(["/usr/bin/python3", "-c", code], service="web", env=more)
    assert r.code == 0 and r.out == body, r
    assert nginx.process.running() and p.running()


@pytest.mark.parametrize("first", ["other", "shim"])
@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_beside_another_library(strict, servers, name, first):
    other = library(LIBRARIES[name])
    serve_and_ask(strict, servers, f"{other}:{SHIM}" if first == "other" else f"{SHIM}:{other}")


def test_listed_twice(strict, servers):
    serve_and_ask(strict, servers, f"{SHIM}:{SHIM}")


def test_by_two_paths(strict, servers):
    """A copy is another library to ld.so: one of the two must keep still, or all would be sealed twice."""
    copy = f"{strict.dir}/libweft-copy.so"
    shutil.copy(SHIM, copy)
    serve_and_ask(strict, servers, f"{SHIM}:{copy}")
