"""Garbage, silence, foreign certificates, wrong messages and wrong documents: a clear reason each, and nobody else is harmed."""
import errno
import datetime
import json
import os
import socket
import ssl
import struct
import threading
import time

import pytest

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from proc import wait_until

REQUEST = b"GET /who HTTP/1.0\r\n\r\n"


def speaks_plain(port):
    """Does a server answer a client that has no shim?"""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.sendall(REQUEST)
            return b"200 OK" in s.makefile("rb").read()
    except (ConnectionError, socket.timeout):
        return False


@pytest.fixture
def orders(strict, servers):
    nginx = servers(strict).nginx("orders", workers=1)
    assert strict.curl("http://orders/who").text == "nginx\n"
    return nginx


def still_well(mesh):
    r = mesh.curl("http://orders/who", timeout=10)
    assert r.text == "nginx\n" and r.seconds < 3, r


def fate(port, data, wait=15, half_close=False):
    """What becomes of a connection that says `data`: all that came back, and how it ended."""
    s = socket.create_connection(("127.0.0.1", port), wait)
    got = b""
    try:
        s.sendall(data)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        while chunk := s.recv(4096):
            got += chunk
        return got, "closed"
    except socket.timeout:
        return got, "silent"
    except OSError as e:
        assert isinstance(e, ConnectionError) or e.errno == errno.ENOTCONN, e
        return got, "reset"
    finally:
        s.close()


def client_hello(alpn=("weft/1",)):
    """The first flight of a real client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="orders.default")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


# --- on a STRICT port ---

@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100, b"\xff" * 20000, b"\x16\x03\x01\xff\xff" + b"A" * 65535,
    b"\x16\x03\x01\x00\x05hello", b"\x16", b"\x16\x03\x01\x00\x00", b"\x17\x03\x03\x00\x10" + b"B" * 16,
    b"\x15\x03\x03\x00\x02\x02\x28",
], ids=["http", "zeros", "ones", "oversized", "short-handshake", "one-byte", "empty-record", "data-record", "alert"])
def test_garbage_on_a_strict_port(strict, orders, data):
    got, how = fate(orders.port, data, half_close=True)
    assert how in ("closed", "reset")
    assert b"HTTP" not in got and b"nginx" not in got
    still_well(strict)
    assert orders.process.running()


@pytest.mark.seconds(60)
def test_half_a_client_hello_and_silence(strict, orders):
    """Bounded by a timeout; meanwhile the one worker of that nginx serves others."""
    hello = client_hello()
    began = time.monotonic()
    idle = []
    for part in (hello[:1], hello[:5], hello[:len(hello) // 2], b""):
        s = socket.create_connection(("127.0.0.1", orders.port), 30)
        s.sendall(part)
        idle.append(s)
    for _ in range(10):
        still_well(strict)
    for s in idle:
        s.settimeout(max(0.1, 25 - (time.monotonic() - began)))
        try:
            while s.recv(4096):
                pass
        except ConnectionError:
            pass
        s.close()
    assert time.monotonic() - began < 25
    still_well(strict)


def test_a_hello_byte_by_byte_is_a_hello(strict, orders):
    """Slow is not wrong: the server answers once it has all of it."""
    hello = client_hello()
    s = socket.create_connection(("127.0.0.1", orders.port), 10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(0, len(hello), 7):
        s.sendall(hello[i:i + 7])
        time.sleep(0.002)
    assert s.recv(3) == b"\x16\x03\x03"
    s.close()
    still_well(strict)


# --- certificates ---

class Authority:
    def __init__(self, name="other"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = self.sign(self.key.public_key(), self.name, ca=True)

    def sign(self, public, name, uri=None, dns=None, days=(-1, 1), ca=False):
        now = datetime.datetime.now(datetime.timezone.utc)
        b = (x509.CertificateBuilder().subject_name(name).issuer_name(self.name).public_key(public)
             .serial_number(x509.random_serial_number())
             .not_valid_before(now + datetime.timedelta(days=days[0]))
             .not_valid_after(now + datetime.timedelta(days=days[1]))
             .add_extension(x509.BasicConstraints(ca, None), critical=True))
        names = [x509.UniformResourceIdentifier(u) for u in (uri or [])] + [x509.DNSName(d) for d in (dns or [])]
        if names:
            b = b.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if not ca:
            b = b.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                                critical=False)
        return b.sign(self.key, hashes.SHA256())

    @classmethod
    def of_mesh(cls, mesh):
        """The mesh's own CA, from its state folder: what a thief of it could do, and our way to make wrong certificates."""
        a = cls.__new__(cls)
        for name in ("ca.key", "ca.crt"):
            assert os.stat(f"{mesh.state}/{name}").st_mode & 0o777 == 0o600, name
        with open(f"{mesh.state}/ca.key", "rb") as f:
            a.key = serialization.load_pem_private_key(f.read(), None)
        with open(f"{mesh.state}/ca.crt", "rb") as f:
            a.cert = x509.load_pem_x509_certificate(f.read())
        a.name = a.cert.subject
        return a

    def client(self, path, uri=("spiffe://cluster.local/ns/default/sa/web",), days=(-1, 1)):
        """An SSL context with a certificate of this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self.sign(key.public_key(), x509.Name([]), uri=uri, dns=None if uri else ["web"], days=days)
        with open(path, "wb") as f:
            f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption()))
            f.write(cert.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(path)
        return context


def tls_fate(port, context):
    """What a foreign TLS client gets: the server's answer, or None if it was refused."""
    try:
        with socket.create_connection(("127.0.0.1", port), 15) as raw, \
                context.wrap_socket(raw, server_hostname="orders.default") as s:
            s.sendall(REQUEST)
            answer = b""
            while chunk := s.recv(4096):
                answer += chunk
            return answer or None
    except (ssl.SSLError, ConnectionError):
        return None


@pytest.mark.parametrize("alpn", [True, False], ids=["weft", "foreign"])
def test_certificates(strict, orders, alpn):
    mine = Authority.of_mesh(strict)

    def get(authority, **kw):
        context = authority.client(f"{strict.dir}/peer.pem", **kw)
        if alpn:
            context.set_alpn_protocols(["weft/1"])
        return tls_fate(orders.port, context)
    good = get(mine)
    assert good and b"200 OK" in good  # the instrument works
    assert get(Authority()) is None, "another CA"
    assert get(mine, days=(-3, -1)) is None, "expired"
    assert get(mine, days=(1, 3)) is None, "not yet valid"
    assert get(mine, uri=None) is None, "no URI SAN"
    assert get(mine, uri=["spiffe://cluster.local/ns/a/sa/b", "spiffe://cluster.local/ns/c/sa/d"]) is None, "two URI SANs"
    assert get(mine, uri=["https://example.org/"]) is None, "no SPIFFE ID"
    assert get(mine, uri=["spiffe://elsewhere/ns/default/sa/web"]) is None, "unknown trust domain"
    none = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    none.check_hostname, none.verify_mode = False, ssl.CERT_NONE
    assert tls_fate(orders.port, none) is None, "no certificate"
    still_well(strict)
    log = open(f"{strict.dir}/shim.log").read()
    for reason in ("CERT_UNTRUSTED", "CERT_EXPIRED", "CERT_NO_IDENTITY", "NO_CLIENT_CERT"):
        assert reason in log, reason


def test_a_client_refuses_a_server_that_is_another(strict, servers):
    """Server and client disagree who it is: the client demands the identity that it meant."""
    nginx = servers(strict).nginx("orders")
    strict.apply("ServiceEntry", "other", {
        "hosts": ["other"], "addresses": [], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": 80, "name": "tcp", "protocol": "TCP", "targetPort": nginx.port}],
        "subjectAltNames": ["spiffe://cluster.local/ns/default/sa/other"],
        "endpoints": [{"address": "127.0.0.1", "labels": {"security.istio.io/tlsMode": "istio"}}]})
    r = strict.curl("http://other/who")
    assert r.code != 0 and not r.out, r
    wait_until("the reason is in the log", lambda: "CERT_WRONG_IDENTITY" in open(f"{strict.dir}/shim.log").read())


# --- weftd's socket ---

def frame(kind, body, version=1, length=None):
    return struct.pack("<IBB2x", len(body) if length is None else length, version, kind) + body


def ask(mesh, data, wait=10, half_close=True):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(wait)
    got = b""
    try:
        s.connect(mesh.socket)
        s.sendall(data)
        if half_close:
            s.shutdown(socket.SHUT_WR)
        while chunk := s.recv(65536):
            got += chunk
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        s.close()
    return got


BODIES = {
    "empty": b"", "not-a-map": b"\x01", "nil": b"\xc0", "deep": b"\x91" * 5000, "wrong-types": b"\x83\x01\x01\x02\x02\x03\xa1x",
    "huge-string": b"\x81\x01\xdb\xff\xff\xff\xff", "huge-map": b"\xdf\xff\xff\xff\xff", "huge-array": b"\x81\x01\xdd\xff\xff\xff\xff",
    "nul-in-text": b"\x81\x04\xa3a\x00b", "trailing": b"\x80\x80", "unknown-fields": b"\x82\x7e\x01\x7f\xa1x", "cut": b"\x82\x01",
    "bad-utf8": b"\x81\x04\xa2\xff\xfe", "negative": b"\x81\x07\xff",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_malformed_messages(strict, orders, body):
    for kind in (1, 2, 3, 4, 5, 6, 7):
        answer = ask(strict, frame(kind, body))
        assert len(answer) < 5 << 20
    assert strict.weftd.running()
    still_well(strict)


@pytest.mark.parametrize("data", [
    frame(0, b"\x80"), frame(99, b"\x80"), frame(1, b"\x80", version=200), frame(1, b"", length=0xffffffff),
    frame(1, b"x" * 70000), frame(1, b"\x80", length=100), b"\x01", b"GET / HTTP/1.0\r\n\r\n", b"\0" * 100000,
], ids=["type-0", "type-99", "version-200", "4-gb", "oversized", "short", "one-byte", "http", "zeros"])
def test_malformed_frames(strict, orders, data):
    answer = ask(strict, data)
    assert len(answer) < 4096  # a refusal, or nothing
    assert strict.weftd.running()
    still_well(strict)


def test_refusals_say_why(strict):
    answer = ask(strict, frame(2, b"\x81\x01\xa7no-such"))
    assert answer[5] == 0xff and len(answer) > 10, answer


def test_a_silent_client_of_weftd_harms_nobody(strict, orders):
    silent = []
    for n in range(200):
        s = socket.socket(socket.AF_UNIX)
        s.connect(strict.socket)
        if n % 2:
            s.send(frame(1, b"\x80")[:3])
        silent.append(s)
    began = time.monotonic()
    still_well(strict)
    assert strict.curl("http://orders/who", service="newcomer").text == "nginx\n"
    assert time.monotonic() - began < 5
    for s in silent:
        s.close()


def test_weftd_leaks_no_fd_on_bad_input(strict, orders):
    def fds():
        return len(os.listdir(f"/proc/{strict.weftd.pid}/fd"))
    ask(strict, frame(1, b"\xc1"))
    before = fds()
    for n in range(300):
        ask(strict, frame(n % 8, list(BODIES.values())[n % len(BODIES)]))
    wait_until(lambda: f"{before} fds again, now {fds()}", lambda: fds() <= before + 2)


# --- documents ---

def test_documents_that_are_broken_wrong_or_huge(strict, orders):
    for kind, doc, clue in [
        ("ServiceEntry", "{", ""), ("ServiceEntry", '{"hosts": 7}', "hosts"), ("ServiceEntry", {"hosts": []}, "hosts"),
        ("VirtualService", {"hosts": ["x"], "tcp": [{"route": [{"destination": {"host": "x"}, "weight": -5}]}]}, "weight"),
        ("DestinationRule", {"host": "x", "trafficPolicy": {"loadBalancer": {"simple": "BEST"}}}, "simple"),
        ("PeerAuthentication", {"mtls": {"mode": "strict"}}, "mode"),
        ("AuthorizationPolicy", {"rules": [{"from": [{"source": {"ipBlocks": ["300.1.1.1"]}}]}]}, "ipBlocks"),
        ("AuthorizationPolicy", '{"rules": ' + "[" * 100000, ""),
        ("AuthorizationPolicy", '{"action": "DENY", "x": "' + "y" * (10 << 20) + '"}', ""),
        ("AuthorizationPolicy", b'{"action": "\xff\xfe"}', ""),
    ]:
        strict.redis("DEL", f"weft:{kind}:wrong")
        wait_until("the old status is gone", lambda: strict.status(kind, "wrong") is None)
        strict.redis_set(kind, "wrong", doc)
        status = strict.wait_status(kind, "wrong", False, seconds=20)
        assert status["errors"] and all(e["message"] for e in status["errors"]), (kind, status)
        assert clue in json.dumps([e["path"] for e in status["errors"]]), (kind, status)
        still_well(strict)
    assert strict.weftd.running()


def test_keys_that_are_no_documents(strict, orders):
    strict.redis("LPUSH", "weft:ServiceEntry:list", "x")
    strict.redis("SET", "weft:AuthorizationPolicy:", "{}")
    strict.redis("SET", "weft:AuthorizationPolicy:a/b/c/" + "d" * 500, "{}")
    strict.redis("SET", "weft:AuthorizationPolicy:UPPER case", '{"action": "DENY", "rules": [{}]}')
    strict.redis("SET", "weft:NoSuchKind:x", "{}")
    strict.redis("SET", b"weft:ServiceEntry:\xff\xfe", "{}")
    time.sleep(0.3)
    still_well(strict)
    assert strict.weftd.running()


# --- steady ---

def memory(pid):
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])


def hammer(mesh, n, threads=8):
    code = ("import socket, sys, threading\n"
            "def go(n):\n"
            "    for _ in range(n):\n"
            "        with socket.create_connection(('orders', 80), 20) as s:\n"
            "            s.sendall(b'GET /who HTTP/1.0\\r\\n\\r\\n')\n"
            "            assert b'nginx' in s.makefile('rb').read()\n"
            f"t = [threading.Thread(target=go, args=({n // threads},)) for _ in range({threads})]\n"
            "[x.start() for x in t]; [x.join() for x in t]\n")
    r = mesh.run(["/usr/bin/python3", "-c", code], service="web", timeout=300)
    assert r.code == 0 and not r.err, r


@pytest.mark.full
@pytest.mark.seconds(600)
def test_memory_and_fds_are_steady_over_10000_connections(strict, orders):
    worker = int(open(f"/proc/{orders.master()}/task/{orders.master()}/children").read().split()[0])

    def look():
        return [(memory(p), len(os.listdir(f"/proc/{p}/fd"))) for p in (strict.weftd.pid, worker)]
    hammer(strict, 2000)
    before = look()
    hammer(strict, 10000)
    for _ in range(3):
        fate(orders.port, b"garbage", half_close=True)
    after = look()
    figures = os.environ.get("WEFT_FIGURES")
    if figures:
        with open(figures, "a") as f:
            f.write(f"10,000 connections: (private kB, fds) of weftd and an nginx worker: {before} before, {after} after\n")
    for (m0, f0), (m1, f1) in zip(before, after):
        assert m1 < m0 + 1024 and f1 <= f0 + 3, (before, after)


def test_fds_and_memory_after_1000_connections(strict, orders):
    worker = int(open(f"/proc/{orders.master()}/task/{orders.master()}/children").read().split()[0])
    hammer(strict, 300)
    before = memory(worker), len(os.listdir(f"/proc/{worker}/fd"))
    hammer(strict, 1000)
    wait_until("the connections are closed", lambda: len(os.listdir(f"/proc/{worker}/fd")) <= before[1])
    assert memory(worker) < before[0] + 512, (before, memory(worker))
    assert threading.active_count() < 10
