# SPDX-License-Identifier: Apache-2.0
"""Workers that die, sleep, or hang in the middle of a text; and workers that must not outlive their
coordinator."""
import os
import re
import signal
import subprocess
import time

from lab import Cluster, Lab, alive, children_of, wait_until

lab = Lab()
# So long that nobody who kills comes too late.
LONG = ["run", "-n", max(230, min(900, int(4 * lab.rate()))), "-c", 1024, "--temp", 0, "--ignore-eos", "-p",
        "Once upon a time"]
# Slow enough to be caught in the middle: small chunks change no bits, and the reference level takes its time.
SLOW = ["--threads", "1", "--cpu", "ref"]


def begin(cluster, extra=()):
    """A running tern that has printed something."""
    p = lab.start(*LONG, *cluster.args(), *extra)
    first = os.read(p.stdout.fileno(), 1)
    lab.check(first != b"", "the text begins")
    return p, first


def finish(p, seconds):
    """Rest of stdout, stderr, exit code and how long it took; None when it did not end."""
    start = time.monotonic()
    try:
        out, err = p.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        return out, err.decode(), None, seconds
    return out, err.decode(), p.returncode, time.monotonic() - start


reference = lab.run(*LONG)
assert reference.code == 0, reference.errors

def hit(limit, n, tag, victim, number):
    """A run whose worker `victim` gets a signal: once, or where another program seems to have had the
    processor up to three times.  The cluster, and what came of the run."""
    for k in range(3):
        cluster = Cluster(lab, n, tag="%s%d%s-" % (tag, victim, "-again" * k), args=SLOW)
        p, first = begin(cluster)
        cluster.workers[victim].send(number)
        out, err, code, seconds = finish(p, 60)
        cluster.stop()
        if seconds <= limit:
            break
    return cluster, first + out, err, code, seconds


# SIGKILL, each of the workers once: the first, the middle one, the last.
for victim in range(3):
    cluster, out, err, code, seconds = hit(0.5, 3, "kill", victim, signal.SIGKILL)
    name = cluster.names[victim]
    lab.check(code is not None and seconds <= 0.5,
              "killed worker %d: tern has ended within 500 ms (%.3f s)"
              % (victim + 1, seconds), err)
    lab.check(code not in (0, None) and 0 < code < 128, "killed worker %d: an exit code that says so (%s)" %
              (victim + 1, code), err)
    sentence = err.strip().split("\n")[-1]  # the figures of what was done stand before it
    named = [n for n in cluster.names if n in sentence]
    lab.check(named == [name], "killed worker %d: the sentence names it and no other" % (victim + 1), err)
    lab.check(reference.out.startswith(out.rstrip(b"\n")),
              "killed worker %d: what was printed is right" % (victim + 1))

# A worker stopped for 1.5 s is survived, and the text is the same.
cluster = Cluster(lab, 2, tag="pause-", args=SLOW)
p, first = begin(cluster)
cluster.workers[0].send(signal.SIGSTOP)
time.sleep(1.5)
cluster.workers[0].send(signal.SIGCONT)
out, err, code, seconds = finish(p, 240)
lab.check(code == 0 and first + out == reference.out, "stopped for 1.5 s: survived, same text", err)
cluster.stop()

# Stopped for good: named within 4 s.
for victim in range(2):
    cluster, out, err, code, seconds = hit(4.0, 2, "stop", victim, signal.SIGSTOP)
    lab.check(code not in (0, None) and seconds <= 4.0 and cluster.names[victim] in err,
              "worker %d stopped for good: named after %.2f s" % (victim + 1, seconds), err)

# A worker outlives its coordinator, and serves the next one.
cluster = Cluster(lab, 2, tag="next-", args=SLOW)
p, first = begin(cluster)
p.kill()
p.wait()
lab.check(wait_until(lambda: all(w.count("reason=") for w in cluster.workers)),
          "both workers know that it is gone", cluster.workers[0].log())
r = lab.run(*LONG, *cluster.args(), timeout=240)
lab.check(r.code == 0 and r.out == reference.out,
          "after its coordinator was killed a worker serves the next one", r.errors)
lab.check(cluster.stop() == [0, 0], "the workers end cleanly on SIGTERM")

# No ternd of --local survives its coordinator, however that dies.
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
    p = lab.start(*LONG, "--local", 3, "-n", 1000, *SLOW)
    os.read(p.stdout.fileno(), 1)
    workers = children_of(p.pid)
    lab.check(len(workers) == 3, "%s: three workers run" % number.name, workers)
    p.send_signal(number)
    out, err, code, seconds = finish(p, 60)
    lab.check(code is not None, "%s: tern ends (%s after %.2f s)" % (number.name, code, seconds), err)
    gone = wait_until(lambda: not any(alive(w) for w in workers))
    lab.check(gone, "%s: no worker survives" % number.name, [w for w in workers if alive(w)])
    for w in workers:
        if alive(w):
            os.kill(w, signal.SIGKILL)

# One of them killed: tern says so.
for _ in range(3):
    p = lab.start(*LONG, "--local", 2, "-n", 1000, *SLOW)
    os.read(p.stdout.fileno(), 1)
    os.kill(children_of(p.pid)[0], signal.SIGKILL)
    out, err, code, seconds = finish(p, 60)
    if seconds < 1.5:
        break
lab.check(code not in (0, None) and seconds < 1.5 and re.search(r"\S", err),
          "a killed local worker is reported (%.2f s)" % seconds, err)
lab.end()
