"""What passes over an interface: a packet socket of our own, read by a thread."""
import socket
import struct
import threading

from proc import in_netns

ETH_P_ALL = 0x0003


class Capture:
    """with Capture("lo") as c: ...; c.flows() then has the bytes of each TCP direction, in order, once each."""

    def __init__(self, interface="lo", netns=None, ports=None):
        self.ports = set(ports) if ports else None
        with in_netns(netns):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            self.sock.bind((interface, 0))
        self.packets = []
        self.stop = False
        self.sock.settimeout(0.05)
        self.thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()
        self.sock.close()

    def _read(self):
        while True:
            try:
                data, where = self.sock.recvfrom(1 << 17)
            except socket.timeout:
                if self.stop:
                    return
                continue
            if where[2] != 4:  # PACKET_OUTGOING: on loopback each packet shows twice
                self.packets.append(data)

    def segments(self):
        """(source, source port, target, target port, flags, sequence, payload) of every TCP segment."""
        for data in self.packets:
            kind = struct.unpack("!H", data[12:14])[0]
            if kind == 0x0800 and data[23] == 6:
                head = (data[14] & 15) * 4
                total = struct.unpack("!H", data[16:18])[0]
                source, target = data[26:30], data[30:34]
                tcp = data[14 + head:14 + total] if total else data[14 + head:]
            elif kind == 0x86DD and data[20] == 6:
                source, target, tcp = data[22:38], data[38:54], data[54:]
            else:
                continue
            sport, dport, seq = struct.unpack("!HHI", tcp[:8])
            if self.ports and sport not in self.ports and dport not in self.ports:
                continue
            yield source, sport, target, dport, tcp[13], seq, tcp[(tcp[12] >> 4) * 4:]

    def flows(self):
        """{(source, port, target, port): bytes} for each direction that carried data."""
        flows, next_seq = {}, {}
        for source, sport, target, dport, flags, seq, payload in self.segments():
            key = source, sport, target, dport
            if flags & 2:  # SYN: a new connection, perhaps with ports used before
                n = 0
                while (key, n) in flows:
                    n += 1
                next_seq[key] = [(seq + 1) & 0xffffffff, n]
                flows[key, n] = bytearray()
                continue
            if not payload or key not in next_seq:
                continue
            expected, n = next_seq[key]
            fresh = (seq + len(payload) - expected) & 0xffffffff
            if 0 < fresh <= len(payload):
                flows[key, n] += payload[len(payload) - fresh:]
                next_seq[key][0] = (seq + len(payload)) & 0xffffffff
        return {k: bytes(v) for k, v in flows.items() if v}

    def all_bytes(self):
        return b"\0".join(self.flows().values())
