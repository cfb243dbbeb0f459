#!/usr/bin/env python3
"""Reads the stats page of a Portcullis, as it lies in memory: python3 stats.py [PAGE] [NAME]

Prints every series, or those of one name. The layout is described at the head of ctrl/stats/src/lib.rs.
"""
import json
import mmap
import struct
import sys
import time

TRIES = 100


def words(page, at, count=1):
    return struct.unpack_from(f"<{count}Q", page, at)


def copy_half(page):
    """The values and the directory of the half that is valid now; None if it was written to meanwhile."""
    (published,) = words(page, 16)
    if published == 0:
        raise ValueError("nothing is published yet")
    offset, _, _, length, count = words(page, 64 if published % 2 == 0 else 104, 5)
    if offset + 8 * count + length > len(page):
        return None
    values = words(page, offset, count)
    directory = bytes(page[offset + 8 * count : offset + 8 * count + length])
    return (values, directory) if words(page, 16) == (published,) else None


def read(path):
    """(age in seconds, families): each with its name, type, labels, and series as (labels, value)."""
    for _ in range(TRIES):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as page:
            if page[:8] != b"PCSTATS1" or words(page, 8) != (1,):
                raise ValueError(f"{path}: no stats page of version 1")
            copy, (written,) = copy_half(page), words(page, 24)
        if copy:
            return time.time() - written / 1e9, list(families(*copy))
    raise ValueError(f"{path}: written faster than read")


def families(values, directory):
    for family in json.loads(directory):
        bounds = family.get("bounds")
        width = len(bounds) + 2 if bounds else 1
        series = []
        for number, labels in enumerate(family["series"]):
            at = family["at"] + number * width
            value = values[at]
            if bounds:
                total = struct.unpack("<d", struct.pack("<Q", values[at + width - 1]))[0]
                value = {"bounds": bounds, "counts": values[at : at + width - 1], "sum": total}
            series.append((dict(zip(family["labels"], labels)), value))
        yield {"name": family["name"], "type": family["type"], "help": family["help"], "series": series}


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "/run/portcullis/stats"
    age, found = read(path)
    print(f"# {age:.1f} s old")
    for family in found:
        if len(sys.argv) > 2 and family["name"] != sys.argv[2]:
            continue
        for labels, value in family["series"]:
            shown = ",".join(f'{name}="{value}"' for name, value in labels.items())
            print(f"{family['name']}{{{shown}}} {value}")


if __name__ == "__main__":
    main()
