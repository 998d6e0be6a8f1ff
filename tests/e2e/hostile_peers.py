# SPDX-License-Identifier: Apache-2.0
"""Peers that misbehave while a generation runs: each refused, counted, logged once; the generation goes on
unharmed.

Attacks on raw TCP are made here; those that need CURVE by tests/lab/intruder.c.
"""
import os
import random
import re
import socket
import struct
import subprocess
import time

from lab import Cluster, Lab, wait_until

lab = Lab()
intruder = os.path.join(lab.build, "bin", "intruder")
rng = random.Random(4)
LONG = lab.long_run(15)
reference = lab.run(*LONG)
assert reference.code == 0, reference.errors
ASK = ["run", "-n", 40, "--temp", 0, "-p", "Once upon a time"]
short = lab.run(*ASK)

cluster = Cluster(lab, 2, args=["--threads", 1, "--cpu", "ref", "--verbose"])
first, second = cluster.workers
stranger = "-"
# A second coordinator that both workers list, and that holds nothing.
spare = lab.key("spare")


def allow_lists(extra):
    for i, path in enumerate(cluster.allow):
        lines = ["head coordinator %s" % cluster.public] + (["w1 worker %s" %
                                                             cluster.keys[0][1]] if i else []) + extra
        with open(path + ".new", "w") as f:
            f.write("\n".join(lines) + "\n")
        os.chmod(path + ".new", 0o600)
        os.rename(path + ".new", path)


def known(key):
    """Waits until the worker knows a key: lists are read again once a second.  Who comes too early is
    refused, and that is logged."""
    time.sleep(1.3)
    return wait_until(lambda: curve(first, key, "silent")[0] == "yes")


SPARE = "spare coordinator %s" % spare[1]
allow_lists([SPARE])


class Generation:
    """A long run in the background into which attacks fall.  When it ends, its text must be the undisturbed
    one."""

    def __init__(self):
        self.attacks = []
        self.begin()

    def begin(self):
        self.p = lab.start(*LONG, *cluster.args())
        self.out = os.read(self.p.stdout.fileno(), 1)

    def running(self):
        return self.p.poll() is None

    def end(self):
        rest, err = self.p.communicate(timeout=200)
        self.out += rest
        lab.check(self.p.returncode == 0 and self.out == reference.out,
                  "unharmed by: " + "; ".join(self.attacks),
                  "code %s, equal %s\n%s\n%s" %
                  (self.p.returncode, self.out == reference.out, err.decode(), first.log()[-1500:]))
        self.attacks = []


def address(worker):
    host, port = worker.endpoint.replace("tcp://", "").rsplit(":", 1)
    return host, int(port)


def curve(worker, key, attack):
    """Runs the intruder; (handshake, sent, replies)."""
    i = cluster.workers.index(worker)
    p = subprocess.run([intruder, worker.endpoint, cluster.keys[i][1], key, attack], stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=120, env=lab.env)
    found = re.search(rb"handshake=(yes|no) sent=(\d+) replies=(\d+)", p.stdout)
    if p.returncode or not found:
        lab.check(False, "the intruder works", p.stderr.decode() + p.stdout.decode())
        return "?", 0, 0
    return found.group(1).decode(), int(found.group(2)), int(found.group(3))


GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01"


def raw(worker, *pieces, wait=0.5):
    """Sends bytes over TCP; what came back, and whether the worker closed the connection."""
    got, closed = b"", False
    with socket.create_connection(address(worker), timeout=60) as s:
        s.settimeout(wait)
        try:
            for piece in pieces:
                s.sendall(piece)
                time.sleep(0.05)
            while True:
                data = s.recv(65536)
                if not data:
                    closed = True
                    break
                got += data
        except socket.timeout:
            pass
        except OSError:
            closed = True
    return got, closed


def warnings(worker):
    with worker.lock:
        return [line for line in worker.lines if re.match(r"(warn|error) ", line)]


lab.check(known(spare[0]), "a second coordinator is listed")
generation = Generation()


def undisturbed(what, attack, logged=None):
    """Runs an attack while the generation runs.  `logged`: a pattern that one or two new warnings must
    have."""
    before = {w: len(warnings(w)) for w in cluster.workers}
    for _ in range(3):
        if not generation.running():
            generation.end()
            generation.begin()
        generation.attacks.append(what)
        attack()
        if generation.running():
            break
    lab.check(generation.running(), "%s: all of it fell into a generation" % what)
    lab.check(all(w.process.poll() is None for w in cluster.workers), "%s: the workers live" % what)

    def fresh():
        return [line for w in cluster.workers for line in warnings(w)[before[w]:]]

    if logged:
        wait_until(lambda: any(re.search(logged, line) for line in fresh()))
    new = fresh()
    hits = [line for line in new if logged and re.search(logged, line)]
    lab.check(len(new) <= 4, "%s: no flood of lines in the log (%d)" % (what, len(new)), "\n".join(new))
    if logged:
        lab.check(1 <= len(hits) <= 2, "%s: logged once: %s" % (what, hits[0] if hits else "-"),
                  "\n".join(new))


# -- before the handshake is over ----------------------------------------------------------------------------
def unknown_key():
    for _ in range(3):
        shaken, _, replies = curve(first, stranger, "hello")
        lab.check(shaken == "no" and replies == 0, "an unknown key: no handshake, no reply")


def plaintext():
    null = GREETING + b"NULL".ljust(20, b"\0") + b"\0" * 32
    ready = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
    got, closed = raw(first, null, ready, b"\x00\x05hello", wait=1.0)
    lab.check(b"READY" not in got, "plaintext ZeroMQ: no handshake", got.hex())
    plain = GREETING + b"PLAIN".ljust(20, b"\0") + b"\0" * 32
    got, closed = raw(first, plain, b"\x04\x0e\x05HELLO\x03abc\x03def", wait=1.0)
    lab.check(b"WELCOME" not in got, "ZeroMQ with a password: no handshake", got.hex())


def garbage():
    for piece in (rng.randbytes(64), rng.randbytes(20000), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 5000,
                  b"SSH-2.0-OpenSSH_9.2\r\n", GREETING + rng.randbytes(52), GREETING[:5]):
        raw(first, piece, wait=0.3)


def announced():
    greeting = GREETING + b"CURVE".ljust(20, b"\0") + b"\0" * 32
    for size in (1 << 20, 1 << 40, (1 << 63) - 1):
        got, closed = raw(first, greeting, b"\x06" + struct.pack(">Q", size), b"x" * 4096, wait=30)
        lab.check(closed, "a frame of %d bytes announced before the handshake: closed" % size)


undisturbed("an unknown key", unknown_key, "key|refused")
undisturbed("plaintext ZeroMQ", plaintext)
undisturbed("garbage bytes", garbage)
undisturbed("an oversized frame before the handshake", announced)

# -- listed peers that do what they may not ------------------------------------------------------------------
w1_key = cluster.keys[0][0]


def as_worker():
    for attack in ("hello", "ping", "bye"):
        shaken, sent, replies = curve(second, w1_key, attack)
        lab.check(shaken == "yes" and sent == 1 and replies == 0, "a worker's key that says %s: no reply" %
                  attack)


def with_spare(*names):
    def attacks():
        for attack in names:
            shaken, sent, replies = curve(first, spare[0], attack)
            lab.check(shaken == "yes" and replies == 0, "a second coordinator that sends %s: no reply" %
                      attack,
                      "handshake %s sent %d replies %d" % (shaken, sent, replies))
    return attacks


undisturbed("a worker's key in the coordinator's place", as_worker, "may not")
undisturbed("an unknown field number", with_spare("unknown"), "malformed|unknown field")
undisturbed("another version", with_spare("version"))
undisturbed("garbage on an authenticated link", with_spare("garbage", "empty"))
undisturbed("orders of a coordinator that does not own the worker", with_spare("ping", "bye"))
undisturbed("three frames and oversized frames", with_spare("frames", "oversized"))
undisturbed("a flood of messages", with_spare("flood"))


def other_epoch():
    # The upstream worker's own key, beside its real connection: right sender, wrong epoch.
    shaken, sent, replies = curve(second, w1_key, "epoch")
    lab.check(shaken == "yes" and sent > 0 and replies == 0,
              "steps of another epoch from the right key: no reply")


undisturbed("a message of another epoch", other_epoch, "epoch")


# -- a second coordinator asks for a worker that is held, and is struck from the list while connected --------
def held():
    for _ in range(5):  # unless the answer comes after the intruder has gone
        shaken, sent, replies = curve(first, spare[0], "hello")
        if replies:
            break
    lab.check(shaken == "yes" and replies >= 1, "a listed coordinator gets an answer: busy")


def struck():
    p = lab.start(first.endpoint, cluster.keys[0][1], spare[0], "hold", program=intruder,
                  stdin=subprocess.PIPE)

    def replies(seconds):
        """How the count of replies grows over a time."""
        counts = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            counts.append(int(re.search(rb"replies=(\d+)", p.stdout.readline()).group(1)))
        return counts[-1] - counts[0]

    lab.check(replies(1.0) > 2, "a connected, listed coordinator gets answers")
    allow_lists([])
    lab.check(wait_until(lambda: replies(0.8) == 0),
              "struck from the list while connected: no answer any more")
    p.stdin.close()
    p.wait(60)
    allow_lists([SPARE])


undisturbed("a held worker is asked again", held)
# From the beginning of a generation: at its end the worker would be free, and this coordinator's to have.
generation.end()
generation.begin()
undisturbed("a key removed from the list while connected", struck, "allow-list")

generation.end()

# The owner's own key removed: the generation ends with a sentence, the worker is free.
LONG = lab.long_run(60)  # it does not come to its end
p = lab.start(*LONG, *cluster.args())
os.read(p.stdout.fileno(), 1)
with open(cluster.allow[0]) as f:
    old = f.read()
cluster_allow = old.replace("head coordinator", "# head coordinator")
lab.write(os.path.basename(cluster.allow[0]), cluster_allow)
start = time.monotonic()
out, err = p.communicate(timeout=240)
lab.check(p.returncode not in (0, None) and time.monotonic() - start < 20 and b"allow-list" in err,
          "the owner's key removed: its run ends with a sentence after %.1f s" % (time.monotonic() - start),
          err.decode())
lab.write(os.path.basename(cluster.allow[0]), old)
lab.check(known(cluster.key), "the owner's key is listed again")
r = lab.run(*ASK, *cluster.args())
lab.check(r.code == 0 and r.out == short.out, "the key listed again: the workers serve again", r.errors)

counts = re.findall(r"more=(\d+)", first.log() + second.log())
lab.check(cluster.stop() == [0, 0], "the workers end cleanly", first.log()[-800:])
lab.end()
