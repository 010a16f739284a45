"""tests/interpose: what each program prints bare is what it must print under the shim, byte for byte."""
import glob
import os
import subprocess

import pytest

from capture import Capture
from mesh import BUILD, SHIM, TOP

NAMES = sorted(os.path.basename(p)[:-2] for p in glob.glob(f"{TOP}/tests/interpose/*.c"))
NO_CONNECTION = {"resolve", "untouched"}  # these make no TCP connection


def program(name):
    return f"{BUILD}/tests/interpose/{name}"


def bare(name):
    env = {k: os.environ[k] for k in ("PATH", "ASAN_OPTIONS", "TSAN_OPTIONS") if k in os.environ}
    r = subprocess.run([program(name)], capture_output=True, timeout=60, env=env)
    assert r.returncode == 0, r
    return r.stdout


@pytest.mark.parametrize("name", NAMES)
def test_without_weftd(name, tmp_path):
    env = {"PATH": os.environ["PATH"], "LD_PRELOAD": SHIM, "WEFT_SOCKET": f"{tmp_path}/none.sock",
           "WEFT_NO_BROKER": "wait:0s,closed"}
    r = subprocess.run([program(name)], capture_output=True, timeout=60, env=env)
    assert r.stdout.decode() == bare(name).decode()
    assert r.returncode == 0, r


@pytest.mark.parametrize("name", NAMES)
def test_meshed_with_itself(name, make_mesh, netns):
    """Every connection is mTLS (the capture shows it), and the program cannot tell."""
    ns = netns()
    mesh = make_mesh(netns=ns)
    mesh.strict()
    expected = bare(name)
    with Capture("lo", ns) as seen:
        r = mesh.run([program(name)], service="self", timeout=60)
    assert r.out.decode() == expected.decode(), r.err.decode(errors="replace")
    assert r.code == 0, r
    flows = seen.flows()
    assert bool(flows) == (name not in NO_CONNECTION)
    for key, data in flows.items():
        # A TLS record of the handshake first; a flow that ended before it said anything has no bytes at all.
        assert data[:2] == b"\x16\x03", (key, data[:64])


def test_permissive(make_mesh, netns):
    """What the server does before it can know whether its client is of the mesh must not end the handshake."""
    mesh = make_mesh(netns=netns())
    r = mesh.run([program("early")], service="self", timeout=60)
    assert r.out.decode() == bare("early").decode(), r.err.decode(errors="replace")
    assert r.code == 0, r
