# SPDX-License-Identifier: Apache-2.0
"""A server of the page's tests that says whatever a model or a cluster may ever say."""
import http.server
import json
import re
import threading
import time


class Faker(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, page, policy):
        super().__init__(("127.0.0.1", 0), Answers)
        self.page, self.policy = page, policy
        self.answer, self.pause, self.status, self.plain = ["a", "b"], 0, 200, False
        self.code = "overloaded"  # of other statuses
        self.key = None
        self.bodies, self.keys = [], []
        self.gone = self.listeners = self.polls = 0
        self.n_stages, self.silent, self.no_events, self.steps = 3, False, False, 0
        self.born = time.monotonic()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        self.url = "http://127.0.0.1:%d/" % self.server_address[1]

    def picture(self, since):
        now = int((time.monotonic() - self.born) * 1e6) + 1000000
        n, steps = self.n_stages, []
        if since is not None:
            self.steps += 1
            at = now - 60000
            stages = [[at + 9000 * i, at + 9000 * i + 2000, at + 9000 * i + 8000, 640] for i in range(n)]
            home = at + 9000 * n
            steps = [{"n": self.steps, "sent": at - 1000, "home": home, "taken": home + 500,
                      "done": home + 2000, "prompt": 64 * (self.steps % 2), "decode": 2, "stages": stages}]
        names = ["coordinator"] + ["w%d" % (i + 1) for i in range(n)] + ["coordinator"]
        return {
            "version": "0", "uptime_s": now / 1e6, "now_us": now, "ready": True, "why": None,
            "model": {"name": "<b>model</b>", "architecture": "bitnet", "layers": 4 * n, "ctx": 2048,
                "file_bytes": 9},
            "coordinator": {"threads": 1, "cpu": "ref", "memory_bytes": 5e6, "head_ms_per_step": 1,
                "idle_share": 0.5},
            "stages": [{"name": "w%d" % (i + 1), "endpoint": "127.0.0.1:%d" % i, "cpu": "ref", "threads": 1,
                        "layers": [4 * i, 4 * i + 3], "weight_bytes": 1e6, "kv_bytes": 1e6,
                            "memory_bytes": 4e6,
                        "steps": self.steps, "ms_per_step": None, "tokens_per_s": 12.5, "idle_share": 0.25,
                        "queue_ms": 1, "rejected": 0, "suspect": i == 1, "silent_ms": 900,
                            "round_trip_us": 100,
                        "clock_within_us": 9} for i in range(n)],
            "hops": [{"from": names[i], "to": names[i + 1], "bytes": 9e5, "bytes_per_s": 5e4,
                      "p50_us": 80 if i else None, "p99_us": None, "within_us": None if i else 45}
                     for i in range(n + 1)],
            "scheduler": {"parallel": 4, "running": 1, "waiting": 0, "max_queue": 8, "in_flight": 1,
                "max_in_flight": 4,
                          "chunk": 64, "share": 1, "groups": 1, "pages": {"total": 9, "free": 5, "cached": 1},
                          "prefix": {"lookups": 2, "hits": 1, "tokens": 7, "evicted": 0}},
            "rates": {"prompt_per_s": 1, "answer_per_s": 12.5}, "totals": {"answer_tokens": 3,
                "prompt_tokens": 4},
            "latency": {"first_token_ms": {"p50": 5, "p99": 9}, "between_tokens_ms": {"p50": 1, "p99": None}},
            "slots": [{"slot": 0, "job": 7, "prompting": True, "prompt": 90, "prompt_done": 30, "cached": 0,
                       "tokens": 0, "ctx": 2048, "seconds": 1}], "steps": steps}


class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def whole(self, status, kind, body, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, value, status=200):
        self.whole(status, "application/json", json.dumps(value).encode())

    def begin(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, value):
        text = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(("data: " + text + "\r\n\r\n").encode())
        self.wfile.flush()

    def refused(self):
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.key and self.headers.get("Authorization") != "Bearer " + self.server.key:
            self.json({"error": {"message": "Invalid API key"}}, 401)
            return True
        return False

    def do_GET(self):
        s, path = self.server, self.path.split("?")[0]
        if path == "/":
            return self.whole(200, "text/html; charset=utf-8", s.page, Content_Security_Policy=s.policy)
        if self.refused():
            return None
        if path == "/props":
            return self.json({"chat_template": "" if s.plain else "{{ x }}", "default_generation_settings": {
                "params": {"temperature": 0.8, "seed": 4294967295, "max_tokens": -1, "stop": []}}})
        if path == "/tern/cluster":
            since = re.search(r"since=(\d+)", self.path)
            s.polls += 1 if since else 0
            return self.json(s.picture(int(since.group(1)) if since else None))
        if path == "/tern/events" and not s.no_events:
            return self.news()
        return self.json({"error": {"message": "There is nothing here"}}, 404)

    def news(self):
        s = self.server
        self.begin()
        s.listeners += 1
        try:
            while True:
                if s.silent:
                    self.wfile.write(b": still here\n\n")
                    self.wfile.flush()
                else:
                    self.event(s.picture(0))
                time.sleep(0.1)
        except OSError:
            s.listeners -= 1

    def do_POST(self):
        s = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        s.bodies.append(body)
        if self.refused():
            return None
        if s.status != 200:
            return self.json({"error": {"message": "the queue <i>is</i> full", "code": s.code}}, s.status)
        self.begin()
        try:
            for piece in s.answer:
                if piece is None: # as if the server died
                    return self.connection.close()
                choice = {"delta": {"content": piece}} if "messages" in body else {"text": piece}
                self.event({"choices": [choice]})
                time.sleep(s.pause)
            self.event({"choices": [{"delta": {}, "text": "", "finish_reason": "stop"}]})
            self.event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": len(s.answer)}})
            self.event("[DONE]")
        except OSError:
            s.gone += 1
        return None
