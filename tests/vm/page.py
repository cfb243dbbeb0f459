"""docs/nics.md, of what scripts/vm-test found."""

HEAD = """# Drivers of NICs

What DPDK's drivers offer the appliance, and what they lack, as `scripts/vm-test --all` found it in a virtual machine (QEMU @QEMU@, DPDK @DPDK@): it
writes this page. Processors are emulated there, so that nothing here tells of speed; and QEMU's devices are not all that a vendor's are: what a driver takes
of a real NIC, `portcullis show workers` and `show counters` tell.

`scripts/test`, as root, tries three of these guests each time; `scripts/vm-test --self-check` plants a driver that does not forward, a flush that does not cut and
RSS that is not set, and wants each noticed.

## Driver by driver
"""
DRIVERS = ("driver", "queues offered", "RSS offered", "longest frame", "receive offloads", "transmit offloads")
ROWS = [
    "forwards", "flush", "share of each worker", "handed over", "RSS key", "link off and on", "frames above the MTU", "unbound, absent", "held by another",
    "huge pages too few", "kill -9 and restart", "orderly end",
]
TAIL = """
## What that means

- **Symmetric RSS.** With several workers a port should deliver both directions of a connection to one of them: by a Toeplitz key of ours. `net_virtio` takes it (QEMU: `rss=on`). `net_e1000_em` knows no RSS: its second queue receives
  nothing, and half of the frames go from worker to worker. `net_vmxnet3` takes a key and does not say which one holds, so it counts as taking none; QEMU's device delivers everything to its first queue. `show workers` tells both, and
  `portcullis doctor` before the start.
- **Offloads** are all off: tags stay in frames, checksums as they are. What a driver could do stands here for completeness.
- **Frames above the MTU** never pass. `net_e1000_em` drops them in the device, where no counter of DPDK's sees them.
- **uio** has no IOMMU behind it: it wants physical addresses, so huge pages and root, and lets two programs have one NIC. Take vfio-pci where there is an IOMMU.
- **Huge pages**: what `portcullis doctor` asks for is what each of these guests was started with.
- **AF_XDP** on any interface of the kernel (`init --kind af-xdp`), and **vhost-user** to a virtual machine (`init --inside /run/NAME.sock`), have one queue pair and no key; at an orderly end AF_XDP's driver keeps the buffers
  of its fill rings.
"""


def cell(value):
    return "–" if value is None else str(value).replace("|", "\\|")


def written(results, versions):
    """`results`: the facts and what was wrong, by variant. `versions`: of QEMU and of DPDK."""
    lines = [HEAD.replace("@QEMU@", versions[0]).replace("@DPDK@", versions[1])]
    lines += ["| NIC | " + " | ".join(DRIVERS) + " |", "| --- |" + " --- |" * len(DRIVERS)]
    seen = set()
    for name, (facts, _) in results.items():
        model = name.split(",")[0]
        if model not in seen and "queues offered" in facts:
            seen.add(model)
            lines.append(f"| {model} | " + " | ".join(cell(facts.get(key)) for key in DRIVERS) + " |")
    lines += ["", "## Guest by guest", ""]
    for name, (facts, wrong) in results.items():
        lines.append(f"**{name}**" + (f": DOES NOT HOLD: {wrong.splitlines()[0]}" if wrong else ""))
        told = [f"{key}: {facts[key]}" for key in ROWS if key in facts]
        lines += ["; ".join(told) + ".", ""]
    return "\n".join(lines).rstrip() + "\n" + TAIL
