"""A mesh of its own for one test: a folder, a weftd with its embedded Redis, and all that runs under the shim."""
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from proc import Process, TimeUp, free_port, wait_until
from redis import Redis

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(TOP, os.environ.get("WEFT_BUILD", "build"))
SHIM = os.environ.get("WEFT_SHIM", os.path.join(BUILD, "libweft.so"))
WEFTD = os.path.join(BUILD, "weftd")
WEFT = os.path.join(BUILD, "weft")


class Result:
    """What a command said: `out` and `err` as bytes, `code` as the shell has it."""

    def __init__(self, argv, popen, out, err, seconds):
        self.argv, self.code, self.out, self.err, self.seconds = argv, popen.returncode, out, err, seconds

    @property
    def text(self):
        return self.out.decode(errors="replace")

    def __repr__(self):
        return (f"<{' '.join(self.argv)[:200]}: exit {self.code} after {self.seconds:.2f} s\n"
                f"out: {self.out[-1500:]!r}\nerr: {self.err[-1500:]!r}>")


class Mesh:
    def __init__(self, netns=None, options=(), run_dir=None, redis=None):
        self.dir = tempfile.mkdtemp(prefix="weft-", dir=run_dir)
        os.chmod(self.dir, 0o755)
        self.netns = netns
        self.options = list(options)
        self.socket = f"{self.dir}/run/weftd.sock"
        self.state = f"{self.dir}/state"
        self.admin = f"unix:{self.dir}/admin.sock"
        self.redis_url = redis
        self.redis_path = f"{self.state}/redis.sock"
        self.processes = []
        self.weftd = None
        self._redis = None
        self._docs = {}
        os.mkdir(f"{self.dir}/run")
        open(f"{self.dir}/shim.log", "w").close()
        os.chmod(f"{self.dir}/shim.log", 0o666)  # workers of nginx have another uid

    # --- life ---

    def start(self, wait=True):
        """Starts weftd and waits until it answers a HELLO."""
        argv = [WEFTD, "--socket", self.socket, "--state-dir", self.state, "--admin", self.admin, *self.options]
        if self.redis_url:
            argv += ["--redis", self.redis_url]
        self.weftd = self._start(argv, "weftd", env=self._plain_env())
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=20):
        def ready():
            assert self.weftd.running(), f"weftd ended with {self.weftd.popen.returncode}: {self.weftd.text()[-3000:]}"
            try:
                return self.page("/status")["ready"]
            except OSError:
                return False
        wait_until("weftd is ready", ready, seconds)

    def page(self, path):
        """A page of weftd's admin address."""
        c = http.client.HTTPConnection("localhost")
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.settimeout(10)
        try:
            c.sock.connect(self.admin.removeprefix("unix:"))
            c.request("GET", path)
            r = c.getresponse()
            body = r.read()
        finally:
            c.close()
        assert r.status == 200, (path, r.status, body)
        return json.loads(body)

    def close(self):
        for p in reversed(self.processes):
            p.end()
        if self._redis:
            self._redis.close()
        complaints = [line for p in self.processes for line in p.text().split("\n") if "Sanitizer: " in line or "runtime error: " in line]
        text = self.logs() if complaints else ""
        shutil.rmtree(self.dir, ignore_errors=True)
        assert not complaints, text

    def logs(self):
        """Every log of this mesh, cut to what one can read."""
        parts = []
        for root, _, names in os.walk(self.dir):
            for name in sorted(names):
                if name.endswith(".log"):
                    path = os.path.join(root, name)
                    with open(path, errors="replace") as f:
                        text = f.read()
                    if text.strip():
                        parts.append(f"--- {os.path.relpath(path, self.dir)}\n{text[-4000:]}")
        return "\n".join(parts)

    # --- programs ---

    def enter(self):
        """In a child, before it becomes a program: it moves to where this mesh is."""
        from proc import enter_netns
        if self.netns:
            enter_netns(self.netns)

    def _plain_env(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("WEFT") and k != "LD_PRELOAD"}
        env.update(WEFT_SOCKET=self.socket, WEFTD_ADMIN=self.admin, HOME=self.dir)
        return env

    def env(self, service=None, shim=True, **more):
        env = self._plain_env()
        if shim:
            env.update(LD_PRELOAD=SHIM, WEFT_LOG=f"warn:{self.dir}/shim.log")
        if service:
            env["WEFT_SERVICE"] = service
        for key, value in more.items():
            if value is None:
                env.pop(key, None)
            else:
                env[key] = str(value)
        return env

    def _start(self, argv, name, env, **kw):
        p = Process(argv, f"{self.dir}/{name}.log", env=env, cwd=self.dir, netns=kw.pop("netns", self.netns), **kw)
        self.processes.append(p)
        return p

    def popen(self, argv, service=None, shim=True, name=None, env=None, **kw):
        """Starts a program that stays; its output goes to <name>.log in the mesh's folder."""
        name = name or f"{os.path.basename(str(argv[0]))}-{len(self.processes)}"
        return self._start(argv, name, self.env(service, shim, **(env or {})), **kw)

    def run(self, argv, service=None, shim=True, input=None, timeout=30, env=None, netns=None, cwd=None):
        """Runs a program to its end."""
        from proc import enter_netns
        argv = [str(a) for a in argv]
        ns = netns or self.netns
        began = time.monotonic()
        p = subprocess.Popen(argv, env=self.env(service, shim, **(env or {})), cwd=cwd or self.dir,
                             stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             preexec_fn=(lambda: enter_netns(ns)) if ns else None)
        try:
            out, err = p.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            out, err = p.communicate()
            raise TimeUp(f"not within {timeout} s: {Result(argv, p, out, err, timeout)}") from None
        return Result(argv, p, out, err, time.monotonic() - began)

    def weft(self, *words, **kw):
        """The command line; -o json comes back decoded."""
        r = self.run([WEFT, *words], shim=False, **kw)
        return r

    def weft_json(self, *words):
        r = self.weft(*words, "-o", "json")
        assert r.code == 0, r
        return json.loads(r.out)

    def curl(self, url, *args, service="web", shim=True, timeout=30, **kw):
        return self.run(["curl", "-sS", "--noproxy", "*", "--max-time", str(timeout - 2), *args, url], service=service,
                        shim=shim, timeout=timeout, **kw)

    # --- documents ---

    @property
    def redis(self):
        if self._redis is None:
            wait_until("Redis has its socket", lambda: os.path.exists(self.redis_path), 20)
            self._redis = Redis(self.redis_path)
        return self._redis

    def forget_redis(self):
        if self._redis:
            self._redis.close()
        self._redis = None

    def redis_set(self, kind, name, doc):
        self.redis("SET", f"weft:{kind}:{name}", doc if isinstance(doc, (str, bytes)) else json.dumps(doc))

    def redis_del(self, kind, name):
        self.redis("DEL", f"weft:{kind}:{name}")

    def status(self, kind, name):
        text = self.redis("GET", f"weft:status:{kind}:{name}")
        return json.loads(text) if text else None

    def wait_status(self, kind, name, accepted, but_not=None, seconds=10):
        """Waits for the status of a document: accepted or not, and another revision than `but_not`."""
        def ready():
            s = self.status(kind, name)
            return s if s and s["accepted"] == accepted and s["revision"] != but_not else None
        return wait_until(lambda: f"status of {kind}:{name}, now {self.status(kind, name)}", ready, seconds)

    def apply(self, kind, name, doc):
        """SET, and wait until the mesh has accepted it."""
        text = doc if isinstance(doc, str) else json.dumps(doc, sort_keys=True)
        if self._docs.get((kind, name)) == text:
            return None
        before = self.status(kind, name)
        self.redis_set(kind, name, text)
        self._docs[kind, name] = text
        return self.wait_status(kind, name, True, before and before["revision"])

    def strict(self, namespace=None):
        """STRICT for the whole mesh, or for one namespace."""
        self.apply("PeerAuthentication", f"{namespace or 'istio-system'}/default", {"mtls": {"mode": "STRICT"}})

    # --- registry ---

    def endpoints(self, service):
        """Endpoints that the registry has for a service now."""
        name = service if "." in service else f"{service}.default"
        return self.page(f"/endpoints?service={name}")["endpoints"]

    def wait_endpoints(self, service, n, seconds=10):
        return wait_until(lambda: f"{n} endpoints of {service}, now {self.endpoints(service)}",
                          lambda: (lambda e: e if len(e) == n else None)(self.endpoints(service)) if n else
                          not self.endpoints(service), seconds, 0.02)

    def wait_name(self, name, seconds=10):
        """Waits until programs of this mesh resolve the name: it is announced a moment after the server listens."""
        wait_until(f"{name} resolves", lambda: self.run(["getent", "ahosts", name]).code == 0, seconds)

    def port(self):
        return free_port(self.netns)

    def wait_listening(self, port, process=None, seconds=15):
        """Waits until somebody listens on a TCP port, by the kernel's own table: no connection is made."""
        hex_port = f":{port:04X}"

        def listening():
            if process is not None and not process.running():
                raise AssertionError(f"{process.argv} ended: {process.text()[-2000:]}")
            pid = self.weftd.pid if self.weftd else os.getpid()
            for name in ("tcp", "tcp6"):
                with open(f"/proc/{pid}/net/{name}") as f:
                    if any(line.split()[1].endswith(hex_port) and line.split()[3] == "0A" for line in list(f)[1:]):
                        return True
            return False
        wait_until(f"somebody listens on {port}", listening, seconds)

    def kill_weftd(self):
        """kill -9 of weftd alone; its Redis goes on, or not, as weftd has arranged."""
        self.weftd.kill(signal.SIGKILL)

    def stop_all_control(self):
        """weftd and its Redis are gone."""
        from proc import descendants, end_all
        family = descendants(self.weftd.pid)
        self.weftd.kill(signal.SIGKILL)
        end_all(family)
        self.forget_redis()
