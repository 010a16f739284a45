"""What scripts/bench measures on: one nginx bare, with a plain and a mutual TLS port; the same nginx under weft; a pair of
HAProxy that speaks mutual TLS between its two; on loopback, or between two network namespaces."""
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{TOP}/tests/e2e")

CORES = os.cpu_count()
SUITE = "TLS_AES_128_GCM_SHA256"  # what weft's client and server agree on; all others are told to use it as well

NGINX = """
daemon off;
worker_processes %(workers)d;
pid %(dir)s/%(name)s.pid;
error_log %(dir)s/%(name)s-error.log error;
events { worker_connections 4096; }
http {
	access_log off;
	sendfile on; tcp_nopush on; tcp_nodelay on;
	keepalive_requests 100000000; keepalive_timeout 600s; reset_timedout_connection on;
	client_body_temp_path %(dir)s/%(name)s1; proxy_temp_path %(dir)s/%(name)s2; fastcgi_temp_path %(dir)s/%(name)s3;
	uwsgi_temp_path %(dir)s/%(name)s4; scgi_temp_path %(dir)s/%(name)s5;
	root %(dir)s/www;
	server { listen %(ip)s:%(plain)d backlog=4096; }
	%(more)s
}
"""

NGINX_MTLS = """
	server {
		listen %(ip)s:%(tls)d ssl backlog=4096;
		ssl_certificate %(dir)s/server.crt; ssl_certificate_key %(dir)s/server.key;
		ssl_verify_client on; ssl_client_certificate %(dir)s/ca.crt;
		ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites %(suite)s; ssl_ecdh_curve X25519;
		ssl_session_tickets off; ssl_session_cache off;
	}
"""

HAPROXY = """
global
	maxconn 4096
defaults
	mode tcp
	timeout connect 10s
	timeout client 600s
	timeout server 600s
listen pair
	%(listen)s
	%(server)s
"""
HAPROXY_TLS = f"ca-file %(dir)s/ca.crt verify required ssl-min-ver TLSv1.3 ciphersuites {SUITE}"


class Wire:
    """Where the two ends are: both on loopback, or in two namespaces with a veth, MTU 1500, no offload."""

    def __init__(self, veth):
        self.client_ns = self.server_ns = None
        self.client_ip = self.server_ip = "127.0.0.1"
        if veth:
            self._make_veth()

    def _make_veth(self):
        a, b, dev = f"weft-bench-{os.getpid()}a", f"weft-bench-{os.getpid()}b", "wire0"
        for ns in (a, b):
            subprocess.run(["ip", "netns", "add", ns], check=True)
        self.client_ns, self.server_ns = a, b
        self.client_ip, self.server_ip = "10.77.0.1", "10.77.0.2"
        subprocess.run(["ip", "link", "add", dev, "netns", a, "type", "veth", "peer", "name", dev, "netns", b], check=True)
        for ns, ip in ((a, self.client_ip), (b, self.server_ip)):
            subprocess.run(["ip", "-n", ns, "link", "set", "lo", "up"], check=True)
            subprocess.run(["ip", "-n", ns, "link", "set", dev, "mtu", "1500", "gso_max_segs", "1", "up"], check=True)
            subprocess.run(["ip", "-n", ns, "addr", "add", f"{ip}/24", "dev", dev], check=True)
            subprocess.run(["ip", "netns", "exec", ns, "ethtool", "-K", dev, "tso", "off", "gso", "off", "gro", "off"],
                           check=True, capture_output=True)

    def close(self):
        for ns in filter(None, (self.client_ns, self.server_ns)):
            subprocess.run(["ip", "netns", "del", ns], check=False)


class Bed:
    def __init__(self, veth):
        from mesh import Mesh, SHIM
        self.shim = SHIM
        self.wire = Wire(veth)
        options = ["--advertise", self.wire.server_ip] if veth else []
        try:
            self.mesh = Mesh(netns=self.wire.server_ns, options=options)
        except BaseException:
            self.wire.close()
            raise
        self.dir = self.mesh.dir
        self.port = {name: self.mesh.port() for name in ("plain", "tls", "weft", "between")}
        self.port["haproxy"] = self._client_port()

    def __enter__(self):
        try:
            self.mesh.start()
            self.mesh.strict()
            self._files()
            self._certificates()
            self.nginx = {}
            self.start_nginx("bare")
            self.start_nginx("weft")
            self._haproxies()
        except BaseException:
            print(self.mesh.logs(), file=sys.stderr)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.mesh.close()
        self.wire.close()

    def _client_port(self):
        from proc import free_port
        return free_port(self.wire.client_ns)

    def _files(self):
        os.mkdir(f"{self.dir}/www")
        for name, size in (("1k", 1 << 10), ("big", 256 << 20)):
            with open(f"{self.dir}/www/{name}", "wb") as f:
                f.write(os.urandom(1 << 10) * (size >> 10))

    def _openssl(self, *words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=self.dir)

    def _certificates(self):
        """One root, and for each end a P-256 leaf for both uses, as weft has them."""
        with open(f"{self.dir}/ext", "w") as f:
            f.write("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                    "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:bench\n")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self._openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=root", "-days", "2")
        for end in ("server", "client"):
            self._openssl("req", *key, "-keyout", f"{end}.key", "-out", f"{end}.csr", "-subj", f"/CN={end}")
            self._openssl("x509", "-req", "-in", f"{end}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                          "-days", "1", "-extfile", "ext", "-out", f"{end}.crt")
            with open(f"{self.dir}/{end}.pem", "w") as out:
                for part in (f"{end}.crt", f"{end}.key"):
                    with open(f"{self.dir}/{part}") as f:
                        out.write(f.read())

    def start_nginx(self, name):
        """The one named "bare" or the one named "weft"; anew if it runs, so that its memory is fresh."""
        if name in self.nginx:
            self.nginx[name].end()
        weft = name == "weft"
        port = self.port["weft" if weft else "plain"]
        values = dict(dir=self.dir, name=name, ip=self.wire.server_ip, workers=CORES, suite=SUITE, plain=port,
                      tls=self.port["tls"])
        with open(f"{self.dir}/{name}.conf", "w") as f:
            f.write(NGINX % dict(values, more="" if weft else NGINX_MTLS % values))
        self.nginx[name] = self.mesh.popen(["nginx", "-e", f"{self.dir}/{name}-start.log", "-c", f"{self.dir}/{name}.conf"],
                                           service="bench" if weft else None, shim=weft, name=f"nginx-{name}")
        self.mesh.wait_listening(port, self.nginx[name])
        if weft:
            self.mesh.wait_endpoints("bench", 1)

    def _haproxies(self):
        """The client's side takes plaintext and speaks mutual TLS to the server's side, which hands plaintext to nginx."""
        tls = HAPROXY_TLS % dict(dir=self.dir)
        between = f"{self.wire.server_ip}:{self.port['between']}"
        sides = {
            "out": (self.wire.client_ns, f"bind {self.wire.client_ip}:{self.port['haproxy']}",
                    f"server next {between} ssl crt {self.dir}/client.pem {tls} no-ssl-reuse no-tls-tickets"),
            "in": (self.wire.server_ns, f"bind {between} ssl crt {self.dir}/server.pem {tls} no-tls-tickets",
                   f"server next {self.wire.server_ip}:{self.port['plain']}"),
        }
        for side, (ns, listen, server) in sides.items():
            with open(f"{self.dir}/haproxy-{side}.conf", "w") as f:
                f.write(HAPROXY % dict(listen=listen, server=server))
            self.mesh.popen(["haproxy", "-db", "-f", f"{self.dir}/haproxy-{side}.conf"], shim=False, netns=ns,
                            name=f"haproxy-{side}")
        self.mesh.wait_listening(self.port["between"])

    # --- what a client is told ---

    def target(self, variant):
        """Host and port that a client of `variant` dials."""
        return {
            "plain": (self.wire.server_ip, self.port["plain"]),
            "weft": ("bench", self.port["weft"]),
            "nginx mTLS": (self.wire.server_ip, self.port["tls"]),
            "HAProxy pair": (self.wire.client_ip, self.port["haproxy"]),
        }[variant]

    def run(self, argv, variant, timeout=120):
        """A client program, under the shim if the variant is weft's."""
        weft = variant == "weft"
        r = self.mesh.run(argv, service="web" if weft else None, shim=weft, netns=self.wire.client_ns, timeout=timeout)
        if r.code:
            raise RuntimeError(f"{variant}: {r}")
        return r.text

    def popen(self, argv, variant):
        from proc import enter_netns
        ns, weft = self.wire.client_ns, variant == "weft"
        return subprocess.Popen([str(a) for a in argv], env=self.mesh.env("web" if weft else None, weft), cwd=self.dir,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                preexec_fn=(lambda: enter_netns(ns)) if ns else None)

    def workers(self, name):
        """Pids of the workers of one nginx."""
        from proc import children
        with open(f"{self.dir}/{name}.pid") as f:
            return children(int(f.read()))


def private_kib(pid):
    """Memory that is the process's alone: anonymous pages and what it has written of mapped files."""
    total = 0
    with open(f"/proc/{pid}/smaps") as f:
        for m in re.finditer(r"^Private_Dirty: +(\d+) kB\n(?:.*\n)*?Anonymous: +(\d+) kB", f.read(), re.M):
            total += min(int(m.group(1)), int(m.group(2)))
    return total
