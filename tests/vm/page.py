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
ROWS = ["share of each worker", "handed over", "RSS key", "frames above the MTU", "held by another", "orderly end"]
# What holds of all of them, or the guest does not hold.
EVERY = """
Each of them forwards both ways, frames as long as the MTU and tagged ones included; a change of rules cuts real TCP; a link that goes off is told in health and goes on when it is back; a NIC that is absent,
unbound or (vfio) held by another process, and huge pages that are too few, are refused with the reason; after kill -9 it starts again. (Behind vhost-user frames were not tagged, nor as long as the MTU.)
"""
TAIL = """
## What that means

- **Symmetric RSS.** With several workers a port should deliver both directions of a connection to one of them: by a Toeplitz key of ours. `net_virtio` takes it (QEMU: `rss=on`). `net_e1000_em` knows no RSS: its second queue receives
  nothing, and half of the frames go from worker to worker. `net_vmxnet3` takes a key and does not say which one holds, so it counts as taking none; QEMU's device delivers everything to its first queue. `show workers` tells both, and
  `portcullis doctor` before the start.
- **Offloads** are all off: tags stay in frames, checksums as they are. What a driver could do stands here for completeness.
- **Frames above the MTU** never pass. `net_e1000_em` drops them in the device at MTU 1500, where no counter of DPDK's sees them; on a veth the sender's kernel does.
- **uio** has no IOMMU behind it: it wants physical addresses, so huge pages and root, and lets two programs have one NIC. Take vfio-pci where there is an IOMMU.
- **Huge pages**: what `portcullis doctor` asks for is what each of these guests was started with.
- **AF_XDP** on any interface of the kernel (`init --kind af-xdp`) has one queue pair and no key here. A second appliance on the same interface is refused before its driver starts, which would take the first one's program off
  the interface; at an orderly end the driver keeps the buffers of its fill rings.
- **vhost-user** to a virtual machine (`init --inside /run/NAME.sock`) has one queue pair and no key. The machine's checksums are made up for by DPDK. Machine and appliance may be started again, each while the other runs (QEMU: `reconnect=1`);
  a socket that a killed appliance left is removed.
"""


def cell(value):
    return "–" if value is None else str(value).replace("|", "\\|")


def written(results, versions):
    """`results`: the facts and what was wrong, by variant. `versions`: of QEMU and of DPDK."""
    lines = [HEAD.replace("@QEMU@", versions[0]).replace("@DPDK@", versions[1])]
    lines += ["| NIC | " + " | ".join(DRIVERS) + " |", "| --- |" + " --- |" * len(DRIVERS)]
    best = {}
    for name, (facts, _) in results.items():
        receive = int(facts.get("queues offered", "0").split()[0])
        if receive > best.get(name.split(",")[0], (0, None))[0]:
            best[name.split(",")[0]] = (receive, facts)
    for model, (_, facts) in best.items():
        lines.append(f"| {model} | " + " | ".join(cell(facts.get(key)) for key in DRIVERS) + " |")
    lines += ["", "## Guest by guest", EVERY, "| guest | " + " | ".join(ROWS) + " |", "| --- |" + " --- |" * len(ROWS)]
    for name, (facts, wrong) in results.items():
        shown = name if not wrong else f"{name}: DOES NOT HOLD: {wrong.splitlines()[0]}"
        lines.append(f"| {cell(shown)} | " + " | ".join(cell(facts.get(key)) for key in ROWS) + " |")
    return "\n".join(lines) + "\n" + TAIL
