"""How many connections there were on a loopback, and how many of them were TLS: tcpdump, told to keep only SYNs and
ClientHellos, so that no load is too much for it."""
import os
import struct
import subprocess

from proc import enter_netns, wait_until

# A SYN without ACK, or a segment that begins with a handshake record with a ClientHello.
V4 = "(tcp[13] & 0x12 = 2) or (tcp[(tcp[12] & 0xf0) >> 2] = 22 and tcp[((tcp[12] & 0xf0) >> 2) + 5] = 1)"
V6 = ("(ip6[6] = 6 and ((ip6[53] & 0x12 = 2) or "
      "(ip6[40 + ((ip6[52] & 0xf0) >> 2)] = 22 and ip6[40 + ((ip6[52] & 0xf0) >> 2) + 5] = 1)))")


class Wire:
    """with Wire(netns, folder) as w: ...; then w.connections and w.tls."""

    def __init__(self, netns, folder):
        self.netns, self.path, self.log = netns, f"{folder}/lo.pcap", f"{folder}/tcpdump.log"
        self.connections = self.tls = 0

    def __enter__(self):
        with open(self.log, "w") as log:
            self.tcpdump = subprocess.Popen(
                ["tcpdump", "-i", "lo", "-s", "128", "-B", "65536", "--immediate-mode", "-U", "-Z", "root", "-w", self.path,
                 f"{V4} or {V6}"],
                stderr=log, preexec_fn=lambda: enter_netns(self.netns))
        wait_until("tcpdump listens", lambda: "listening on" in open(self.log).read())
        return self

    def __exit__(self, *_):
        self.tcpdump.terminate()
        self.tcpdump.wait()
        if os.path.exists(self.path):
            self._count()

    def _count(self):
        begun, hello = set(), set()
        with open(self.path, "rb") as f:
            data = f.read()
        at = 24
        while at + 16 <= len(data):
            kept = struct.unpack("<I", data[at + 8:at + 12])[0]
            packet, at = data[at + 16:at + 16 + kept], at + 16 + kept
            v4 = packet[12:14] == b"\x08\x00"
            tcp = 14 + ((packet[14] & 15) * 4 if v4 else 40)
            flow = packet[tcp - (8 if v4 else 32):tcp + 4]
            if packet[tcp + 13] & 2:
                self.connections += 1
                begun.add(flow)
                hello.discard(flow)
            elif flow in begun and flow not in hello:
                hello.add(flow)
                self.tls += 1
