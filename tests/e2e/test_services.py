"""Daemons of every age as servers, with their own clients, STRICT on both ends."""
import os
import re
import shutil
import subprocess

import pytest

from proc import wait_until
from servers import certificate, folder, pattern, write

PYTHON = "/usr/bin/python3"


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)
    return data


def get(path):
    with open(path, "rb") as f:
        return f.read()


def test_memcached(strict, servers):
    """Threads of libevent, connections handed between them; the client is Python."""
    port = strict.port()
    servers(strict).start(["memcached", "-u", "root", "-l", "127.0.0.1", "-p", port, "-t", "4", "-I", "8m"], "memcached", port)
    code = f"""
import random, socket, threading
def work(seed):
    r = random.Random(seed); s = socket.create_connection(("memcached", {port}), 20); f = s.makefile("rwb")
    for n in range(60):
        data = r.randbytes(r.choice([0, 1, 100, 5000, 300000])); key = b"%d-%d" % (seed, n)
        f.write(b"set %s 0 0 %d\\r\\n%s\\r\\n" % (key, len(data), data)); f.flush(); assert f.readline() == b"STORED\\r\\n"
        f.write(b"get %s\\r\\n" % key); f.flush()
        assert f.readline() == b"VALUE %s 0 %d\\r\\n" % (key, len(data)); assert f.read(len(data)) == data; assert f.read(7) == b"\\r\\nEND\\r\\n"
    done.append(seed)
done = []; t = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[x.start() for x in t]; [x.join() for x in t]; print(len(done))
"""
    r = strict.run([PYTHON, "-c", code], service="web", timeout=60)
    assert r.text == "8\n", r
    r = strict.run(["memcstat", f"--servers=memcached:{port}"], service="web")
    assert re.search(r"cmd_set: 480\b", r.text), r


INETD = """
127.0.0.1:{echo} stream tcp nowait root /bin/cat cat
127.0.0.1:{web} stream tcp nowait root {script} web
"""


def test_inetd(strict, servers):
    """openbsd-inetd accepts and runs a program with the connection as its stdin, stdout and stderr."""
    echo, web = strict.port(), strict.port()
    script = write(f"{strict.dir}/web", r"""#!/bin/sh
        read line
        printf "HTTP/1.0 200 OK\r\n\r\n"; echo "$line"; head -c 100000 /dev/zero
        """, 0o755)
    conf = write(f"{strict.dir}/inetd.conf", INETD.format(echo=echo, web=web, script=script))
    servers(strict).start(["inetd", "-d", "-i", conf], "inetd", web)
    r = strict.curl(f"http://inetd:{web}/x")
    assert r.out == b"GET /x HTTP/1.1\r\n" + bytes(100000), r
    code = f"""
import socket
for n in range(10):
    s = socket.create_connection(("inetd", {echo}), 10); s.sendall(b"hello %d" % n); s.shutdown(1)
    b = b""
    while d := s.recv(100): b += d
    assert b == b"hello %d" % n, b
print("ok")
"""
    r = strict.run([PYTHON, "-c", code], service="web")
    assert r.text == "ok\n", r


def test_rsync_daemon(strict, servers):
    """Forks per connection; the client writes and reads at once."""
    d, port = folder(f"{strict.dir}/rsync"), strict.port()
    for n, size in enumerate((0, 1, 70000, 9 << 20)):
        put(f"{folder(f'{d}/{n}')}/f", pattern(size, n))
    conf = write(f"{strict.dir}/rsyncd.conf", f"""\
        use chroot = no
        uid = root
        gid = root
        [m]
        path = {d}
        read only = no
        """)
    servers(strict).start(["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={conf}"], "rsync", port)
    at = f"rsync://rsync:{port}/m/"
    assert strict.run(["rsync", "-a", at, f"{strict.dir}/there"], service="web").code == 0
    assert strict.run(["rsync", "-az", f"{strict.dir}/there/3/f", f"{at}up"], service="web").code == 0
    assert subprocess.run(["diff", "-r", f"{strict.dir}/there/3", f"{d}/3"]).returncode == 0
    assert get(f"{d}/up") == pattern(9 << 20, 3)


@pytest.mark.full
def test_vsftpd(strict, servers):
    """A server that clones for each connection, closes its root, lowers its limits and changes its uid before it speaks."""
    d, port = folder(f"{strict.dir}/ftp"), strict.port()
    put(f"{d}/f", pattern(6 << 20))
    conf = write(f"{strict.dir}/vsftpd.conf", f"""\
        listen=YES
        listen_address=127.0.0.1
        listen_port={port}
        background=NO
        anonymous_enable=YES
        local_enable=NO
        anon_root={d}
        secure_chroot_dir={folder(f"{strict.dir}/empty")}
        xferlog_enable=NO
        seccomp_sandbox=NO
        no_anon_password=YES
        """)
    servers(strict).start(["vsftpd", conf], "ftp", port)
    code = f"""
import ftplib, io
f = ftplib.FTP(); f.connect("ftp", {port}, 10); f.login()
assert "drwx" in f.sendcmd("STAT /"); assert f.size("f") == 6 << 20
f.voidcmd("TYPE I")
try: f.retrbinary("RETR f", print)
except ConnectionRefusedError: print("refused")
f.quit()
"""
    r = strict.run([PYTHON, "-c", code], service="web")
    # The listener of a data connection is opened in an empty root, where weftd cannot be told of it.
    assert r.text == "refused\n", r
    assert "service has no endpoint for this port" in strict.logs()


@pytest.mark.full
def test_mosquitto(strict, servers):
    """A broker, a subscriber that stays, and publishers."""
    port = strict.port()
    conf = write(f"{strict.dir}/mosquitto.conf", f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
    servers(strict).start(["mosquitto", "-c", conf], "mqtt", port)
    sub = strict.popen(["mosquitto_sub", "-h", "mqtt", "-p", port, "-t", "a/#", "-C", "21", "-q", "1"], service="web", name="sub")
    code = lambda: strict.run(["mosquitto_pub", "-h", "mqtt", "-p", port, "-t", "a/ready", "-m", "r", "-q", "1", "-r"], service="pub").code
    assert code() == 0
    wait_until("the subscriber is there", lambda: sub.text())
    for n in range(20):
        assert strict.run(["mosquitto_pub", "-h", "mqtt", "-p", port, "-t", "a/b", "-m", f"message {n}", "-q", "1"], service="pub").code == 0
    assert sub.wait() == 0
    assert sub.text() == "r\n" + "".join(f"message {n}\n" for n in range(20))


@pytest.mark.full
def test_beanstalkd(strict, servers):
    port = strict.port()
    servers(strict).start(["beanstalkd", "-l", "127.0.0.1", "-p", port], "queue", port)
    code = f"""
import socket
s = socket.create_connection(("queue", {port}), 10); f = s.makefile("rwb")
for n in range(50):
    f.write(b"put 0 0 9 %d\\r\\n%s\\r\\n" % (n * 1000, b"x" * n * 1000)); f.flush(); assert f.readline().startswith(b"INSERTED")
for n in range(50):
    f.write(b"reserve\\r\\n"); f.flush(); w = f.readline().split()
    assert int(w[2]) == n * 1000 and f.read(n * 1000 + 2) == b"x" * n * 1000 + b"\\r\\n"
print("ok")
"""
    assert strict.run([PYTHON, "-c", code], service="web").text == "ok\n"


@pytest.mark.full
def test_dns_over_tcp(strict, servers):
    """bind9 and dnsmasq answer, dig asks over TCP: named's own event loop (libuv), threads and a client without libc's resolver."""
    port, other = strict.port(), strict.port()
    d = folder(f"{strict.dir}/named", 0o777)
    zone = write(f"{d}/zone", "$TTL 60\n@ SOA ns.t. me.t. 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n"
                 + "".join(f"h{n} A 10.0.{n // 250}.{n % 250}\n" for n in range(3000)))
    conf = write(f"{d}/conf", f"""
        options {{ directory "{d}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; pid-file "{d}/pid";
          session-keyfile "{d}/key"; allow-transfer {{ any; }}; dnssec-validation no; }};
        controls {{ }};
        zone "t" {{ type master; file "{zone}"; }};
        """)
    servers(strict).start(["named", "-g", "-c", conf, "-n", "2"], "dns", port)
    r = strict.run(["dig", "+tcp", "+short", "-p", port, "@127.0.0.1", "h77.t"], service="web")
    assert r.text == "10.0.0.77\n", r
    r = strict.run(["dig", "+tcp", "-p", port, "@127.0.0.1", "t", "axfr", "+onesoa"], service="web")
    assert len(re.findall(r"(?m)^h\d+\.t\.", r.text)) == 3000, r
    servers(strict).start(["dnsmasq", "-k", "-p", other, "--listen-address=127.0.0.1", "--bind-interfaces", "-u", "root", "-C", "/dev/null", "-R",
                           "-h", "--address=/x.test/10.1.2.3", f"--pid-file={strict.dir}/dnsmasq.pid"], "masq", other)
    r = strict.run(["dig", "+tcp", "+short", "-p", other, "@127.0.0.1", "x.test"], service="web")
    assert r.text == "10.1.2.3\n", r


@pytest.mark.full
def test_openssh(strict, servers):
    """sshd re-execs itself for each connection, changes uid and puts a filter on its system calls."""
    port, d = strict.port(), folder(f"{strict.dir}/ssh", 0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{d}/{name}"], check=True)
    shutil.copy(f"{d}/user.pub", f"{d}/keys")
    os.makedirs("/run/sshd", exist_ok=True)
    conf = write(f"{d}/conf", f"""\
        ListenAddress 127.0.0.1:{port}
        HostKey {d}/host
        PidFile {d}/pid
        AuthorizedKeysFile {d}/keys
        StrictModes no
        UsePAM no
        PermitRootLogin yes
        Subsystem sftp internal-sftp
        """)
    p = servers(strict).start(["/usr/sbin/sshd", "-D", "-e", "-f", conf], "ssh", port)
    options = ["-F", "none", "-i", f"{d}/user", "-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={d}/known", "-o", "BatchMode=yes"]
    data = pattern(3 << 20)
    r = strict.run(["ssh", *options, "-p", port, "root@ssh", "cat; echo end >&2; exit 3"], service="web", input=data)
    assert (r.out, r.code) == (data, 3) and b"end\n" in r.err, (r.err, p.text())
    put(f"{strict.dir}/up", data)
    r = strict.run(["scp", *options, "-q", "-P", port, f"{strict.dir}/up", f"root@ssh:{strict.dir}/down"], service="web")
    assert r.code == 0 and get(f"{strict.dir}/down") == data, (r, p.text())


@pytest.mark.full
def test_git_daemon_and_svnserve(strict, servers):
    """A daemon that runs a program for each connection, and one with threads."""
    port, other, d = strict.port(), strict.port(), folder(f"{strict.dir}/repos")
    git = lambda *w, **kw: strict.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.version=2", *w], timeout=40, **kw)
    put(f"{folder(f'{d}/r')}/f", pattern(4 << 20))
    for words in (("init", "-q"), ("add", "f"), ("commit", "-qm", "one")):
        assert git(*words, shim=False, cwd=f"{d}/r").code == 0
    servers(strict).start(["git", "daemon", "--export-all", f"--base-path={d}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"], "git", port)
    r = git("clone", "-q", f"git://git:{port}/r", f"{strict.dir}/clone", service="web")
    assert r.code == 0 and get(f"{strict.dir}/clone/f") == get(f"{d}/r/f"), r
    assert subprocess.run(["svnadmin", "create", f"{d}/s"]).returncode == 0
    write(f"{d}/s/conf/svnserve.conf", "[general]\nanon-access = write\n")
    servers(strict).start(["svnserve", "-d", "--foreground", "-T", "--listen-host", "127.0.0.1", "--listen-port", other, "-r", d], "svn", other)
    assert strict.run(["svn", "import", "-q", "-m", "one", f"{d}/r/f", f"svn://svn:{other}/s/f"], service="web").code == 0
    assert strict.run(["svn", "cat", f"svn://svn:{other}/s/f"], service="web").out == get(f"{d}/r/f")


@pytest.mark.full
def test_ngircd(strict, servers):
    port = strict.port()
    conf = write(f"{strict.dir}/ngircd.conf", f"""\
        [Global]
        Name = irc.t
        Listen = 127.0.0.1
        Ports = {port}
        ServerUID = root
        ServerGID = root
        Info = t
        AdminInfo1 = a
        AdminInfo2 = b
        AdminEMail = a@b
        [Limits]
        MaxConnectionsIP = 0
        [Options]
        DNS = no
        Ident = no
        PAM = no
        """)
    servers(strict).start(["ngircd", "-n", "-f", conf], "irc", port)
    code = f"""
import socket
def user(n):
    s = socket.create_connection(("irc", {port}), 20); f = s.makefile("rw", newline="\\r\\n")
    f.write(f"NICK u{{n}}\\r\\nUSER u{{n}} 0 * :u\\r\\nJOIN #c\\r\\n"); f.flush()
    while " 366 " not in f.readline(): pass
    return f
a, b = user(1), user(2)
for n in range(20):
    a.write(f"PRIVMSG #c :hello {{n}}\\r\\n"); a.flush()
    while "PRIVMSG" not in (l := b.readline()): pass
    assert l.endswith(f":hello {{n}}\\r\\n"), l
print("ok")
"""
    r = strict.run([PYTHON, "-c", code], service="web")
    assert r.text == "ok\n", r


@pytest.mark.full
def test_slapd(strict, servers):
    """A listener thread and a pool of threads; ldapadd and ldapsearch."""
    port, d = strict.port(), folder(f"{strict.dir}/ldap")
    conf = write(f"{d}/conf", f"""\
        include /etc/ldap/schema/core.schema
        pidfile {d}/pid
        modulepath /usr/lib/ldap
        moduleload back_mdb
        database mdb
        suffix dc=t
        rootdn cn=a,dc=t
        rootpw x
        directory {folder(f'{d}/db')}
        """)
    servers(strict).start(["slapd", "-d", "0", "-f", conf, "-h", f"ldap://127.0.0.1:{port}"], "ldap", port)
    ldif = "dn: dc=t\nobjectClass: dcObject\nobjectClass: organization\no: t\ndc: t\n\n" + "".join(
        f"dn: cn=p{n},dc=t\nobjectClass: person\ncn: p{n}\nsn: s{n}\ndescription: {'x' * 500}\n\n" for n in range(300))
    at = ["-x", "-H", f"ldap://ldap:{port}", "-D", "cn=a,dc=t", "-w", "x"]
    r = strict.run(["ldapadd", *at], service="web", input=ldif.encode())
    assert r.code == 0, r
    r = strict.run(["ldapsearch", *at, "-LLL", "-b", "dc=t", "objectClass=person", "sn"], service="web")
    assert len(re.findall(r"(?m)^sn: s\d+$", r.text)) == 300, r


@pytest.mark.full
def test_iperf3(strict, servers):
    """Control and data connections, both directions, several streams."""
    port = strict.port()
    servers(strict).start(["iperf3", "-s", "-B", "127.0.0.1", "-p", port], "iperf", port)
    for words in ([], ["-R"], ["-P", "4"], ["--bidir"], ["-Z"]):
        r = strict.run(["iperf3", "-c", "iperf", "-4", "-p", port, "-n", "50M", *words], service="web")
        assert r.code == 0 and "iperf Done" in r.text, r


@pytest.mark.full
def test_siege(strict, servers):
    servers(strict).nginx("orders")
    r = strict.run(["siege", "-b", "-c", "10", "-r", "50", "-q", "-j", "http://orders/who"], service="web", env={"HOME": strict.dir})
    assert re.search(r'"transactions":\s+500,', r.text) and re.search(r'"failed_transactions":\s+0,', r.text), r


@pytest.mark.full
def test_mariadb(strict, servers):
    """A thread per connection, and a pool of threads around epoll."""
    port, d = strict.port(), f"{strict.dir}/maria"
    subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={d}", "--user=root",
                    "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, capture_output=True, cwd=strict.dir)
    servers(strict).start(["mariadbd", "--no-defaults", f"--datadir={d}", "--user=root", "--bind-address=127.0.0.1", f"--port={port}",
                           f"--socket={d}/sock", f"--pid-file={d}/pid", "--innodb-flush-log-at-trx-commit=0",
                           "--thread-handling=pool-of-threads", "--max-allowed-packet=64M"], "maria", port)
    sql = lambda text: strict.run(["mariadb", "--no-defaults", "-h", "maria", "-P", port, "-u", "root", "--skip-ssl", "-N",
                                   "--max-allowed-packet=64M"], service="web", input=text.encode())
    r = sql("create user x@'%'; grant all on *.* to x@'%'; create database d; use d;"
            "create table t (n int, s longtext); insert into t values (1, repeat('abc', 4000000)); select s from t;")
    assert r.text == "abc" * 4000000 + "\n", r
    code = f"""
import pymysql, threading
def work(n):
    c = pymysql.connect(host="maria", port={port}, user="x", database="d", autocommit=True); k = c.cursor()
    for i in range(50):
        k.execute("select %s, repeat('x', %s)", (i, i * 997)); assert k.fetchall() == ((i, 'x' * (i * 997)),)
    c.close(); done.append(n)
done = []; t = [threading.Thread(target=work, args=(n,)) for n in range(6)]; [x.start() for x in t]; [x.join() for x in t]; print(len(done))
"""
    r = strict.run([PYTHON, "-c", code], service="web")
    assert r.text == "6\n", r


@pytest.mark.full
def test_dovecot(strict, servers):
    """imap-login, of a uid of its own, accepts, does TLS with the client, and goes on between it and an imap process. A
    service of several uids is one WorkloadGroup for each."""
    cert, key = certificate(f"{strict.dir}/own", name="imap")
    for user in ("root", "dovenull", "nobody"):
        strict.apply("WorkloadGroup", f"imap-{user}", {"metadata": {"labels": {"app": "imap"}}, "selectors": [f"unix:user:{user}"]})
    port, d = strict.port(), folder(f"{strict.dir}/dovecot")
    folder(f"{d}/home", 0o777)
    conf = write(f"{d}/conf", f"""
        base_dir = {d}/run
        state_dir = {d}/state
        log_path = /dev/stderr
        protocols = imap
        ssl = required
        ssl_cert = <{cert}
        ssl_key = <{key}
        disable_plaintext_auth = no
        listen = 127.0.0.1
        mail_location = maildir:{d}/home/Maildir
        first_valid_uid = 1
        import_environment = LD_PRELOAD WEFT_SERVICE WEFT_SOCKET WEFT_LOG
        service imap-login {{
          chroot =
          inet_listener imap {{
            port = {port}
          }}
          inet_listener imaps {{
            port = 0
          }}
        }}
        passdb {{
          driver = static
          args = password=x
        }}
        userdb {{
          driver = static
          args = uid=nobody gid=nogroup home={d}/home
        }}
        """)
    servers(strict).start(["dovecot", "-F", "-c", conf], "imap", port)
    code = f"""
import imaplib, ssl
c = imaplib.IMAP4("imap", {port}, timeout=10); c.starttls(ssl.create_default_context(cafile="{cert}")); c.login("a", "x"); c.select()
for n in range(3): assert c.append("INBOX", None, None, b"Subject: %d\\r\\n\\r\\n" % n + b"x" * 70000)[0] == "OK"
c.select(); assert c.search(None, "ALL")[1] == [b"1 2 3"], c.search(None, "ALL"); assert len(c.fetch("2", "(RFC822)")[1][0][1]) > 70000
c.logout(); print("ok")
"""
    r = strict.run([PYTHON, "-c", code], service="web")
    assert r.text == "ok\n", r


def test_openssl_as_server_and_client(strict, servers):
    port = strict.port()
    cert, key = certificate(f"{strict.dir}/own", name="ssl")
    data = put(f"{strict.dir}/f", pattern(1 << 20))
    servers(strict).start(["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-WWW"], "ssl", port)
    assert strict.curl(f"https://ssl:{port}/f", "--cacert", cert).out == data
    r = strict.run(["openssl", "s_client", "-quiet", "-connect", f"ssl:{port}"], service="web", input=b"GET /f HTTP/1.0\r\n\r\n")
    assert r.out.endswith(data), r


@pytest.mark.full
def test_netcat(strict, servers):
    port = strict.port()
    data = put(f"{strict.dir}/in", pattern(3 << 20))
    servers(strict).start(["sh", "-c", f"exec nc.openbsd -l -N 127.0.0.1 {port} <in"], "nc", port)
    assert strict.run(["nc.openbsd", "-d", "nc", port], service="web").out == data


@pytest.mark.full
def test_busy_small_web_servers(strict, servers):
    s, d = servers(strict), folder(f"{strict.dir}/www")
    data = put(f"{d}/f", pattern(2 << 20))
    for name, argv in (("mini", ["mini_httpd", "-D", "-d", d, "-p", "{port}", "-h", "127.0.0.1", "-u", "root"]),
                       ("webfs", ["webfsd", "-F", "-r", d, "-p", "{port}", "-i", "127.0.0.1"])):
        port = strict.port()
        s.start([a.format(port=port) for a in argv], name, port)
        assert strict.curl(f"http://{name}:{port}/f").out == data


@pytest.mark.full
@pytest.mark.parametrize("name", ["caddy", "nats-server"])
def test_go_programs_are_refused_by_name(strict, name):
    """Go makes its system calls itself, also where it is linked with libc: `weft run` says so in one line and does not start them."""
    r = strict.weft("run", "--service", "x", "--", name, "--help")
    assert r.code != 0 and len(r.err.decode().strip().split("\n")) == 1 and "written in Go" in r.err.decode(), r
