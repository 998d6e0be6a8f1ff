# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM whenever they come: one is enough, it is obeyed at once, the exit code says so, no child
stays behind and no worker stays held."""
import os
import signal
import socket
import subprocess
import time

from lab import Cluster, Lab, alive, children_of, wait_until

lab = Lab()
ASK = ["run", "-n", 230, "--temp", 0, "-p", "Once upon a time"]
# What the plain signal ends while options are read and input is awaited is ended as well: by the signal.
CODES = {signal.SIGINT: (130, -signal.SIGINT), signal.SIGTERM: (143, -signal.SIGTERM)}


def interrupt(what, p, number, code=None, limit=1.5):
    """Sends one signal; the program must end within some seconds, in good order, and leave nobody."""
    workers = children_of(p.pid)
    p.send_signal(number)
    start = time.monotonic()
    try:
        out, err = p.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        lab.check(False, "%s: one signal is not enough" % what, err.decode())
        return
    seconds = time.monotonic() - start
    err = err.decode()
    lab.check(seconds <= limit, "%s: ends after %.2f s" % (what, seconds), err)
    lab.check(p.returncode in (code or CODES[number]), "%s: exit code %s" % (what, p.returncode), err)
    lab.check("Sanitizer" not in err and "bug at" not in err, "%s: cleanly" % what, err)
    lab.check(wait_until(lambda: not any(alive(w) for w in workers), 3), "%s: no child survives" % what,
              workers)


# While a worker that will never answer is awaited.
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    s.listen()
    cluster = Cluster(lab, 1)
    silent = lab.write("silent", "w0 tcp://127.0.0.1:%d %s\n" % (s.getsockname()[1], lab.key("nobody")[1]) +
                       open(cluster.file).read())
    for number in CODES:
        before = cluster.workers[0].count(r"\bheld\b")
        p = lab.start(*ASK, "--cluster", silent, "--key", cluster.key)
        held = wait_until(lambda: cluster.workers[0].count(r"\bheld\b") > before, 5)
        lab.check(held, "joining: the other worker is held", cluster.workers[0].log())
        released = cluster.workers[0].count(r"reason=bye")
        interrupt("joining, %s" % number.name, p, number, code=(128 + number,))
        lab.check(wait_until(lambda: cluster.workers[0].count(r"reason=bye") > released, 2),
                  "joining, %s: the worker that was held is told" % number.name, cluster.workers[0].log())
    cluster.stop()

# At any moment of a start with children of its own, and of loading in the same process.
for extra in (["--local", 3], []):
    for i, number in enumerate([signal.SIGINT, signal.SIGTERM] * 4):
        p = lab.start(*ASK, *extra, env={"TERN_NO_CACHE": "1"})
        time.sleep(0.02 + 0.05 * i)
        interrupt("%s, %s after %.2f s" % (" ".join(map(str, extra)) or "one process", number.name,
                                           0.02 + 0.05 * i), p, number,
                  code=CODES[number] + (0,))  # it may be through by then

# While a text is measured.
text = lab.write("text", ("Once upon a time there was a king who had a daughter. " * 4000))
for extra in ([], ["--local", 2]):
    for number in CODES:
        p = lab.start("perplexity", "-f", text, "-c", 256, *extra)
        os.read(p.stderr.fileno(), 1)
        interrupt("perplexity %s, %s" % (" ".join(map(str, extra)), number.name), p, number,
                  code=(128 + number,))

# A worker that loads does not finish the file before it ends.
big = lab.path("big.gguf")
r = lab.run("--layers", 12, "--embd", 2048, "--ffn", 4096, "--heads", 16, "--kv-heads", 4, "--head-dim", 128,
            "--tokenizer", lab.model, big, program=os.path.join(lab.build, "bin", "make_model"), timeout=200)
lab.check(r.code == 0, "a larger model is written", r.errors)
for extra, wait in ((["--local", 2], 0.25), ([], 0.1)):
    p = lab.start("run", "-m", big, "-n", 200, "--ignore-eos", "-p", "x", *extra, env={"TERN_NO_CACHE": "1"})
    time.sleep(wait)
    interrupt("a larger model is loaded %s" % " ".join(map(str, extra)), p, signal.SIGINT,
              code=CODES[signal.SIGINT])
lab.end()
