# SPDX-License-Identifier: Apache-2.0
"""Clients of all manners against one server: those that wait, hang up, read slowly, send rubbish or too much,
or never finish a request; and what must hold afterwards."""
import json
import random
import socket
import threading
import time

from lab import children_of, descriptors, resident_bytes

PROMPTS = ["Once upon a time", "The dog and the cat", "Tell me a story about a red ball.",
           "One day it rained", "Lily went to the park with her mum and " * 8]
REFUSALS = (429, 503)  # too many at once: refused, with a status


class Soak:
    """`clients` threads for so many seconds.  Afterwards `tally` has outcomes by kind, `wrong` what must not
    have happened."""

    def __init__(self, server, clients, seconds, seed=1, tokens=48, sample_every=1.0):
        self.server, self.n, self.seconds, self.seed, self.tokens = server, clients, seconds, seed, tokens
        self.sample_every, self.tally, self.wrong, self.lock = sample_every, {}, [], threading.Lock()
        self.slowest = {}  # seconds, by kind
        self.pids = {"tern": server.pid}
        for i, pid in enumerate(children_of(server.pid)):
            self.pids["ternd %d" % (i + 1)] = pid
        self.samples = {name: [] for name in self.pids}  # of (second, resident bytes, descriptors)
        self.pages = ["/health", "/v1/models", "/props", "/slots", "/tern/cluster"]
        self.pages += [p for p in ("/", "/metrics") if server.get(p).status != 404]  # --no-page, --metrics
        self.kinds = [(self.whole, 24), (self.streamed, 22), (self.chat, 8), (self.schema, 6),
                      (self.drop_stream, 10), (self.drop_whole, 10), (self.slow_reader, 4), (self.rubbish, 8),
                      (self.too_much, 3), (self.half_open, 3), (self.look, 8), (self.embed, 6)]

    # -- manners -------------------------------------------------------------------------------------------

    def body(self, r, **more):
        return dict({"prompt": r.choice(PROMPTS), "max_tokens": r.randint(1, self.tokens),
                     "temperature": r.choice([0, 1]), "seed": r.randrange(1 << 20)}, **more)

    def expect(self, a, kind, *statuses):
        if a.status not in statuses + REFUSALS:
            self.fail(kind, "status %d: %s" % (a.status, a.body[:200]))
        return "%d" % a.status

    def whole(self, r):
        body = self.body(r, n=r.choice([1, 1, 1, 2]))
        a = self.server.post("/v1/completions", body, timeout=300)
        if a.status == 200 and len(a.json["choices"]) != body["n"]:
            self.fail("whole", "choices: %s" % a.body[:200])
        return self.expect(a, "whole", 200)

    def chat(self, r):
        a = self.server.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": r.choice(PROMPTS)}],
            "max_tokens": r.randint(1, 20)}, 300)
        return self.expect(a, "chat", 200)

    def schema(self, r):
        a = self.server.post("/v1/completions", self.body(r, max_tokens=40, response_format={
            "type": "json_schema", "json_schema": {"name": "x", "schema": {
                "type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
                "additionalProperties": False}}}), 300)
        if a.status == 200 and a.json["choices"][0]["finish_reason"] == "stop" and \
                type(json.loads(a.json["choices"][0]["text"]).get("a")) is not bool:
            self.fail("schema", a.body[:200])
        return self.expect(a, "schema", 200)

    def streamed(self, r):
        a = self.server.stream("/v1/completions", self.body(r, stream=True), timeout=300)
        if a.status == 200 and (not a.events or a.events[-1] != "[DONE]"):
            self.fail("streamed", "a stream without its end: %s" % a.events[-1:])
        return self.expect(a, "streamed", 200)

    def embed(self, r):
        a = self.server.post("/v1/embeddings", {"input": r.choice(PROMPTS)}, 300)
        return self.expect(a, "embed", 200)

    def look(self, r):
        path = r.choice(self.pages)
        return self.expect(self.server.get(path, timeout=60), path, 200)

    def drop_stream(self, r):
        a = self.server.stream("/v1/completions", self.body(r, stream=True, max_tokens=400), timeout=300,
                               stop_after=r.randint(1, 12))
        return self.expect(a, "drop_stream", 200)

    def raw(self, body, path="/v1/completions", length=None, **socket_options):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        s = self.server.dial(**socket_options)
        s.sendall(("POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\nConnection: "
                   "close\r\nContent-Length: %d\r\n\r\n" % (path, self.server.host, self.server.port,
                                   len(data) if length is None else length)).encode())
        return s, data

    def drop_whole(self, r):
        s, data = self.raw(self.body(r, max_tokens=400, prompt=PROMPTS[-1] * 4))
        with s:
            s.sendall(data)
            time.sleep(r.random() * 0.3)
        return "hung up"

    def slow_reader(self, r):
        body = self.body(r, stream=True, max_tokens=300, logprobs=5, n=2)  # more than sockets hold
        s, data = self.raw(body, receive_buffer=2048)
        with s:
            s.sendall(data)
            got, end = b"", time.monotonic() + r.uniform(1, 4)
            while time.monotonic() < end:
                more = s.recv(64)
                if not more:
                    break
                got += more
                time.sleep(0.02)
        if not got.startswith(b"HTTP/1.1 "):
            self.fail("slow_reader", "no status: %s" % got[:100])
        return got[9:12].decode("ascii", "replace")

    def status_of(self, s, kind, *statuses):
        """Of a raw connection; one that is closed without a status is counted as such."""
        got = b""
        try:
            while len(got) < 12:
                more = s.recv(4096)
                if not more:
                    break
                got += more
        except ConnectionError:
            pass
        if not got:
            if 0 not in statuses:
                self.fail(kind, "closed without a status")
            return "closed"
        code = int(got[9:12]) if got.startswith(b"HTTP/1.") else -1
        if code not in statuses + REFUSALS:
            self.fail(kind, "status %d: %s" % (code, got[:200]))
        return str(code)

    def rubbish(self, r):
        k = r.randrange(6)
        if k == 0:  # JSON that is none
            data = json.dumps(self.body(r)).encode()[:r.randint(1, 30)]
            return self.expect(self.server.ask("POST", "/v1/completions", data), "rubbish", 400)
        if k == 1:  # fields of the wrong kind
            a = self.server.post("/v1/completions", self.body(r, max_tokens="x"))
            return self.expect(a, "rubbish", 400)
        if k == 2:
            return self.expect(self.server.get("/v1/nowhere"), "rubbish", 404)
        if k == 3:
            return self.expect(self.server.ask("DELETE", "/v1/completions"), "rubbish", 404, 405)
        if k == 4:
            a = self.server.post("/v1/completions", self.body(r, prompt=[[[1]]]))
            return self.expect(a, "rubbish", 400)
        with self.server.dial() as s:  # not HTTP at all: a status, or the door
            data = bytes(r.randrange(256) for _ in range(200)) + b"\r\n\r\n"
            s.sendall(data)
            # A line that begins with NUL is empty to libmicrohttpd, and empty lines may precede a request:
            # so none has come yet.
            late = [408] if data[0] == 0 else []
            return self.status_of(s, "rubbish", 400, 404, 405, 501, 505, 0, *late)

    def too_much(self, r):
        if r.random() < 0.5:
            s, _ = self.raw(b"", length=1 << 30)
            with s:
                try:
                    for _ in range(64):
                        s.sendall(b" " * 65536)
                except OSError:
                    pass  # it need not read on
                return self.status_of(s, "too_much", 413, 0)
        with self.server.dial() as s:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: %s:%d\r\nX: %s\r\n\r\n" % (
                self.server.host.encode(), self.server.port, b"y" * 200000))
            return self.status_of(s, "too_much", 400, 413, 431, 0)

    def half_open(self, r):
        s, data = self.raw(self.body(r))
        with s:
            s.sendall(data[:len(data) // 2])
            time.sleep(r.uniform(0.5, 3))
        return "left"

    # -- the run -------------------------------------------------------------------------------------------

    def fail(self, kind, what):
        with self.lock:
            self.wrong.append("%s: %s" % (kind, what))

    def client(self, k, end):
        r = random.Random(self.seed * 1000 + k)
        manners, weights = zip(*self.kinds)
        first = manners[k % len(manners)]  # so that there are some of all
        while time.monotonic() < end and len(self.wrong) < 100:
            what, first = first or r.choices(manners, weights)[0], None
            name, began = what.__name__, time.monotonic()
            try:
                outcome = what(r)
            except socket.timeout:
                self.fail(name, "no answer in time")
                outcome = "timeout"
            except Exception as e:
                self.fail(name, repr(e))
                outcome = "error"
            with self.lock:
                self.tally.setdefault(name, {}).setdefault(outcome, 0)
                self.tally[name][outcome] += 1
                self.slowest[name] = max(self.slowest.get(name, 0), time.monotonic() - began)

    def sample(self):
        now = time.monotonic() - self.started
        for name, pid in self.pids.items():
            try:
                self.samples[name].append((now, resident_bytes(pid), descriptors(pid)))
            except OSError:
                self.fail(name, "the process is gone")
                return False
        return True

    def run(self, progress=None):
        self.started = time.monotonic()
        end = self.started + self.seconds
        self.sample()
        threads = [threading.Thread(target=self.client, args=(k, end), daemon=True) for k in range(self.n)]
        for t in threads:
            t.start()
        told = 0
        while time.monotonic() < end and self.sample() and self.server.alive():
            if progress and time.monotonic() - self.started - told >= 30:
                told = time.monotonic() - self.started
                progress(self)
            time.sleep(self.sample_every)
        for t in threads:
            t.join(320)
        if any(t.is_alive() for t in threads):
            self.fail("clients", "some are still waiting")

    def settle(self, seconds=60):
        """Waits until nothing runs and nothing is held; whether that came true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.server.idle():
                    return True
            except OSError:
                pass
            time.sleep(0.2)
        return False

    def total(self):
        return sum(sum(x.values()) for x in self.tally.values())

    def grown(self, name):
        """Resident megabytes an hour, fitted over the second half."""
        half = [(t, b) for t, b, _ in self.samples[name] if t >= self.samples[name][-1][0] / 2]
        n = len(half)
        if n < 3:
            return 0.0
        mean_t, mean_b = sum(t for t, _ in half) / n, sum(b for _, b in half) / n
        over = sum((t - mean_t) ** 2 for t, _ in half)
        return sum((t - mean_t) * (b - mean_b) for t, b in half) / over * 3600 / 1e6 if over else 0.0

    def table(self):
        lines = ["| kind | slowest s | outcomes |", "| :--- | ---: | :--- |"]
        for kind, outcomes in sorted(self.tally.items()):
            lines.append("| %s | %.1f | %s |" % (kind, self.slowest[kind], ", ".join(
                "%s: %d" % x for x in sorted(outcomes.items()))))
        return "\n".join(lines)
