"""A virtual machine with two NICs, for scripts/vm-test: what it is made of, how it is started, and how it is spoken to.

Packages are fetched by apt and unpacked, not installed: a machine may have parts of another QEMU. The guest is a kernel of Debian's and one
archive in memory: busybox, the program, the libraries that it names, DPDK's drivers and the kernel's modules that hand NICs over.
"""
import base64
import ctypes
import fcntl
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "vm"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# DPDK's drivers that a guest may want; what one of them needs beside is found by ldd.
PLUGINS = "bus_pci bus_vdev mempool_ring net_virtio net_e1000 net_vmxnet3 net_af_packet".split()
# In the order in which they go in.
MODULES = "irqbypass vfio_virqfd vfio vfio_iommu_type1 vfio-pci-core vfio-pci uio uio_pci_generic".split()
# There, and not put in: for a guest whose own kernel is to have a virtio NIC.
SPARE = "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net".split()
# Seconds that a guest may take to come up: 3 to 15 on a machine that has nothing else to do.
BOOT = 120
CLONE_NEWNET = 0x40000000

INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
# The root of an archive may be written by all, and EAL takes no plugins from below such a one.
chmod 755 /
mkdir -p /dev/hugepages
mount -t hugetlbfs hugetlbfs /dev/hugepages
ip link set lo up
for module in @MODULES@; do insmod /modules/$module.ko 2>/dev/null; done
export PATH=/bin HOME=/tmp
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
echo ready
while read -r line; do
    echo "$line" | base64 -d >/tmp/asked
    sh /tmp/asked </dev/null >/tmp/told 2>&1
    status=$?
    cat /tmp/told
    echo
    echo "@@END $status@@"
done
"""


def run(*words, status=0, timeout=120, **more):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **more)
    if status is not None and done.returncode != status:
        raise AssertionError(f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def fetch():
    """Packages below target/vm/root, once. What cannot be had is an error."""
    root, marker = WORK / "root", WORK / "fetched"
    if marker.exists():
        return root
    shutil.rmtree(WORK, ignore_errors=True)
    (WORK / "debs").mkdir(parents=True)
    planned = run("apt-get", "install", "-s", "--no-install-recommends", "qemu-system-x86", timeout=60, status=None)
    names = re.findall(r"^Inst (\S+)", planned, flags=re.M)
    kernels = run("apt-cache", "search", "--names-only", "^linux-image-6.1.0-[0-9]+-cloud-amd64$").split("\n")
    kernels = sorted((line.split()[0] for line in kernels if line), key=lambda name: int(name.split("-")[3]))
    if not kernels or ("qemu-system-x86" not in names and not shutil.which("qemu-system-x86_64")):
        run("apt-get", "update", timeout=300)
        raise SystemExit("vm-test: apt knows no QEMU or kernel; its lists have just been refreshed: start again")
    run("apt-get", "download", *names, "busybox-static", kernels[-1], cwd=WORK / "debs", timeout=600)
    root.mkdir()
    for package in sorted((WORK / "debs").glob("*.deb")):
        run("dpkg", "-x", package, root)
    marker.write_text(" ".join(names) + "\n")
    return root


def library_names(path):
    """The libraries that a program or library wants, by the paths at which the loader finds them."""
    return set(re.findall(r"(?:=> )?(/\S+) \(0x", run("ldd", path, status=None)))


def archive(folder, to):
    """A folder as the kernel takes it: cpio, newc."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    with open(to, "wb") as out:
        def entry(name, mode, data=b"", inode=0):
            fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
            out.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

        # Without it the kernel opens no console for init, and says nothing of why.
        for inode, name in enumerate(names, 1):
            path = folder / name
            if path.is_symlink():
                entry(name, 0o120777, os.readlink(path).encode(), inode)
            elif path.is_dir():
                entry(name, 0o040755, inode=inode)
            else:
                entry(name, 0o100755, path.read_bytes(), inode)
        entry("TRAILER!!!", 0)


def initramfs(root, binary, extra=()):
    """What the guest boots from. `extra`: other programs."""
    made = Path(tempfile.mkdtemp(prefix="vm-", dir=WORK))
    to = made / "initramfs"
    try:
        folder = made / "root"
        for name in ("bin", "proc", "sys", "dev", "run", "tmp", "etc", "modules", "var", "lib64", f"{LIBRARIES[1:]}/dpdk/pmds-23.0"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "var/run").symlink_to("/run")
        (folder / "lib").symlink_to("usr/lib")
        shutil.copy(root / "bin/busybox", folder / "bin/busybox")
        programs = [("portcullis", binary), *((Path(path).name, path) for path in extra)]
        wanted = set()
        for name, path in programs:
            run("strip", "-o", folder / "bin" / name, path)
            wanted |= library_names(path)
        drivers = folder / LIBRARIES[1:] / "dpdk/pmds-23.0"
        for plugin in PLUGINS:
            # EAL takes those with this ending. Others find them by a link: a copy would be a second bus, which ends EAL.
            made_of = f"{LIBRARIES}/dpdk/pmds-23.0/librte_{plugin}.so.23"
            wanted |= library_names(made_of)
            shutil.copy(os.path.realpath(made_of), drivers / f"librte_{plugin}.so.23.0")
            (folder / LIBRARIES[1:] / f"librte_{plugin}.so.23").symlink_to(f"dpdk/pmds-23.0/librte_{plugin}.so.23.0")
        for path in wanted:
            to_path = folder / "lib64/ld-linux-x86-64.so.2" if "ld-linux" in path else folder / LIBRARIES[1:] / Path(path).name
            if not to_path.exists():
                shutil.copy(os.path.realpath(path), to_path)
        for module in MODULES + SPARE:
            found = list((root / "lib/modules").rglob(f"{module}.ko"))
            if found:
                shutil.copy(found[0], folder / "modules")
        (folder / "init").write_text(INIT.replace("@MODULES@", " ".join(MODULES)))
        archive(folder, to)
        shutil.rmtree(folder)
        return to
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


class Space:
    """A network namespace with a tap in it, one end of the guest's wire."""

    def __init__(self, name, tap, queues=1, mtu=1500):
        self.name, self.tap, self.queues, self.mtu = name, tap, queues, mtu
        self.descriptors = []

    def up(self):
        run("ip", "netns", "add", self.name)
        libc = ctypes.CDLL(None, use_errno=True)

        def enter(descriptor):
            if libc.setns(descriptor, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

        with open("/proc/self/ns/net") as ours, open(f"/run/netns/{self.name}") as theirs:
            enter(theirs.fileno())
            try:
                for _ in range(self.queues):
                    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                    self.descriptors.append(tap)
                    flags = 0x0002 | 0x1000 | (0x0100 if self.queues > 1 else 0)  # TAP, NO_PI, MULTI_QUEUE
                    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", self.tap.encode(), flags))  # TUNSETIFF
            finally:
                enter(ours.fileno())
        self.run("ip", "link", "set", self.tap, "mtu", self.mtu, "up")
        self.run("sysctl", "-qw", f"net.ipv6.conf.{self.tap}.accept_dad=0", status=None)

    def words(self, *words):
        return ["ip", "netns", "exec", self.name, *(str(word) for word in words)]

    def run(self, *words, **more):
        return run(*self.words(*words), **more)

    def let_go(self):
        """QEMU has them now."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []

    def down(self):
        self.let_go()
        run("ip", "netns", "del", self.name, status=None)


class Guest:
    """A running guest. `devices`: a function from a NIC's number and its tap's descriptors to arguments for QEMU."""

    def __init__(self, root, image, spaces, devices, iommu=True, cores=2, memory=1200, more=()):
        self.root, self.image, self.spaces, self.devices = root, image, spaces, devices
        self.iommu, self.cores, self.memory, self.more = iommu, cores, memory, list(more)
        self.directory = Path(tempfile.mkdtemp(prefix="vm-guest-"))
        self.process, self.port, self.qmp, self.kept = None, None, None, b""

    def __enter__(self):
        try:
            self.start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def start(self):
        for space in self.spaces:
            space.up()
        program = self.root / "usr/bin/qemu-system-x86_64"
        environment = dict(os.environ)
        if program.exists():
            environment["LD_LIBRARY_PATH"] = f"{self.root}{LIBRARIES}:{self.root}/lib/x86_64-linux-gnu"
        else:
            program = Path(shutil.which("qemu-system-x86_64"))
        line = "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off" + (" intel_iommu=on" if self.iommu else "")
        words = [program, "-L", self.root / "usr/share/qemu", "-L", self.root / "usr/share/seabios"]
        words += ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", self.cores, "-m", self.memory, "-M", "q35", "-nodefaults", "-display", "none"]
        words += ["-no-reboot", "-kernel", next((self.root / "boot").glob("vmlinuz-*")), "-initrd", self.image, "-append", line]
        words += ["-serial", f"file:{self.directory}/console", "-serial", f"unix:{self.directory}/agent,server=on,wait=off"]
        words += ["-qmp", f"unix:{self.directory}/qmp,server=on,wait=off"]
        words += ["-device", "intel-iommu,intremap=on,device-iotlb=on"] if self.iommu else []
        descriptors = []
        for number, space in enumerate(self.spaces):
            words += self.devices(number, space.descriptors)
            descriptors += space.descriptors
        log = open(self.directory / "qemu", "wb")
        words = [str(word) for word in [*words, *self.more]]
        self.process = subprocess.Popen(words, env=environment, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        for space in self.spaces:
            space.let_go()
        until = time.monotonic() + BOOT
        self.port = self.connect("agent", until)
        self.line(until, b"ready")
        self.qmp = self.connect("qmp", until)
        self.ask("qmp_capabilities")

    def connect(self, name, until):
        while True:
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(self.directory / name))
                return link
            except OSError:
                link.close()
                if self.process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"QEMU did not come up: {self.said()}") from None
                time.sleep(0.05)

    def said(self):
        texts = [(self.directory / name).read_text(errors="replace")[-2000:] for name in ("qemu", "console") if (self.directory / name).exists()]
        return "\n".join(texts)

    def line(self, until, wanted):
        """Reads to a line that is this, or matches it; what came before, and the match."""
        pattern = re.compile(b"(?:^|\n)" + wanted + b"\r?\n")
        while not (found := pattern.search(self.kept)):
            self.port.settimeout(max(0.1, until - time.monotonic()))
            try:
                more = self.port.recv(1 << 16)
            except TimeoutError:
                more = b""
            if not more:
                raise AssertionError(f"the guest does not answer: {self.kept[-500:]!r}\n{self.said()}")
            self.kept += more
        before, self.kept = self.kept[:found.start()], self.kept[found.end():]
        return before, found

    def sh(self, text, status=0, timeout=60):
        """Runs it in the guest's shell; its output."""
        self.port.sendall(base64.b64encode(text.encode()) + b"\n")
        told, found = self.line(time.monotonic() + timeout, rb"@@END (\d+)@@")
        told = told.decode(errors="replace").strip("\r\n")
        if status is not None and int(found[1]) != status:
            raise AssertionError(f"in the guest: {text}: status {int(found[1])}\n{told[-3000:]}")
        return told

    def write(self, path, text):
        for start in range(0, len(text) or 1, 2000):
            piece = base64.b64encode(text[start:start + 2000].encode()).decode()
            self.sh(f"mkdir -p $(dirname {path}); echo {piece} | base64 -d {'>>' if start else '>'} {path}")

    def ask(self, command, **arguments):
        """Of QEMU itself."""
        self.qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self.qmp.settimeout(20)
        told = b""
        while True:
            told += self.qmp.recv(1 << 16)
            for line in told.split(b"\n"):
                try:
                    answer = json.loads(line)
                except ValueError:
                    continue
                if "return" in answer or "error" in answer:
                    assert "error" not in answer, answer
                    return answer["return"]

    def __exit__(self, *_):
        for link in (self.port, self.qmp):
            if link:
                link.close()
        if self.process:
            self.process.kill()
            self.process.wait()
        for space in self.spaces:
            space.down()
        shutil.rmtree(self.directory, ignore_errors=True)
