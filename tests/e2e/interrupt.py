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


def interrupt(what, begin, number, code=None, limit=1.5):
    """Sends one signal to what begin() has started; the program must end within some seconds, in good order,
    and leave nobody.  Another program may have had the processor: it has three chances of being as quick."""
    for _ in range(3):
        seconds = interrupt_once(what, begin(), number, code)
        if seconds is None or seconds <= limit:
            break
    lab.check(seconds is not None and seconds <= limit, "%s: ends soon" % what, seconds)


def interrupt_once(what, p, number, code):
    workers = children_of(p.pid)
    p.send_signal(number)
    start = time.monotonic()
    try:
        out, err = p.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        lab.check(False, "%s: one signal is not enough" % what, err.decode())
        return None
    seconds = time.monotonic() - start
    err = err.decode()
    lab.check(p.returncode in (code or CODES[number]), "%s: exit code %s after %.2f s" %
              (what, p.returncode, seconds), err)
    lab.check("Sanitizer" not in err and "bug at" not in err, "%s: cleanly" % what, err)
    lab.check(wait_until(lambda: not any(alive(w) for w in workers)), "%s: no child survives" % what,
              workers)
    return seconds


# While a worker that will never answer is awaited.
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    s.listen()
    cluster = Cluster(lab, 1)
    silent = lab.write("silent", "w0 tcp://127.0.0.1:%d %s\n" % (s.getsockname()[1], lab.key("nobody")[1]) +
                       open(cluster.file).read())

    def count(pattern):
        return cluster.workers[0].count(pattern)

    def join():
        before = count(r"\bheld\b")
        p = lab.start(*ASK, "--cluster", silent, "--key", cluster.key)
        held = wait_until(lambda: count(r"\bheld\b") > before)
        lab.check(held, "joining: the other worker is held", cluster.workers[0].log())
        return p

    for number in CODES:
        interrupt("joining, %s" % number.name, join, number, code=(128 + number,))
        lab.check(wait_until(lambda: count(r"reason=bye") == count(r"\bheld\b")),
                  "joining, %s: the worker that was held is told" % number.name, cluster.workers[0].log())
    cluster.stop()

# At any moment of a start with children of its own, and of loading in the same process.
for extra in (["--local", 3], []):
    for i, number in enumerate([signal.SIGINT, signal.SIGTERM] * 4):
        def some_way():
            p = lab.start(*ASK, *extra, env={"TERN_NO_CACHE": "1"})
            time.sleep(0.02 + 0.05 * i)
            return p
        interrupt("%s, %s after %.2f s" % (" ".join(map(str, extra)) or "one process", number.name,
                                           0.02 + 0.05 * i), some_way, number,
                  code=CODES[number] + (0,))  # it may be through by then

# While a text is measured.
text = lab.write("text", ("Once upon a time there was a king who had a daughter. " * 4000))
for extra in ([], ["--local", 2]):
    for number in CODES:
        def measure():
            p = lab.start("perplexity", "-f", text, "-c", 256, *extra)
            os.read(p.stderr.fileno(), 1)
            return p
        interrupt("perplexity %s, %s" % (" ".join(map(str, extra)), number.name), measure, number,
                  code=(128 + number,))

# A worker that loads does not finish the file before it ends.
big = lab.path("big.gguf")
r = lab.run("--layers", 12, "--embd", 2048, "--ffn", 4096, "--heads", 16, "--kv-heads", 4, "--head-dim", 128,
            "--tokenizer", lab.model, big, program=os.path.join(lab.build, "bin", "make_model"), timeout=200)
lab.check(r.code == 0, "a larger model is written", r.errors)
for extra, wait in ((["--local", 2], 0.25), ([], 0.1)):
    def load():
        p = lab.start("run", "-m", big, "-n", 200, "--ignore-eos", "-p", "x", *extra,
                      env={"TERN_NO_CACHE": "1"})
        time.sleep(wait)
        return p
    interrupt("a larger model is loaded %s" % " ".join(map(str, extra)), load, signal.SIGINT,
              code=CODES[signal.SIGINT])
lab.end()
