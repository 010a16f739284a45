"""PeerAuthentication and AuthorizationPolicy, live from Redis; what is wrong is refused whole, what was good stays."""
import json
import time

import pytest

from proc import wait_until
from test_bad_input import speaks_plain

ALLOW_WEB = {"selector": {"matchLabels": {"app": "orders"}}, "action": "ALLOW",
             "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/web"]}}]}]}
DENY_WEB = {"selector": {"matchLabels": {"app": "orders"}}, "action": "DENY",
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/web"]}}]}]}


@pytest.fixture
def orders(mesh, servers):
    nginx = servers(mesh).nginx("orders")
    assert mesh.curl("http://orders/who").text == "nginx\n"
    return nginx


def answers(mesh, url="http://orders/who", **kw):
    return mesh.curl(url, **kw).text == "nginx\n"


def becomes(mesh, what, condition, seconds=3):
    wait_until(what, condition, seconds, 0.02)


# --- PeerAuthentication ---

@pytest.mark.parametrize("name, doc", [
    ("istio-system/any-name", {"mtls": {"mode": "STRICT"}}),
    ("any-name", {"mtls": {"mode": "STRICT"}}),
    ("default/any-name", {"mtls": {"mode": "STRICT"}}),
    ("by-label", {"selector": {"matchLabels": {"app": "orders"}}, "mtls": {"mode": "STRICT"}}),
])
def test_strict_in_every_scope(mesh, orders, name, doc):
    assert speaks_plain(orders.port)
    mesh.apply("PeerAuthentication", name, doc)
    becomes(mesh, "plaintext is refused", lambda: not speaks_plain(orders.port))
    assert answers(mesh)
    mesh.redis_del("PeerAuthentication", name)
    becomes(mesh, "plaintext is let in again", lambda: speaks_plain(orders.port))


def test_the_narrower_scope_wins(mesh, orders):
    mesh.strict()
    becomes(mesh, "plaintext is refused", lambda: not speaks_plain(orders.port))
    mesh.apply("PeerAuthentication", "default/ns", {"mtls": {"mode": "PERMISSIVE"}})
    becomes(mesh, "the namespace lets it in", lambda: speaks_plain(orders.port))
    mesh.apply("PeerAuthentication", "default/w", {"selector": {"matchLabels": {"app": "orders"}},
                                                   "mtls": {"mode": "STRICT"}})
    becomes(mesh, "the workload refuses it", lambda: not speaks_plain(orders.port))
    mesh.apply("PeerAuthentication", "default/w", {
        "selector": {"matchLabels": {"app": "orders"}}, "mtls": {"mode": "STRICT"},
        "portLevelMtls": {str(orders.port): {"mode": "PERMISSIVE"}}})
    becomes(mesh, "its port lets it in", lambda: speaks_plain(orders.port))
    mesh.apply("PeerAuthentication", "default/w", {
        "selector": {"matchLabels": {"app": "orders"}}, "mtls": {"mode": "UNSET"},
        "portLevelMtls": {str(orders.port): {"mode": "STRICT"}}})
    becomes(mesh, "its port refuses it", lambda: not speaks_plain(orders.port))


def test_another_namespace_is_another_scope(mesh, orders):
    mesh.apply("PeerAuthentication", "shop/default", {"mtls": {"mode": "STRICT"}})
    time.sleep(0.3)  # something that must not happen
    assert speaks_plain(orders.port)


# --- AuthorizationPolicy ---

def test_deny_and_its_removal_at_the_next_connection(mesh, orders):
    mesh.apply("AuthorizationPolicy", "no-web", DENY_WEB)
    becomes(mesh, "web is denied", lambda: not answers(mesh))
    assert answers(mesh, service="other")
    mesh.redis_del("AuthorizationPolicy", "no-web")
    becomes(mesh, "web is let in", lambda: answers(mesh))


@pytest.mark.seconds(120)
def test_a_change_is_in_force_within_200_ms(mesh, orders, servers):
    """Twenty times: written, 200 ms later a connection of a client that runs all the time must obey."""
    client = mesh.popen(["/usr/bin/python3", "-u", "-c", """
import socket, sys
for line in sys.stdin:
    try:
        s = socket.create_connection(("orders", 80), 5)
        s.sendall(b"GET /who HTTP/1.0\\r\\n\\r\\n")
        print("in" if b"nginx" in s.makefile("rb").read() else "out", flush=True)
    except OSError as e:
        print("out", e, flush=True)
"""], service="web", stdin=-1, name="client")
    asked = 0

    def ask():
        nonlocal asked
        client.popen.stdin.write(b"?\n")
        client.popen.stdin.flush()
        asked += 1
        return wait_until("an answer", lambda: (lambda l: l[asked - 1] if len(l) >= asked and client.text().endswith("\n")
                                                else None)(client.text().splitlines()))
    assert ask() == "in"
    late = []
    for n in range(20):
        deny = n % 2 == 0
        if deny:
            mesh.redis_set("AuthorizationPolicy", "no-web", DENY_WEB)
        else:
            mesh.redis_del("AuthorizationPolicy", "no-web")
        time.sleep(0.2)
        if ask().startswith("in") == deny:
            late.append(n)
    client.popen.stdin.close()
    assert late == []


def test_allow_lets_only_those_in(mesh, orders):
    mesh.apply("AuthorizationPolicy", "only-web", ALLOW_WEB)
    becomes(mesh, "other is denied", lambda: not answers(mesh, service="other"))
    assert answers(mesh)
    assert not speaks_plain(orders.port)  # no certificate, no principal


def test_deny_wins_over_allow(mesh, orders):
    mesh.apply("AuthorizationPolicy", "only-web", ALLOW_WEB)
    mesh.apply("AuthorizationPolicy", "no-web", DENY_WEB)
    becomes(mesh, "web is denied", lambda: not answers(mesh))


@pytest.mark.parametrize("doc, allowed", [
    ({}, False),  # ALLOW without rules: nobody
    ({"rules": [{}]}, True),  # a rule that matches all
    ({"action": "DENY", "rules": [{}]}, False),
    ({"rules": [{"from": [{"source": {"principals": ["*"]}}]}]}, True),
    ({"rules": [{"from": [{"source": {"namespaces": ["default"]}}]}]}, True),
    ({"rules": [{"from": [{"source": {"namespaces": ["shop"]}}]}]}, False),
    ({"rules": [{"from": [{"source": {"ipBlocks": ["127.0.0.0/8"]}}]}]}, True),
    ({"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}]}, False),
    ({"action": "DENY", "rules": [{"from": [{"source": {"notPrincipals": ["*/sa/web"]}}]}]}, True),
])
def test_forms(mesh, orders, doc, allowed):
    mesh.apply("AuthorizationPolicy", "form", doc)
    becomes(mesh, f"allowed {allowed}", lambda: answers(mesh) == allowed)
    time.sleep(0.25)
    assert answers(mesh) == allowed


def test_a_deny_without_rules_is_refused_as_istio_does(mesh, orders):
    mesh.redis_set("AuthorizationPolicy", "form", {"action": "DENY"})
    assert mesh.wait_status("AuthorizationPolicy", "form", False)["errors"][0]["path"] == "rules"
    assert answers(mesh)


def test_ports_are_the_workloads(mesh, orders):
    mesh.apply("AuthorizationPolicy", "port", {"action": "DENY", "rules": [
        {"to": [{"operation": {"ports": [str(orders.port)]}}]}]})
    becomes(mesh, "its port is denied", lambda: not answers(mesh))
    mesh.apply("AuthorizationPolicy", "port", {"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["1"]}}]}]})
    becomes(mesh, "another port is not", lambda: answers(mesh))


def test_dry_run_changes_nothing(mesh, orders):
    mesh.apply("AuthorizationPolicy", "dry", {
        "metadata": {"annotations": {"istio.io/dry-run": "true"}}, "spec": {"action": "DENY", "rules": [{}]}})
    time.sleep(0.3)
    assert answers(mesh)


# --- documents ---

def test_status_keys(mesh, orders):
    good = mesh.apply("AuthorizationPolicy", "no-web", DENY_WEB)
    assert good["accepted"] is True and good["errors"] == [] and good["revision"] == good["inForce"]
    mesh.redis_set("AuthorizationPolicy", "no-web", {"action": "PERHAPS", "rules": [{"from": [{"source": {"who": [1]}}]}]})
    bad = mesh.wait_status("AuthorizationPolicy", "no-web", False)
    assert bad["revision"] != good["revision"] and bad["inForce"] == good["revision"]
    paths = {e["path"] for e in bad["errors"]}
    assert any("action" in p for p in paths) and any("who" in p for p in paths), bad
    assert all(e["message"] for e in bad["errors"])


def test_the_last_good_version_stays_in_force(mesh, orders):
    mesh.apply("AuthorizationPolicy", "no-web", DENY_WEB)
    becomes(mesh, "web is denied", lambda: not answers(mesh))
    for text in ("{", "[]", "17", '"x"', "null", '{"action":"DENY","rules":[{"from":"x"}]}', '{"unknown":1}', ""):
        mesh.redis_set("AuthorizationPolicy", "no-web", text)
        wait_until(f"{text!r} is refused", lambda: (s := mesh.status("AuthorizationPolicy", "no-web")) and not s["accepted"]
                   and s["errors"])
        assert not answers(mesh), text
    mesh.redis_set("AuthorizationPolicy", "no-web", dict(DENY_WEB, action="ALLOW"))
    becomes(mesh, "the next good one is in force", lambda: answers(mesh))


def test_the_whole_manifest_is_a_document_too(mesh, orders):
    mesh.apply("AuthorizationPolicy", "no-web", {
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-web", "namespace": "default"}, "spec": DENY_WEB})
    becomes(mesh, "web is denied", lambda: not answers(mesh))


def test_a_manifest_of_another_kind_is_refused(mesh, orders):
    mesh.redis_set("AuthorizationPolicy", "no-web", {"kind": "PeerAuthentication", "spec": DENY_WEB})
    status = mesh.wait_status("AuthorizationPolicy", "no-web", False)
    assert "kind" in json.dumps(status["errors"])
    assert answers(mesh)


def test_redis_cli_is_the_interface(mesh, orders):
    r = mesh.run(["redis-cli", "-s", mesh.redis_path, "SET", "weft:AuthorizationPolicy:no-web", json.dumps(DENY_WEB)],
                 shim=False)
    assert r.text.strip() == "OK", r
    becomes(mesh, "web is denied", lambda: not answers(mesh))


# --- modes ---

def test_mode_off_and_back(mesh, orders):
    mesh.strict()
    becomes(mesh, "plaintext is refused", lambda: not speaks_plain(orders.port))
    mesh.apply("MeshConfig", "default", {"mode": "off"})
    becomes(mesh, "nothing is enforced", lambda: speaks_plain(orders.port))
    assert mesh.curl(orders.url + "/who").text == "nginx\n"
    mesh.apply("MeshConfig", "default", {"mode": "enforce"})
    becomes(mesh, "plaintext is refused again", lambda: not speaks_plain(orders.port))
    assert answers(mesh)


def test_weft_mode_is_a_ceiling(mesh, servers):
    nginx = servers(mesh).nginx("orders", env={"WEFT_MODE": "off"}, wait=False)
    mesh.wait_listening(nginx.port, nginx.process)
    mesh.strict()
    time.sleep(0.3)
    assert speaks_plain(nginx.port)
