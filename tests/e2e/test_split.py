"""Choice of endpoint: weights, subsets, balancing, fail-over."""
import collections
import math
import socket
import threading
import time

import pytest

from proc import wait_until

SUBSETS = {"host": "orders", "subsets": [{"name": "v1", "labels": {"version": "v1"}},
                                         {"name": "v2", "labels": {"version": "v2"}}]}

# Connects n times to a name and counts who answered.
COUNTER = """
import collections, socket, sys
name, n = sys.argv[1], int(sys.argv[2])
seen = collections.Counter()
order = []
for _ in range(n):
    try:
        s = socket.create_connection((name, 80), 20)
        s.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
        who = s.makefile("rb").read().split(b"\\r\\n\\r\\n", 1)[-1].decode().strip()
        s.close()
    except OSError as e:
        who = type(e).__name__
    seen[who] += 1
    order.append(who)
import json; print(json.dumps([seen, order]))
"""


def count(mesh, n, name="orders"):
    import json
    r = mesh.run(["/usr/bin/python3", "-c", COUNTER, name, str(n)], service="web", timeout=80)
    assert r.code == 0, r
    seen, order = json.loads(r.out)
    return collections.Counter(seen), order


def within_5_sigma(k, n, p):
    return abs(k - n * p) <= 5 * math.sqrt(n * p * (1 - p))


def split(v1, v2):
    return {"hosts": ["orders"], "tcp": [{"route": [
        {"destination": {"host": "orders", "subset": "v1"}, "weight": v1},
        {"destination": {"host": "orders", "subset": "v2"}, "weight": v2}]}]}


@pytest.fixture
def two(strict, servers):
    s = servers(strict)
    v1 = s.nginx("orders@v1", who="v1", main="master_process off;")
    v2 = s.nginx("orders@v2", who="v2", main="master_process off;")
    strict.wait_endpoints("orders", 2)
    strict.apply("DestinationRule", "orders", SUBSETS)
    return v1, v2


def test_90_10_over_1000_connections(strict, two):
    strict.apply("VirtualService", "orders", split(90, 10))
    seen, _ = count(strict, 1000)
    assert sum(seen.values()) == 1000 and set(seen) == {"v1", "v2"}, seen
    assert within_5_sigma(seen["v1"], 1000, 0.9), seen


def test_a_change_of_weights_is_seen_by_a_running_client(strict, two):
    strict.apply("VirtualService", "orders", split(100, 0))
    assert count(strict, 50)[0] == {"v1": 50}
    strict.apply("VirtualService", "orders", split(0, 100))
    assert count(strict, 50)[0] == {"v2": 50}
    strict.redis_del("VirtualService", "orders")
    wait_until("both again", lambda: len(count(strict, 30)[0]) == 2)


def test_round_robin(strict, two):
    strict.apply("DestinationRule", "orders", {"host": "orders", "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}}})
    _, order = count(strict, 40)
    assert all(a != b for a, b in zip(order, order[1:])), order


@pytest.mark.parametrize("lb", ["RANDOM", "LEAST_REQUEST"])
def test_both_are_used(strict, two, lb):
    strict.apply("DestinationRule", "orders", {"host": "orders", "trafficPolicy": {"loadBalancer": {"simple": lb}}})
    seen, _ = count(strict, 400)
    assert set(seen) == {"v1", "v2"} and within_5_sigma(seen["v1"], 400, 0.5), seen


def test_least_request_avoids_the_busy(strict, two):
    """With 40 connections of this process held open to one of them, new ones go mostly to the other."""
    code = """
import collections, socket
held = []
def dial():
    s = socket.create_connection(("orders", 80), 20)
    s.sendall(b"GET /who HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return s, s.recv(4096).rsplit(b"\\r\\n\\r\\n", 1)[-1].decode().strip()
for _ in range(400):
    s, who = dial()
    if who == "v1" and len(held) < 40: held.append(s)
    else: s.close()
    if len(held) == 40: break
seen = collections.Counter()
for _ in range(200):
    s, who = dial(); seen[who] += 1; s.close()
print(len(held), seen["v1"], seen["v2"])
"""
    r = strict.run(["/usr/bin/python3", "-c", code], service="web", timeout=60)
    held, v1, v2 = map(int, r.text.split())
    assert held >= 10 and v1 < v2 / 2, r  # a fair coin would give 100 each; two choices almost never the busy one


def test_subset_that_nobody_is_in(strict, two):
    strict.apply("VirtualService", "orders", {"hosts": ["orders"], "tcp": [{"route": [
        {"destination": {"host": "orders", "subset": "v3"}}]}]})
    seen, _ = count(strict, 5)
    assert set(seen) == {"ConnectionRefusedError"}, seen


def test_fail_over_before_the_application_hears_of_it(strict, servers):
    """A static endpoint that refuses and one that answers: every connection succeeds, blocking and non-blocking."""
    nginx = servers(strict).nginx("real")
    strict.wait_endpoints("real", 1)
    dead = strict.port()
    strict.apply("ServiceEntry", "mixed", {
        "hosts": ["mixed"], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": 80, "name": "tcp", "protocol": "TCP"}],
        "subjectAltNames": ["spiffe://cluster.local/ns/default/sa/real"],
        "endpoints": [{"address": "127.0.0.1", "ports": {"tcp": port}, "labels": {"security.istio.io/tlsMode": "istio"}}
                      for port in (dead, nginx.port)]})
    strict.apply("DestinationRule", "mixed", {"host": "mixed", "trafficPolicy": {
        "loadBalancer": {"simple": "ROUND_ROBIN"}, "connectionPool": {"tcp": {"connectTimeout": "2s"}}}})
    seen, _ = count(strict, 40, "mixed")
    assert seen == {"nginx": 40}, seen
    code = """
import asyncio
async def one():
    r, w = await asyncio.open_connection("mixed", 80)
    w.write(b"GET /who HTTP/1.0\\r\\n\\r\\n")
    data = await r.read(); w.close()
    return b"nginx" in data
async def main(): print(sum(await asyncio.gather(*(one() for _ in range(40)))))
asyncio.run(main())
"""
    r = strict.run(["/usr/bin/python3", "-c", code], service="web")
    assert r.text == "40\n", r


def test_connect_timeout_moves_on(strict, servers, netns):
    """An endpoint that says nothing at all (a full backlog) costs connectTimeout, then the other one answers."""
    nginx = servers(strict).nginx("real")
    strict.wait_endpoints("real", 1)
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    full = [socket.socket() for _ in range(3)]
    for s in full:
        s.setblocking(False)
        s.connect_ex(hole.getsockname())
    time.sleep(0.1)
    strict.apply("ServiceEntry", "mixed", {
        "hosts": ["mixed"], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": 80, "name": "tcp", "protocol": "TCP"}],
        "subjectAltNames": ["spiffe://cluster.local/ns/default/sa/real"],
        "endpoints": [{"address": "127.0.0.1", "ports": {"tcp": port}, "labels": {"security.istio.io/tlsMode": "istio"}}
                      for port in (hole.getsockname()[1], nginx.port)]})
    strict.apply("DestinationRule", "mixed", {"host": "mixed", "trafficPolicy": {
        "loadBalancer": {"simple": "ROUND_ROBIN"}, "connectionPool": {"tcp": {"connectTimeout": "0.3s"}}}})
    began = time.monotonic()
    seen, _ = count(strict, 4, "mixed")
    assert seen == {"nginx": 4}, seen
    assert 0.5 < time.monotonic() - began < 6
    for s in [hole, *full]:
        s.close()


def test_every_endpoint_down_is_refused(strict, two):
    assert sum(count(strict, 2)[0].values()) == 2
    for nginx in two:
        nginx.process.kill()
    strict.wait_endpoints("orders", 0, 3)
    seen, _ = count(strict, 3)
    assert seen == {"ConnectionRefusedError": 3}, seen


def test_a_hard_coded_address_of_a_service_entry(strict, servers):
    """connect() to one of `addresses` means the service: a program with an address in it is meshed unchanged."""
    nginx = servers(strict).nginx("orders", who="meshed")
    strict.apply("ServiceEntry", "orders", {
        "hosts": ["orders"], "addresses": ["192.0.2.10"], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": 8000, "name": "tcp", "protocol": "TCP", "targetPort": nginx.port}],
        "workloadSelector": {"labels": {"app": "orders"}}})
    wait_until("the address means the service",
               lambda: strict.curl("http://192.0.2.10:8000/who", "--connect-timeout", "3").text == "meshed\n")


def test_ports_of_a_service(strict, servers):
    """80 means the main port; a number the endpoint listens on means itself; anything else is refused."""
    nginx = servers(strict).nginx("orders")
    assert strict.curl("http://orders/who").text == "nginx\n"
    assert strict.curl(f"http://orders:{nginx.port}/who").text == "nginx\n"
    assert strict.curl("http://orders:81/who").code == 7


def test_two_clients_at_once_keep_their_counts(strict, two):
    strict.apply("VirtualService", "orders", split(50, 50))
    results = []
    threads = [threading.Thread(target=lambda: results.append(count(strict, 200)[0])) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(results) == 3
    for seen in results:
        assert within_5_sigma(seen["v1"], 200, 0.5) and sum(seen.values()) == 200, seen
