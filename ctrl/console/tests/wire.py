"""Frames on two cables, as long as it runs: connections to port 22 that live, and packets to others that no rule lets in.

Standard input takes a line a command: `stop` and `go` of the steady traffic.
"""
import select
import socket
import struct
import sys
import time

NIC = ("02:00:00:00:00:07", "10.5.6.7")
PEER_MAC = "02:00:00:00:00:99"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(source, destination, sport, dport, flags, seq, ack, payload=b""):
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    segment = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 65535, 0, 0) + payload
    pseudo = ends + struct.pack("!BBH", 0, 6, len(segment))
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, 6, 0) + ends
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    inward = destination == NIC[1]
    frame = (mac(NIC[0]) + mac(PEER_MAC) if inward else mac(PEER_MAC) + mac(NIC[0])) + b"\x08\x00" + head + segment
    return frame.ljust(60, b"\0")


def raw(interface):
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    end.bind((interface, 0))
    return end


inside, outside = raw(sys.argv[1]), raw(sys.argv[2])
SYN, ACK, PUSH = 2, 16, 8
CLIENTS = [(f"198.51.100.{n}", 40000 + n) for n in range(1, 9)]
steady, turn = True, 0
while True:
    if select.select([sys.stdin], [], [], 0.1)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        steady = line.strip() != "stop"
    if not steady:
        continue
    try:
        for client, port in CLIENTS:
            # Opened again where a flush ended it: a live one takes the SYN for a repeated one.
            if turn % 20 == 0:
                outside.send(tcp(client, NIC[1], port, 22, SYN, 1000, 0))
                time.sleep(0.002)
                inside.send(tcp(NIC[1], client, 22, port, SYN | ACK, 5000, 1001))
                time.sleep(0.002)
                outside.send(tcp(client, NIC[1], port, 22, ACK, 1001, 5001))
            else:
                outside.send(tcp(client, NIC[1], port, 22, ACK | PUSH, 1001, 5001, b"x" * 400))
                inside.send(tcp(NIC[1], client, 22, port, ACK, 5001, 1001))
        for n in range(3):
            outside.send(tcp("203.0.113.9", NIC[1], 50000 + n, 3306, SYN, 1, 0))
        if turn % 10 == 0:
            outside.send(tcp("203.0.113.10", NIC[1], 50100, 23, SYN, 1, 0))
    except OSError as error:
        # A cable that is down for a while.
        print(error, file=sys.stderr)
    turn += 1
