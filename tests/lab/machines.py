# SPDX-License-Identifier: Apache-2.0
"""Machines that are none: network namespaces with cables of a given rate between them, and processes that get
only a share of a CPU.

Both need privileges (or user namespaces); `why` says what is missing.  Everything is gone when the script
ends, however it ends: the namespaces live in one of the script's own, and hold no names.
"""
import atexit
import ctypes
import os
import shutil
import subprocess
import time

CLONE_NEWNET, CLONE_NEWUSER, PR_SET_PDEATHSIG = 0x40000000, 0x10000000, 1
libc = ctypes.CDLL(None, use_errno=True)


def leave_network():
    """Puts this process into a network namespace of its own; the reason why not, or None.  Before any thread
    is started."""
    if libc.unshare(CLONE_NEWNET) == 0:
        return None
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        return "no network namespaces without privileges here: " + os.strerror(ctypes.get_errno())
    for name, text in (("setgroups", "deny"), ("uid_map", "0 %d 1" % uid), ("gid_map", "0 %d 1" % gid)):
        with open("/proc/self/" + name, "w") as f:
            f.write(text)
    return None


def command(*args):
    p = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if p.returncode:
        raise OSError("%s: %s" % (" ".join(map(str, args)), p.stdout.decode("utf-8", "replace").strip()))


class Machine:
    def __init__(self, net, number):
        def enter():
            if libc.unshare(CLONE_NEWNET) or libc.prctl(PR_SET_PDEATHSIG, 9):
                os._exit(1)
        self.number, self.address = number, "10.77.0.%d" % number
        self.holder = subprocess.Popen(["sleep", "infinity"], preexec_fn=enter)
        self.cable = "m%d" % number
        pid = self.holder.pid
        command("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        command("ip", "link", "set", self.cable, "master", "switch", "up")
        inside = ["nsenter", "-t", pid, "-n"]
        command(*inside, "ip", "link", "set", "lo", "up")
        command(*inside, "ip", "address", "add", self.address + "/24", "dev", "eth0")
        command(*inside, "ip", "link", "set", "eth0", "up")
        if net.mbit:
            limit = ["root", "tbf", "rate", "%gmbit" % net.mbit, "burst", "32kb", "latency", "50ms"]
            command("tc", "qdisc", "add", "dev", self.cable, *limit)
            command(*inside, "tc", "qdisc", "add", "dev", "eth0", *limit)

    def program(self, lab, path, name):
        """A program that runs `path` on this machine, as a file of the lab."""
        return lab.write("%s-on-%d" % (name, self.number),
                         "#!/bin/sh\nexec nsenter -t %d -n %s \"$@\"\n" % (self.holder.pid, path), 0o700)

    def unplug(self):
        command("ip", "link", "set", self.cable, "down")

    def plug(self):
        command("ip", "link", "set", self.cable, "up")


class Network:
    """n machines on one switch, each with a cable of so many Mbit/s each way (0: no limit)."""

    def __init__(self, n, mbit=0):
        self.mbit, self.machines = mbit, []
        self.why = "ip, tc or nsenter is missing" if not all(map(shutil.which, ("ip", "tc", "nsenter"))) \
            else leave_network()
        if self.why:
            return
        atexit.register(self.close)
        try:
            command("ip", "link", "set", "lo", "up")
            command("ip", "link", "add", "switch", "type", "bridge")
            command("ip", "link", "set", "switch", "up")
            for i in range(n):
                self.machines.append(Machine(self, i + 1))
        except (OSError, subprocess.SubprocessError) as e:
            self.close()
            self.why = "no machines out of namespaces here: %s" % e

    def close(self):
        for m in self.machines:
            m.holder.kill()
            m.holder.wait()
        self.machines = []


def cpu_seconds(pid):
    """Processor time that a process has used."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Quota:
    """Processes that get so much of a CPU, by the kernel's bandwidth control in slices of period_us; every
    process has its own share.  `why` is set where that cannot be had."""

    V1, V2 = "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"
    # What a CPU takes of a share at once: where that is all of it, the threads of a machine that run on the
    # other CPUs wait for the next slice.
    SLICE = "/proc/sys/kernel/sched_cfs_bandwidth_slice_us"

    def __init__(self, cpus, period_us=10000):
        self.quota, self.period, self.groups, self.why = int(cpus * period_us), period_us, [], None
        self.v1 = os.path.exists(os.path.join(self.V1, "cpu.cfs_quota_us"))
        self.top = os.path.join(self.V1 if self.v1 else self.V2, "tern-%d" % os.getpid())
        self.slice_us = None  # as it was
        atexit.register(self.close)
        try:
            if self.quota < 1000:
                raise OSError("a slice below 1 ms is not possible")
            if not self.v1:
                with open(os.path.join(self.V2, "cgroup.subtree_control"), "w") as f:
                    f.write("+cpu")
            os.mkdir(self.top)
            if not self.v1:
                with open(os.path.join(self.top, "cgroup.subtree_control"), "w") as f:
                    f.write("+cpu")
            self.slice_us = self.set_slice(self.quota // 8)
        except OSError as e:
            self.why = "no CPU quotas here: %s" % e

    def set_slice(self, us):
        """Returns what it was."""
        with open(self.SLICE) as f:
            was = int(f.read())
        with open(self.SLICE, "w") as f:
            f.write(str(us))
        return was

    def add(self, pid):
        """From now on, with all threads and children to come."""
        group = os.path.join(self.top, str(pid))
        os.mkdir(group)
        self.groups.append(group)
        if self.v1:
            self.write(group, "cpu.cfs_period_us", self.period)
            self.write(group, "cpu.cfs_quota_us", self.quota)
        else:
            self.write(group, "cpu.max", "%d %d" % (self.quota, self.period))
        self.write(group, "cgroup.procs", pid)

    @staticmethod
    def write(group, name, value):
        with open(os.path.join(group, name), "w") as f:
            f.write(str(value))

    def close(self):
        """When the processes have ended."""
        if self.slice_us:
            self.set_slice(self.slice_us)
            self.slice_us = None
        for group in self.groups + [self.top]:
            for _ in range(50):
                try:
                    os.rmdir(group)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.05)
        self.groups = []
