"""Unmodified servers, each with a folder and a configuration of its own inside the mesh's folder."""
import os
import subprocess
import textwrap

from proc import wait_until

NGINX = """
%(main)s
worker_processes %(workers)d;
pid %(dir)s/nginx.pid;
error_log %(dir)s/error.log notice;
events { worker_connections 2048; }
http {
	access_log %(dir)s/access.log;
	client_body_temp_path %(dir)s/t1; proxy_temp_path %(dir)s/t2; fastcgi_temp_path %(dir)s/t3;
	uwsgi_temp_path %(dir)s/t4; scgi_temp_path %(dir)s/t5;
	client_max_body_size 1g;
	default_type application/octet-stream;
	%(http)s
	server {
		listen %(listen)s;
		root %(dir)s/www;
		location = /who { return 200 "%(who)s\\n"; }
		location = /peer { return 200 "$remote_addr\\n"; }
		location /put/ { dav_methods PUT DELETE; create_full_put_path on; }
		%(server)s
	}
	%(more)s
}
"""


class Nginx:
    def __init__(self, mesh, service, port=None, workers=2, who="nginx", listen=None, main="", http="", server="",
                 more="", daemon=False, shim=True, netns=None, env=None, wait=True):
        self.mesh, self.port = mesh, port or mesh.port()
        self.dir = f"{mesh.dir}/nginx-{self.port}-{len(mesh.processes)}"
        self.root = f"{self.dir}/www"
        os.makedirs(f"{self.root}/put")
        for path in (self.root, f"{self.root}/put"):
            os.chmod(path, 0o777)
        self.conf = f"{self.dir}/nginx.conf"
        main = f"daemon {'on' if daemon else 'off'};\n{main}"
        with open(self.conf, "w") as f:
            f.write(NGINX % dict(dir=self.dir, main=main, workers=workers, http=http, server=server, more=more, who=who,
                                 listen=listen or f"127.0.0.1:{self.port}"))
        self.process = mesh.popen(["/usr/sbin/nginx", "-e", f"{self.dir}/start.log", "-c", self.conf], service=service, shim=shim,
                                  name=f"nginx-{self.port}", env=env, netns=netns or mesh.netns)
        if wait:
            mesh.wait_listening(self.port, None if daemon else self.process)
        if wait and shim and service:
            mesh.wait_name(service.split("@")[0])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def master(self):
        return int(open(f"{self.dir}/nginx.pid").read())

    def file(self, name, data):
        with open(f"{self.root}/{name}", "wb") as f:
            f.write(data)
        return data

    def access_log(self):
        return open(f"{self.dir}/access.log").read()


class Servers:
    def __init__(self, mesh):
        self.mesh = mesh

    def nginx(self, service="orders", **kw):
        return Nginx(self.mesh, service, **kw)

    def start(self, argv, service, port, name=None, shim=True, **kw):
        """Any server that is told its port on the command line."""
        p = self.mesh.popen(argv, service=service, name=name, shim=shim, **kw)
        self.mesh.wait_listening(port, p)
        self.mesh.wait_name(service)
        return p

    def python(self, code, service, port):
        """A Python server; `code` finds the port in PORT."""
        return self.start(["/usr/bin/python3", "-c", code], service, port, env={"PORT": port})

    def wait_registered(self, service, n=1):
        return self.mesh.wait_endpoints(service, n)


def folder(path, mode=0o755):
    os.mkdir(path)
    os.chmod(path, mode)
    return path


def write(path, text, mode=0o644):
    """A file with this text, less what all its lines are indented by; the path."""
    with open(path, "w") as f:
        f.write(textwrap.dedent(text))
    os.chmod(path, mode)
    return path


def pattern(n, seed=1):
    """n bytes that no codec can make smaller or mistake for others."""
    import random
    return random.Random(seed).randbytes(n)


def certificate(path, name="localhost", uri=None, days=1, ca=None, ca_key=None, start=None):
    """A self-signed certificate, or one of `ca`, by the openssl command; returns (cert, key)."""
    cert, key = f"{path}.pem", f"{path}.key"
    san = f"DNS:{name}" + (f",URI:{uri}" if uri else "")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", str(days), "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName={san}"], check=True, capture_output=True)
    return cert, key


def ended(process, seconds=10):
    wait_until(f"{process.argv} ends", lambda: not process.running(), seconds)
