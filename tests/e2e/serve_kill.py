# SPDX-License-Identifier: Apache-2.0
"""`tern serve` when things die around it: workers under load, and the server itself by signals.  And what it
refuses to begin with."""
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time

from lab import Cluster, Lab, alive, children_of, free_port, wait_until
from serving import Server

lab = Lab()
SHORT = {"prompt": "Once upon a time", "n_predict": 24, "temperature": 0}
# Never ends by itself: a full context is shifted.
ENDLESS = {"prompt": "The fox said", "n_predict": -1, "temperature": 0, "ignore_eos": True, "stream": True}


class Mortal(Server):
    """One that may be gone when it is asked."""

    def __init__(self, *args):
        super().__init__(lab, "-c", 256, "--context-shift", "-t", 1, *args)

    def try_to(self, method, path, body=None, timeout=60):
        """Status and text of an answer; (None, why) when there was none."""
        try:
            a = self.ask(method, path, body, timeout=timeout)
            return a.status, a.body.decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as e:
            return None, repr(e)

    def text(self, body):
        status, answer = self.try_to("POST", "/completion", body)
        return json.loads(answer)["content"] if status == 200 else None

    def health(self):
        return self.try_to("GET", "/health", timeout=60)[0]

    def end(self, number=signal.SIGTERM, seconds=120):
        """Sends a signal; exit code and how long it took."""
        start = time.monotonic()
        if number:
            self.daemon.send(number)
        try:
            code = self.daemon.process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        took = time.monotonic() - start
        self.stop(0)
        return code, took


class Asker(threading.Thread):
    """Asks, and keeps what comes of it."""

    def __init__(self, server, body, path="/completion"):
        super().__init__(daemon=True)
        self.server, self.body, self.path = server, body, path
        self.first = threading.Event()
        self.status, self.answer = None, b""
        self.start()

    def run(self):
        try:
            with contextlib.closing(self.server.request("POST", self.path, self.body, timeout=120)) as c:
                r = c.getresponse()
                self.status = r.status
                while True:
                    piece = r.read1(4096)
                    if not piece:
                        break
                    self.answer += piece
                    self.first.set()
        except (OSError, http.client.HTTPException):
            pass
        finally:
            self.first.set()


def failure(asker):
    """The error that an answer is, or ends with."""
    return json.loads(asker.answer.rstrip().split(b"\n")[-1].removeprefix(b"data: "))["error"]


# -- what is refused at once -------------------------------------------------------------------------------

r = lab.run("serve", "--host", "0.0.0.0", "--port", 0)
lab.check(r.code == 64 and "--api-key-file" in r.errors and "--insecure-no-key" in r.errors,
          "everybody's address needs a key file, or a word that it does not", r.errors)
with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    r = lab.run("serve", "--port", port)
    lab.check(r.code not in (0, None) and str(port) in r.errors, "a port that is taken is named", r.errors)

# -- workers that die under load ---------------------------------------------------------------------------

server = Mortal("--local", 2, "--parallel", 3, "--drain-timeout", 100, "--json")
lab.check(json.loads(server.said)["url"] == server.url, "it says where it listens", server.said)
before = server.text(SHORT)
lab.check(bool(before), "it answers", before)
for victim in range(2):
    askers = [Asker(server, ENDLESS), Asker(server, ENDLESS, "/v1/completions"),
              Asker(server, dict(ENDLESS, stream=False), "/v1/completions")]
    for a in askers[:2]:
        a.first.wait(60)
    wait_until(lambda: json.loads(server.try_to("GET", "/tern/cluster")[1])["scheduler"]["running"] == 3)
    workers = children_of(server.pid)
    lab.check(len(workers) == 2, "two workers run", workers)
    os.kill(workers[victim], signal.SIGKILL)
    start = time.monotonic()
    for a in askers:
        a.join(60)
    lab.check(not any(a.is_alive() for a in askers), "worker %d killed: no request hangs" % (victim + 1))
    lab.check(all(b"error" in a.answer and b"worker w" in a.answer for a in askers),
              "worker %d killed: each is told why" % (victim + 1), [a.answer[-300:] for a in askers])
    errors = [failure(a) for a in askers]
    lab.check([a.status for a in askers] == [200, 200, 500] and
              all(e["type"] == "server_error" for e in errors) and
              [e["code"] for e in errors] == [500, "pipeline_failed", "pipeline_failed"],
              "worker %d killed: it is a failure of the server, with a stream and without" % (victim + 1),
              ([a.status for a in askers], errors))
    status = server.try_to("POST", "/completion", SHORT)
    lab.check(status[0] in (200, 503),
              "worker %d killed: what comes now is refused, or served" % (victim + 1), status)
    ok = wait_until(lambda: server.health() == 200)
    lab.check(ok, "worker %d killed: it is ready again after %.1f s" % (victim + 1, time.monotonic() - start))
    lab.check(server.text(SHORT) == before, "worker %d killed: the same text as before" % (victim + 1))
    now = children_of(server.pid)
    lab.check(len(now) == 2 and not set(now) & set(workers),
              "worker %d killed: two new ones, no other child" % (victim + 1), (workers, now))
workers = children_of(server.pid)
os.kill(workers[0], signal.SIGKILL)
ok = wait_until(lambda: not set(children_of(server.pid)) & set(workers))
ok = ok and wait_until(lambda: server.health() == 200)
lab.check(ok, "one that dies while nobody asks is replaced before somebody does")
picture = json.loads(server.try_to("GET", "/tern/cluster")[1])
lab.check(picture["ready"] and picture["totals"]["reopened"] == 3 and picture["totals"]["failed"] == 6,
          "it counts them", picture["totals"])

# -- signals -----------------------------------------------------------------------------------------------

picture = server.request("GET", "/tern/events")
picture.getresponse().read1(100)
last = Asker(server, dict(SHORT, n_predict=200, ignore_eos=True, stream=True))
last.first.wait(60)
workers = children_of(server.pid)
code, seconds = server.end()
last.join(60)
picture.close()
lab.check(code == 0 and seconds < 80, "SIGTERM: ends with 0, whoever looks on (%s after %.1f s)" %
          (code, seconds), server.daemon.log())
lab.check(b'"stop":true' in last.answer.replace(b" ", b""), "SIGTERM: what was being answered is finished",
          last.answer[-300:])
lab.check(wait_until(lambda: not any(alive(w) for w in workers)), "SIGTERM: no worker is left")

# A machine of a cluster that goes and comes back.
cluster = Cluster(lab, 2, tag="back-", listen=["127.0.0.1:%d" % free_port() for _ in range(2)])
server = Mortal(*cluster.args())
lab.check(server.text(SHORT) == before, "over a cluster: the same text")
last = Asker(server, ENDLESS)
last.first.wait(60)
cluster.workers[0].send(signal.SIGKILL)
lab.check(wait_until(lambda: server.health() == 503), "a machine is gone: it is not ready")
last.join(60)
status, answer = server.try_to("POST", "/completion", SHORT)
lab.check(status == 503 and cluster.names[0] in answer, "and says which one", (status, answer))
time.sleep(0.5)
cluster.workers[0] = lab.daemon(cluster.names[0], cluster.keys[0][0], cluster.allow[0],
                                listen=cluster.endpoints[0].replace("tcp://", ""))
lab.check(wait_until(lambda: server.health() == 200), "it is back: ready again")
lab.check(server.text(SHORT) == before, "and the same text")
code, seconds = server.end()
lab.check(code == 0, "SIGTERM: ends with 0 (%s after %.1f s)" % (code, seconds))
lab.check(cluster.stop() == [0, 0], "the workers outlive it, and end cleanly")

server = Mortal("--drain-timeout", 2)
last = Asker(server, ENDLESS)
last.first.wait(60)
server.daemon.send(signal.SIGTERM)
lab.check(wait_until(lambda: server.daemon.count("still being answered")),
          "SIGTERM: it says what it waits for", server.daemon.log())
status = server.try_to("POST", "/completion", SHORT)[0]
lab.check(status in (None, 503), "while it drains nothing new is taken", status)
code, seconds = server.end(0)
last.join(60)
lab.check(code == 0 and seconds < 10 and not last.is_alive(),
          "an endless answer is broken off when its time is over (%s after %.1f s)" % (code, seconds))

server = Mortal("--local", 2, "--drain-timeout", 600)
last = Asker(server, ENDLESS)
last.first.wait(60)
workers = children_of(server.pid)
server.daemon.send(signal.SIGINT)
wait_until(lambda: server.daemon.count("still being answered"))
time.sleep(0.3)
lab.check(server.alive(), "SIGINT: it waits for what is being answered")
code, seconds = server.end(signal.SIGINT)
lab.check(code not in (0, None) and seconds < 3,
          "a second one does not wait (%s after %.1f s)" % (code, seconds))
lab.check(wait_until(lambda: not any(alive(w) for w in workers)), "and leaves no worker")
lab.end()
