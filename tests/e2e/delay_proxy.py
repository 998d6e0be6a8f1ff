# SPDX-License-Identifier: Apache-2.0
"""The delay proxy: delays are what was asked for, bytes stay what they were, full buffers hold senders back;
and a cluster behind it gives the same text, as late as the links say."""
import hashlib
import json
import os
import socket
import threading
import time

from lab import Cluster, Lab, free_port
from links import Proxy, delayed
from machines import cpu_seconds

lab = Lab()


def server(handle):
    """A listener whose connections are handled by threads; its port."""
    s = socket.create_server(("127.0.0.1", 0), backlog=64)

    def serve():
        while True:
            try:
                c, _ = s.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(c,), daemon=True).start()
    threading.Thread(target=serve, daemon=True).start()
    return s.getsockname()[1]


def echo(c):
    with c:
        try:
            while True:
                data = c.recv(65536)
                if not data:
                    break
                c.sendall(data)
        except OSError:
            pass


def connect(port):
    c = socket.create_connection(("127.0.0.1", port), timeout=60)
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return c


def round_trips(port, n):
    c, times = connect(port), []
    with c:
        for _ in range(n):
            start = time.monotonic()
            c.sendall(b"x" * 100)
            got = 0
            while got < 100:
                got += len(c.recv(100 - got))
            times.append((time.monotonic() - start) * 1e3)
    return sorted(times)


def exchange(port, blob, results):
    """Sends everything and a half-close while reading what comes back."""
    c, back = connect(port), hashlib.sha256()

    def send():
        c.sendall(blob)
        c.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=send, daemon=True)
    t.start()
    while True:
        data = c.recv(65536)
        if not data:
            break
        back.update(data)
    t.join()
    c.close()
    results.append(back.digest() == hashlib.sha256(blob).digest())


# -- times ---------------------------------------------------------------------------------------------------
plain = server(echo)
p = Proxy(lab, [plain, plain, plain], [["--both", "delay=0"], ["--up", "delay=30", "--down", "delay=10"],
                                       ["--both", "delay=10,jitter=10"]])


def quiet_trips(link, n, most):
    """Round trips, again where half of them took longer: other programs may have had the processors."""
    for _ in range(10):
        times = round_trips(p.ports[link], n)
        if times[n // 2] < most:
            break
    return times


near = quiet_trips(0, 100, 20)
lab.check(near[50] < 20, "without a delay a round trip is short", near[50])
far = quiet_trips(1, 12, 55)
lab.check(far[0] >= 40 and far[6] < 40 + 15, "30 ms there and 10 back are 40", far)
shaky = quiet_trips(2, 30, 46)
lab.check(shaky[0] >= 20 and 24 < shaky[15] < 36 + 10 and shaky[-1] - shaky[0] > 3,
          "10 to 20 ms each way are 30 in the mean", shaky)

for _ in range(5):
    r = lab.run("--calibrate", "--both", "delay=5", "--rounds", 100, "--json", program=p.program)
    c = json.loads(r.text)
    if max(c["added_us"]["p50"], c["beyond_delay_us"]["p50"]) < 5000:
        break
lab.check(r.code == 0 and c["rounds"] == 100 and c["delay_ms"] == 5 and
          -50 < c["added_us"]["p50"] < 5000 and c["added_us"]["p50"] <= c["added_us"]["p99"] and
          -50 < c["beyond_delay_us"]["p50"] < 5000, "it measures what it adds by itself", r.text + r.errors)

# -- bytes ---------------------------------------------------------------------------------------------------
blobs = [os.urandom(300000 + 1000 * i) for i in range(8)]
results = []
q = Proxy(lab, [plain], [["--both", "delay=3,jitter=5,rate=8e6,stall=1/50", "--buffer", "50000"]])
start = time.monotonic()
threads = [threading.Thread(target=exchange, args=(q.ports[0], b, results)) for b in blobs]
for t in threads:
    t.start()
for t in threads:
    t.join(120)
seconds = time.monotonic() - start
lab.check(results == [True] * 8, "bytes of eight connections come back as they were", results)
total = sum(map(len, blobs))
lab.check(seconds > 0.9 * total / 8e6, "and no faster than the rate",
          "%.2f s for %d bytes" % (seconds, total))
said = q.stop()
lab.check("link 1: 8 connections, %d bytes on, %d back" % (total, total) in said, "it says what went through",
          said)

# -- limits --------------------------------------------------------------------------------------------------
held = []


def hold(c):
    held.append(c)  # accepts and never reads


p2 = Proxy(lab, [server(hold)], [["--buffer", "65536"]])
c = connect(p2.ports[0])
c.settimeout(1)
sent = 0
try:
    while sent < 256 << 20:
        sent += c.send(b"y" * 65536)
except socket.timeout:
    pass
lab.check(sent < 64 << 20, "a receiver that does not read holds the sender back", sent)
before = cpu_seconds(p2.process.pid)
time.sleep(0.5)
used = cpu_seconds(p2.process.pid) - before
lab.check(used < 0.1, "and waiting costs nothing", used)
c.close()

p3 = Proxy(lab, [free_port(), server(lambda c: c.close())], [[], ["--both", "delay=100"]])
try:  # the reset may come before connect() has returned
    c = connect(p3.ports[0])
    c.sendall(b"x")
    ended = c.recv(10) == b""
except ConnectionError:
    ended = True
lab.check(ended, "a target that is not there ends the connection")
start = time.monotonic()
c = connect(p3.ports[1])
lab.check(c.recv(10) == b"" and time.monotonic() - start >= 0.1, "an end travels as late as bytes")
for args in (["--listen", "127.0.0.1:0"], ["--to", "127.0.0.1:1"], [], ["stray"],
             ["--both", "delay=x", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1"],
             ["--listen", "nowhere", "--to", "127.0.0.1:1"]):
    r = lab.run(*args, program=p.program)
    lab.check(r.code == 64 and r.errors, "delay_proxy %s is refused" % " ".join(args), r.errors)

# -- a cluster -----------------------------------------------------------------------------------------------
PROMPT = ["run", "-p", "Once upon a time", "-n", 12, "--temp", 0, "-q", "--ignore-eos"]
alone = lab.run(*PROMPT)
proxies = []
cluster = Cluster(lab, 2, via=delayed(lab, "delay=20,jitter=2", proxies))
start = time.monotonic()
r = lab.run(*PROMPT, *cluster.args())
seconds = time.monotonic() - start
lab.check(r.code == 0 and alone.code == 0 and r.out == alone.out and len(r.out) > 10,
          "the same text behind links of 20 ms", r.errors)
lab.check(seconds > 12 * 3 * 0.020, "and each token has gone over three of them", seconds)
cluster.stop()
for x in proxies:
    x.stop()
lab.end()
