"""A capture of a million packets, each of another connection to 10.5.6.7: python3 million.py FILE [FLOWS]. Prints what is in it, as JSON."""
import json
import struct
import sys

flows = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
FIRST, PORTS = 1024, 65535 - 1024
head = bytes.fromhex("020000000007" "020000000099" "0800")


def checksum(data):
    total = sum(struct.unpack("!10H", data))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    record = struct.pack("<IIII", 0, 0, 60, 60)
    for first in range(0, flows, PORTS):
        host = 1 + first // PORTS
        addresses = bytes([198, 51, 100, host, 10, 5, 6, 7])
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 36, 1, 0x4000, 64, 17, 0) + addresses
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        before, after = record + head + ip, bytes([0, 53, 0, 16, 0, 0]) + bytes(18)
        file.write(b"".join(before + port.to_bytes(2, "big") + after for port in range(FIRST, FIRST + min(PORTS, flows - first))))
print(json.dumps({"flows": flows}))
