# SPDX-License-Identifier: Apache-2.0
"""A `tern serve` that runs, and a client for it that a test can look into: times of events, half-read
answers, hang-ups."""
import http.client
import json
import re
import select
import socket
import time
import urllib.parse

from lab import Daemon


class Answer:
    """headers: a dict with names in small letters; times: when each event of a stream came, in seconds."""

    def __init__(self, status, headers, body, seconds=0.0, times=()):
        self.status, self.headers, self.body = status, headers, body
        self.seconds, self.times = seconds, times

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    @property
    def events(self):
        """The data of each event of a stream."""
        return [e[len("data: "):].strip() for e in self.body.decode().split("\n\n") if e.startswith("data: ")]

    def parsed(self):
        """Events without the closing one of OpenAI's."""
        return [json.loads(e) for e in self.events if e != "[DONE]"]


def lower(response):
    return {k.lower(): v for k, v in response.getheaders()}


class Server:
    """Started on a free port with these arguments; with `key` for those alone who know it, as this client
    does, or one of `more_keys`.  `said` is what it says when it is ready: with --json an object."""

    def __init__(self, lab, *args, key=None, more_keys=(), wait=120):
        self.lab, self.key = lab, key
        if key:
            lines = ["test%d %s\n" % line for line in enumerate([key, *more_keys])]
            args += ("--api-key-file", lab.write("serve%d.keys" % len(lab.daemons), "".join(lines)))
        p = lab.start("serve", "--port", 0, *args)
        self.daemon = Daemon("serve", p)
        lab.daemons.append(self.daemon)
        self.said = ""
        if select.select([p.stdout], [], [], wait)[0]:
            self.said = p.stdout.readline().decode()
        url = re.search(r'https?://[^\s"]+', self.said)
        if not url:
            self.daemon.stop()
            raise RuntimeError("tern serve does not say where it listens: %r\n%s" %
                               (self.said, self.daemon.log()))
        self.url, self.pid = url.group(0), p.pid
        where = urllib.parse.urlsplit(self.url)
        self.host, self.port = where.hostname, where.port

    def stop(self, seconds=60):
        """The exit code, or None when it had to be killed."""
        code = self.daemon.stop(seconds)
        self.daemon.process.stdout.close()
        return code

    def check_stop(self):
        self.lab.check(self.stop() == 0, "the server ends when told to", self.daemon.log())

    def alive(self):
        return self.daemon.process.poll() is None

    # -- asking --------------------------------------------------------------------------------------------

    def dial(self, timeout=60, receive_buffer=None):
        """A bare socket."""
        s = socket.socket()
        if receive_buffer:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        s.settimeout(timeout)
        s.connect((self.host, self.port))
        return s

    def request(self, method, path, body=None, timeout=60, headers=None):
        """A connection on which this was asked and nothing is read yet.  body: an object to be sent as JSON,
        or bytes."""
        c = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        h = {"Content-Type": "application/json"}
        if self.key:
            h["Authorization"] = "Bearer " + self.key
        h.update(headers or {})
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            c.request(method, path, data, h)
        except BaseException:
            c.close()
            raise
        return c

    def ask(self, method, path, body=None, timeout=60, headers=None):
        """A whole answer."""
        start = time.monotonic()
        c = self.request(method, path, body, timeout, headers)
        try:
            r = c.getresponse()
            data = r.read()
            return Answer(r.status, lower(r), data, time.monotonic() - start)
        finally:
            c.close()

    def stream(self, path, body, timeout=60, stop_after=None):
        """An answer by server-sent events, read to its end, or dropped after some events."""
        start = time.monotonic()
        c = self.request("POST", path, body, timeout)
        try:
            r = c.getresponse()
            lines, times = [], []
            for line in r:
                lines.append(line)
                if line.startswith(b"data:"):
                    times.append(time.monotonic() - start)
                    if len(times) == stop_after:
                        break
            return Answer(r.status, lower(r), b"".join(lines), time.monotonic() - start, times)
        finally:
            c.close()

    def get(self, path, timeout=60):
        return self.ask("GET", path, timeout=timeout)

    def post(self, path, body, timeout=60):
        return self.ask("POST", path, body, timeout)

    def cluster(self):
        """The picture of the cluster; see GET /tern/cluster."""
        return self.get("/tern/cluster").json

    def idle(self):
        """Whether nothing runs here and nothing is held."""
        c = self.cluster()
        s = c["scheduler"]
        if s["running"] or s["waiting"] or s["in_flight"] or c["slots"]:
            return False
        return s["pages"]["free"] + s["pages"]["cached"] == s["pages"]["total"]
