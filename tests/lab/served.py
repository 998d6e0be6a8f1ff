# SPDX-License-Identifier: Apache-2.0
"""A `tern serve` that runs, and a client for it that a test can look into: times of events, half-read
answers, hang-ups."""
import http.client
import json
import os
import select
import socket
import time
import urllib.parse

from lab import Daemon


class Server:
    """Started on a free port with these arguments; `program` as in Lab.start."""

    def __init__(self, lab, *args, wait=60, program=None):
        self.lab = lab
        p = lab.start("serve", "--port", 0, "--json", *args, program=program)
        self.daemon = Daemon("serve", p)
        lab.daemons.append(self.daemon)
        line = b""
        if select.select([p.stdout], [], [], wait)[0]:
            line = p.stdout.readline()
        if not line:
            self.daemon.stop()
            raise RuntimeError("tern serve does not say where it listens:\n" + self.daemon.log())
        self.about = json.loads(line)
        url = urllib.parse.urlsplit(self.about["url"])
        self.host, self.port, self.pid = url.hostname, url.port, p.pid

    def stop(self, seconds=20):
        """The exit code, or None when it had to be killed."""
        code = self.daemon.stop(seconds)
        self.daemon.process.stdout.close()
        return code

    def alive(self):
        return self.daemon.process.poll() is None

    def connect(self, timeout=60, receive_buffer=None):
        """A bare socket."""
        s = socket.socket()
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.settimeout(timeout)
        s.connect((self.host, self.port))
        return s

    def ask(self, method, path, body=None, timeout=60, headers=None):
        """A whole answer."""
        c = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            start = time.monotonic()
            c.request(method, path, json.dumps(body) if isinstance(body, (dict, list)) else body,
                      dict({"Content-Type": "application/json"}, **(headers or {})))
            r = c.getresponse()
            data = r.read()
            return Answer(r.status, data, time.monotonic() - start, r.getheaders())
        finally:
            c.close()

    def get(self, path, timeout=60):
        return self.ask("GET", path, timeout=timeout)

    def post(self, path, body, timeout=60):
        return self.ask("POST", path, body, timeout)

    def stream(self, path, body, timeout=60, stop_after=None):
        """An answer by server-sent events, read to its end, or dropped after some events."""
        c = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            start = time.monotonic()
            c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            r = c.getresponse()
            if r.status != 200:
                return Answer(r.status, r.read(), time.monotonic() - start, r.getheaders())
            a = Answer(200, b"", 0, r.getheaders())
            for raw in r:
                line = raw.rstrip(b"\r\n")
                if line.startswith(b"data:"):
                    a.events.append(line[5:].strip())
                    a.times.append(time.monotonic() - start)
                    if stop_after and len(a.events) >= stop_after:
                        break
            a.seconds = time.monotonic() - start
            return a
        finally:
            c.close()

    def cluster(self):
        """The picture of the cluster; see GET /tern/cluster."""
        return self.get("/tern/cluster").json()

    def idle(self):
        """Why nothing runs here and nothing is held, or None when something is."""
        c = self.cluster()
        s = c["scheduler"]
        if s["running"] or s["waiting"] or s["in_flight"] or c["slots"]:
            return None
        return s["pages"]["free"] + s["pages"]["cached"] == s["pages"]["total"]


class Answer:
    def __init__(self, status, body, seconds, headers):
        self.status, self.body, self.seconds, self.headers = status, body, seconds, headers
        self.events, self.times = [], []

    def json(self):
        return json.loads(self.body)

    def parsed(self):
        """Events without the closing one of OpenAI's."""
        return [json.loads(e) for e in self.events if e != b"[DONE]"]


def resident_bytes(pid):
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))
