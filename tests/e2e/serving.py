# SPDX-License-Identifier: Apache-2.0
"""A tern serve for tests: started on any port, asked over HTTP, stopped."""
import http.client
import json
import re
import signal
import threading

from lab import SANITIZER


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    def events(self):
        """The data of each event of a stream."""
        return [e[len("data: "):] for e in self.body.decode().split("\n\n") if e.startswith("data: ")]


class Server:
    def __init__(self, lab, *where, key=None, args=()):
        self.lab, self.key = lab, key
        command = ["serve", "--port", 0] + list(where) + list(args)
        if key:
            command += ["--api-key-file", lab.write("keys", "[test] %s\n" % key if key else "")]
        self.process = lab.start(*command)
        line = self.process.stdout.readline().decode()
        found = re.search(r"(https?)://(127\.0\.0\.1):(\d+)", line)
        if not found:
            self.process.kill()
            raise SystemExit("tern serve does not say where it listens: %r\n%s" %
                             (line, self.process.stderr.read().decode()))
        self.url, self.port = found.group(0), int(found.group(3))
        self.errors = b""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        self.errors += self.process.stderr.read()

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """body: an object to be sent as JSON, or bytes."""
        c = self.connect(timeout)
        h = {"Content-Type": "application/json"}
        if self.key:
            h["Authorization"] = "Bearer " + self.key
        h.update(headers or {})
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            c.request(method, path, data, h)
            r = c.getresponse()
            return Answer(r.status, {k.lower(): v for k, v in r.getheaders()}, r.read())
        finally:
            c.close()

    def get(self, path, **kwargs):
        return self.ask("GET", path, **kwargs)

    def post(self, path, body, **kwargs):
        return self.ask("POST", path, body, **kwargs)

    def stop(self, seconds=20):
        """SIGTERM; the exit code is checked, and that no sanitizer had anything to say."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except Exception:
            self.process.kill()
            code = None
        self.reader.join(5)
        text = self.errors.decode("utf-8", "replace")
        self.lab.check(code is not None and code in (0, 143) and not SANITIZER.search(text),
                       "the server ends when told to", "code %s\n%s" % (code, text))
