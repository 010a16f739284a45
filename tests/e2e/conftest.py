"""Every test has its own weftd, Redis, folder and ports, runs within a time, and leaves no process behind."""
import os
import signal
import subprocess

import pytest

import proc
from mesh import SHIM, WEFT, WEFTD, Mesh
from servers import Servers

SECONDS = 90  # of one test; @pytest.mark.seconds(n) for another


def pytest_configure(config):
    config.addinivalue_line("markers", "full: takes long; scripts/test --full runs it")
    config.addinivalue_line("markers", "seconds(n): how long this test may take")
    proc.become_subreaper()
    for path in (SHIM.rpartition(":")[2], WEFTD, WEFT):
        if not os.path.exists(path):
            raise pytest.UsageError(f"{path} is not built (run make, or scripts/test)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for mesh in getattr(item, "meshes", []):
            report.sections.append((f"logs of {mesh.dir}", mesh.logs()))


@pytest.fixture(autouse=True)
def bounded(request):
    """A deadline for each test, and a look at what it left running."""
    mark = request.node.get_closest_marker("seconds")
    seconds = mark.args[0] if mark else SECONDS

    def late(*_):
        raise proc.TimeUp(f"the test took more than {seconds} s")
    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    before = set(proc.children())
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    left = [p for p in proc.children() if p not in before]
    if left:
        names = [f"{p}: " + open(f"/proc/{p}/cmdline").read().replace("\0", " ") for p in left if proc.alive(p)]
        proc.end_all(left)
        pytest.fail(f"left running: {names}")


@pytest.fixture
def make_mesh(request):
    """Makes meshes; all are closed at the end, their logs shown if the test fails."""
    meshes = []
    request.node.meshes = meshes

    def make(start=True, **kw):
        mesh = Mesh(**kw)
        meshes.append(mesh)
        return mesh.start() if start else mesh
    yield make
    for mesh in reversed(meshes):
        mesh.close()


@pytest.fixture
def mesh(make_mesh):
    return make_mesh()


@pytest.fixture
def strict(make_mesh):
    """A mesh in which every server is STRICT."""
    mesh = make_mesh()
    mesh.strict()
    return mesh


@pytest.fixture
def servers(make_mesh):
    """Makes servers: servers(mesh).nginx(...)."""
    return Servers


@pytest.fixture
def netns():
    """Makes network namespaces with a loopback that is up: netns() is the name of a new one."""
    names = []

    def make():
        name = f"weft-{os.getpid()}-{len(names)}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        names.append(name)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        return name
    yield make
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False)
