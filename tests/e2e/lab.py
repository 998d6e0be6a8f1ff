# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: programs of a build, keys, workers, clusters, and a tally of what held
and what did not.

Standard library only.  Every test is called with the build directory as its first argument.  All files are
made in a temporary directory that is removed; every process started is ended, however the test ends.
"""
import atexit
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lab"))  # links, soak, ...

SKIPPED = 77
SANITIZER = re.compile(r"(Address|Leak|Thread)Sanitizer|runtime error:|Sanitizer:DEADLYSIGNAL")


class Run:
    """A finished program; `again` runs it once more."""

    def __init__(self, code, out, err, seconds, again=None):
        self.code, self.out, self.err, self.seconds, self.again = code, out, err, seconds, again

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")

    @property
    def errors(self):
        return self.err.decode("utf-8", "replace")


class Daemon:
    """A program that runs; its stderr is read all the time, line by line."""

    def __init__(self, name, process):
        self.name, self.process = name, process
        self.lines, self.lock = [], threading.Lock()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.endpoint = None

    def read(self):
        for raw in self.process.stderr:
            with self.lock:
                self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))

    def log(self):
        with self.lock:
            return "\n".join(self.lines)

    def count(self, pattern):
        with self.lock:
            return sum(1 for line in self.lines if re.search(pattern, line))

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, seconds=60):
        """SIGTERM, then SIGKILL.  The exit code, or None when it had to be killed."""
        code = None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(5)
        return code


class Lab:
    def __init__(self):
        if len(sys.argv) < 2 or not os.path.isdir(sys.argv[1]):
            sys.exit("usage: %s BUILD [options]: the first argument is the build directory" % sys.argv[0])
        self.build = os.path.abspath(sys.argv[1])
        self.source = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
        self.tern = os.path.join(self.build, "bin", "tern")
        self.ternd = os.path.join(self.build, "bin", "ternd")
        self.model = os.path.join(self.source, "deploy", "models", "fable.gguf")
        self.dir = tempfile.mkdtemp(prefix="tern-e2e-")
        os.makedirs(os.path.join(self.dir, "cache"))
        self.env = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.dir, "cache"),
                        TERN_MODEL=self.model)
        self.daemons, self.children = [], []
        self.held = self.failed = self.skipped = 0
        self.started = time.monotonic()
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda n, frame: sys.exit(128 + n))

    def close(self):
        for d in self.daemons:
            if d.process.poll() is None:
                d.process.kill()
        for p in self.children:
            if p.poll() is None:
                p.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    # -- the tally -------------------------------------------------------------------------------------------

    def check(self, holds, what, detail=""):
        if holds:
            self.held += 1
            print("ok: " + what, flush=True)
        else:
            self.failed += 1
            print("FAILED: " + what + ("\n  " + str(detail)[-3000:].replace("\n", "\n  ") if detail else ""),
                  flush=True)
        return holds

    def skip(self, what):
        self.skipped += 1
        print("skipped: " + what, flush=True)

    def end(self):
        for d in self.daemons:
            if SANITIZER.search(d.log()):
                self.check(False, "no sanitizer report of " + d.name, d.log())
        print("%d held, %d failed, %d skipped, %.1f s" %
              (self.held, self.failed, self.skipped, time.monotonic() - self.started), flush=True)
        if self.failed:
            sys.exit(1)
        sys.exit(0 if self.held else SKIPPED)

    # -- programs --------------------------------------------------------------------------------------------

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text, mode=0o600):
        path = self.path(name)
        with open(path, "wb") as f:
            f.write(text if isinstance(text, bytes) else text.encode())
        os.chmod(path, mode)
        return path

    def run(self, *args, stdin=b"", timeout=120, env=None, program=None):
        """Runs tern with arguments; a hang or a sanitizer report is a failure of the test by itself."""
        command = [program or self.tern] + [str(a) for a in args]
        start = time.monotonic()
        try:
            p = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               timeout=timeout,
                               env=dict(self.env, **(env or {})))
        except subprocess.TimeoutExpired as e:
            self.check(False, "hangs: %s" % " ".join(command), (e.stderr or b"").decode("utf-8", "replace"))
            return Run(None, e.stdout or b"", e.stderr or b"", timeout)
        r = Run(p.returncode, p.stdout, p.stderr, time.monotonic() - start,
                lambda: self.run(*args, stdin=stdin, timeout=timeout, env=env, program=program))
        if SANITIZER.search(r.errors):
            self.check(False, "sanitizer report: %s" % " ".join(command), r.errors)
        return r

    def rate(self):
        """Tokens a second of one thread at the reference level, in this build on this machine."""
        r = self.run("run", "-n", 50, "--temp", 0, "--ignore-eos", "--cpu", "ref", "-t", 1, "-p",
                     "Once upon a time")
        assert r.code == 0, r.errors
        return 50 / r.seconds

    def long_run(self, seconds):
        """Arguments of a run that keeps workers of the reference level busy for about that long, in any
        build."""
        tokens = max(200, int(seconds * self.rate()))
        prompts = ["-p", "Once upon a time"] * min(16, -(-tokens // 1000))
        return ["run", "-n", min(1000, tokens), "--temp", 0, "--ignore-eos", "-c", 1024] + prompts

    def start(self, *args, program=None, **kwargs):
        """Starts tern in the background; killed at the end of the test."""
        command = [program or self.tern] + [str(a) for a in args]
        p = subprocess.Popen(command, stdin=kwargs.pop("stdin", subprocess.DEVNULL),
                             stdout=kwargs.pop("stdout", subprocess.PIPE),
                             stderr=kwargs.pop("stderr", subprocess.PIPE),
                             env=dict(self.env, **kwargs.pop("env", {})),
                             **kwargs)
        self.children.append(p)
        return p

    def key(self, name):
        """Path and public half of a new key pair."""
        path = self.path(name + ".key")
        r = self.run("keygen", path)
        if r.code != 0:
            sys.exit("tern keygen failed: " + r.errors)
        with open(path, encoding="ascii") as f:
            return path, re.search(r"^public (\S{40})$", f.read(), re.M).group(1)

    def daemon(self, name, key, allow, model=None, listen="127.0.0.1:0", args=(), wait=60, env=None,
               program=None):
        """Starts a ternd and waits until it says where it listens."""
        ready, theirs = os.pipe()
        command = [program or self.ternd, "--listen", listen, "--key", key, "--allow", allow, "--name", name,
                   "--ready-fd", theirs]
        command += ["--model", model or self.model]
        p = subprocess.Popen([str(a) for a in command + list(args)], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, env=dict(self.env, **(env or {})), pass_fds=[theirs])
        os.close(theirs)
        d = Daemon(name, p)
        self.daemons.append(d)
        if wait:
            if select.select([ready], [], [], wait)[0]:
                d.endpoint = os.read(ready, 4096).decode().strip()
            if not d.endpoint:
                d.stop()
                sys.exit("%s does not say where it listens:\n%s" % (name, d.log()))
        os.close(ready)
        return d


class Cluster:
    """A coordinator's key, and workers w1, w2, ... that run, each with the allow-list it needs; `model` is
    one file for all or a list with one for each, `each` a list of more arguments for each, `machines` where
    they run (machines.py), `listen` addresses that they keep when they are started again."""

    def __init__(self, lab, n, tag="", layers=None, model=None, args=(), via=None, each=None, machines=None,
                 listen=None):
        self.lab, self.tag = lab, tag
        self.key, self.public = lab.key(tag + "coordinator")
        self.names = ["%sw%d" % (tag, i + 1) for i in range(n)]
        self.keys = [lab.key(name) for name in self.names]
        self.allow, self.workers = [], []
        for i, name in enumerate(self.names):
            text = "# who may talk to %s\nhead coordinator %s\n" % (name, self.public)
            if i:
                text += "%s worker %s\n" % (self.names[i - 1], self.keys[i - 1][1])
            self.allow.append(lab.write(name + ".allow", text))
            where = {"listen": listen[i]} if listen else {}
            if machines:
                where = {"listen": machines[i].address + ":0",
                         "program": machines[i].program(lab, lab.ternd, "ternd")}
            self.workers.append(lab.daemon(name, self.keys[i][0], self.allow[i], **where,
                                           args=list(args) + (each[i] if each else []),
                                           model=model[i] if isinstance(model, list) else model))
        self.endpoints = [via(i, w.endpoint) if via else w.endpoint for i, w in enumerate(self.workers)]
        self.file = self.describe(layers)

    def describe(self, layers=None, name=None):
        lines = []
        for i, n in enumerate(self.names):
            span = " layers=%s" % layers[i] if layers else ""
            lines.append("%s %s %s%s\n" % (n, self.endpoints[i], self.keys[i][1], span))
        return self.lab.write(name or self.tag + "cluster", "# workers in pipeline order\n" + "".join(lines))

    def args(self):
        return ["--cluster", self.file, "--key", self.key]

    def stop(self):
        return [w.stop() for w in self.workers]


def state_of(pid):
    """The letter that the kernel has for what a process does; None: there is no such process."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def alive(pid):
    """A process that exists and is not a zombie."""
    return state_of(pid) not in (None, "Z")


def children_of(pid):
    """Pids of the direct children of a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                if int(fields[1]) == pid and fields[0] != "Z":
                    found.append(int(entry))
            except OSError:
                pass
    return found


def resident_bytes(pid):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def free_port():
    """A port that nobody listens on, and that no connection of others gets in the meantime: it lies below
    those which the kernel gives away."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        low = int(f.read().split()[0])
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.SystemRandom().randrange(10000, low) if low > 12000 else 0))
                return s.getsockname()[1]
            except OSError:
                pass


def soonest(r, seconds, tries=3):
    """How long a run took; where that was longer, the shortest of some more, since another program may have
    had the processor."""
    best = r.seconds
    while best > seconds and tries > 1:
        best = min(best, r.again().seconds)
        tries -= 1
    return best


def wait_until(condition, seconds=60):
    """Whether it came true.  What is waited for comes soon: only a failure takes the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
