# SPDX-License-Identifier: Apache-2.0
"""`tern chat --server`: the same conversation as with a model of one's own, over `tern serve`; and what
servers do that are hostile, slow, or break off."""
import http.server
import json
import os
import re
import signal
import subprocess
import threading
import time

from lab import Lab, wait_until
from serving import Server

lab = Lab()
WORDS = ["Once upon a time there was a king.", "The king had a daughter.", "She met a wolf."]
GREEDY = ["--temp", 0, "-n", 20, "-q"]


def chat(url, *args, words=(), stdin=None):
    text = "".join(w + "\n" for w in words).encode() if stdin is None else stdin
    return lab.run("chat", "--server", url, *args, stdin=text)


# -- tern serve ----------------------------------------------------------------------------------------------

server = Server(lab, "-m", lab.model, "--chat-template", "plain", "--drain-timeout", 0,
                "--context-shift", key="k" * 20)
key = ["--api-key-file", lab.write("key", "me " + "k" * 20 + "\n")]
saved, other = lab.path("saved.json"), lab.path("other.json")
said = [WORDS[0], "/save " + saved, WORDS[1], "/system Speak of wolves.", "/system", WORDS[2], "/stats",
        "/reset", WORDS[0], "/load " + saved, WORDS[1], "/save " + other, "/nonsense"]
mine = lab.run("chat", "--chat-template", "plain", *GREEDY[:-1],
               stdin="".join(w + "\n" for w in said).encode())
with open(other, encoding="utf-8") as f:
    mine_log = json.load(f)
theirs = chat(server.url, *key, *GREEDY[:-1], words=said)
with open(other, encoding="utf-8") as f:
    their_log = json.load(f)
lab.check(mine.text == theirs.text and len(mine.text) > 200, "the same answers as in one process",
          [mine.text, theirs.text, theirs.errors])
lab.check(mine_log == their_log and len(their_log["messages"]) == 4, "and the same files", their_log)
for line in ("2 messages written", "system prompt set", "\nSpeak of wolves.\n", "a new conversation",
             "2 messages read", "/nonsense is no command", "20 tokens, ", "fable at http://"):
    lab.check(line in theirs.errors, "stderr has '%s'" % line.strip(), theirs.errors)
r = chat(server.url, *key, *GREEDY, "--json", words=WORDS[:2])
got = [json.loads(line) for line in r.text.splitlines()]
lab.check(len(got) == 2 and got[1]["usage"]["completion_tokens"] == 20 and
          got[0]["finish_reason"] == "length" and
          got[1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 10 and
          "".join(a["content"] + "\n" for a in got) == "".join(mine.text.splitlines(True)[:2]),
          "--json, with the server's usage", r.text + r.errors)
r = chat(server.url, *key, "--temp", 0, "-n", 8, "-q", "--json-schema", '{"type": "integer"}', "-p", "Count.")
lab.check(r.code == 0 and re.fullmatch(r"-?[0-9]+\n", r.text), "--json-schema goes along", r.text + r.errors)
r = chat(server.url, "-p", "x")
lab.check(r.code == 77 and "--api-key-file" in r.errors, "without a key: told what to do", r.errors)

# A stopped answer ends on the server, too.
p = subprocess.Popen([lab.tern, "chat", "--server", server.url + "/v1/", *key, "-n", "1000000",
                      "--ignore-eos", "-p", WORDS[0]], env=lab.env,
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
p.stdout.read(20)
p.send_signal(signal.SIGINT)
p.communicate(timeout=60)
lab.check(p.returncode == 130 and
          wait_until(lambda: server.get("/tern/cluster").json["totals"]["cancelled"] == 1),
          "Ctrl-C closes the connection, and the server cancels", server.get("/tern/cluster").json["totals"])
server.check_stop()
lab.check(chat(server.url, "-p", "x").code == 69, "a server that is not there: 69")
for wrong in (["-m", lab.model], ["--local", 2], ["--cluster", "x"], ["-t", 1], ["--chat-template", "plain"]):
    r = chat("http://127.0.0.1:1", *wrong, "-p", "x")
    lab.check(r.code == 64 and "exclude each other" in r.errors, "not with " + wrong[0], r.errors)
lab.check(lab.run("chat", "--api-key-file", "x", "-p", "x").code == 64, "--api-key-file is for servers")

# -- strangers -----------------------------------------------------------------------------------------------


def chunk(text):
    return b"data: %s\n\n" % json.dumps({"choices": [{"delta": {"content": text}}]}).encode()


END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HELLO = chunk("Hel") + chunk("lo") + END
SSE, JSON = "text/event-stream", "application/json"
# What is sent, in pieces, for a model of this name.
STREAMS = {
    "plain": (200, SSE, [HELLO]),
    "bytes": (200, SSE + "; charset=utf-8", [HELLO[i:i + 1] for i in range(len(HELLO))]),
    "returns": (200, SSE, [b"\xef\xbb\xbf: hi\r\nevent: x\r\nid\r\n" + HELLO.replace(b"\n", b"\r\n")]),
    "several": (200, SSE, [chunk("Hel"), b'data: {"choices":\n',
                            b'data: [{"delta":{"content":"lo"}}]}\n\n' + END]),
    "whole": (200, JSON, [b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}']),
    "nodone": (200, SSE, [HELLO.replace(b"data: [DONE]\n\n", b"")]),
    "odd": (200, SSE, [b'data: {"choices":[]}\n\n', chunk(None), HELLO,
                       b'data: {"choices":[],"usage":{"prompt_tokens":-1,"completion_tokens":1e9}}\n\n']),
    "control": (200, SSE, [chunk("\x1b]0;owned\x07\u009b2J\0x"), END]),
    "garbage": (200, SSE, [chunk("some "), b"data: \xff\xfe{{{\n\n"]),
    "error": (200, SSE, [chunk("some "), b'data: {"error":{"message":"out of\\u001b luck"}}\n\n']),
    "hangup": (200, SSE, [chunk("some ")]),
    "short": (200, SSE, None),
    "html": (500, "text/html", [b"<html>\x1b[2J" * 100]),
    "page": (200, "text/html", [b"<html>"]),
    "refused": (400, JSON, [b'{"error":{"message":"no such\\u001b model"}}']),
    "moved": (302, "text/html", [b""]),
    "endless": (200, SSE, [b"data: " + b"x" * (1 << 20)] * 6),
    "deep": (200, SSE, [b"data: " + b"[" * 100000 + b"\n\n"]),
    "number": (200, SSE, [b'data: 7\n\n']),
}
GOOD = ("plain", "bytes", "returns", "several", "whole", "nodone", "odd")
asked = []


class Stranger(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        models = [{"id": "plain\x1b[2J"}] if self.path.startswith("/one") else [{"id": "a"}, {"id": "b"}]
        body = json.dumps({"data": models}).encode()
        self.send_response(200 if "/v1/models" in self.path else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked.append((self.path, dict(self.headers), body))
        status, kind, pieces = STREAMS.get(body["model"], (200, SSE, [HELLO]))
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        if pieces is None:
            self.send_header("Content-Length", "1000")
            pieces = [chunk("some ")]
        self.end_headers()
        try:
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
            if body["model"] == "slow":
                time.sleep(100)
        except OSError:
            pass

    def log_message(self, *_):
        pass


stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
stranger.daemon_threads = True
threading.Thread(target=stranger.serve_forever, daemon=True).start()
base = "http://127.0.0.1:%d" % stranger.server_port
for name in GOOD:
    r = chat(base, "--model", name, "-p", "x")
    lab.check(r.code == 0 and r.text == "Hello\n", "a stream: " + name, [r.code, r.text, r.errors])
for name, code, words in (("garbage", 65, "no JSON"), ("error", 69, "out of? luck"),
                          ("hangup", 69, "broke off"), ("short", 69, "broke off"),
                          ("html", 69, "refuses (500)"),
                          ("page", 65, "no answer of a"), ("refused", 69, "no such? model"),
                          ("moved", 69, "refuses (302)"),
                          ("endless", 65, "more than"), ("deep", 65, "no JSON"), ("number", 65, "no JSON")):
    r = chat(base, "--model", name, "-p", "x", "-p", "y")
    lab.check(r.code == code and words in r.errors and "\x1b" not in r.errors and
              r.text in ("", "some \n"), "a stranger: " + name, [r.code, r.text[:200], r.errors[:400]])
r = chat(base, "--model", "control", "-p", "x")
lab.check(r.code == 0 and r.text == "\x1b]0;owned\x07\u009b2J\0x\n", "a pipe gets the bytes", r.out)

# A terminal does not (a pseudo-terminal is enough: what is written there is what counts).
master, slave = os.openpty()
p = subprocess.Popen([lab.tern, "chat", "--server", base + "/one", "-p", "x", "--model", "control"],
                     stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=lab.env)
code = p.wait(60)
os.close(slave)
seen = b""
try:
    while True:
        seen += os.read(master, 10000)
except OSError:
    pass  # that was all
lab.check(code == 0 and b"^[]0;owned^G" in seen and b"\x1b" not in seen and b"\xc2\x9b" not in seen,
          "on a terminal control characters are shown", seen)

# What is sent: only what was said.
asked.clear()
r = chat(base + "/one", "--system", "Be brief.", words=["a", "/stats", "b"])
lab.check(r.code == 0 and "\x1b" not in r.errors and "plain^[[2J at http" in r.errors, "the server's model",
          r.errors)
path, headers, body = asked[1]
lab.check(path == "/one/v1/chat/completions" and "Authorization" not in headers and
          sorted(body) == ["messages", "model", "stream", "stream_options"] and body["stream"] is True and
          [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"],
          "standard fields alone", asked)
asked.clear()
chat(base, "--model", "plain", "--temp", 0.5, "--top-k", 3, "-s", 7, "-n", 9, "-r", "END",
     "--logit-bias", "5-inf", "-p", "x", "--api-key-file", lab.write("k", "# none\n\nname the-key\n"))
path, headers, body = asked[0]
lab.check(body["temperature"] == 0.5 and body["top_k"] == 3 and body["seed"] == 7 and
          body["max_tokens"] == 9 and body["stop"] == ["END"] and body["logit_bias"] == {"5": -100} and
          "top_p" not in body and
          headers["Authorization"] == "Bearer the-key", "settings that were given", [headers, body])
r = chat(base, "-p", "x")
lab.check(r.code == 64 and "--model" in r.errors, "several models: one must be chosen", r.errors)

# A slow server is not waited for: Ctrl-C ends it at once.
STREAMS["slow"] = (200, SSE, [chunk("some ")])
p = subprocess.Popen([lab.tern, "chat", "--server", base, "--model", "slow", "-p", "x"], env=lab.env,
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
p.stdout.read(5)
start = time.monotonic()
p.send_signal(signal.SIGTERM)
p.communicate(timeout=120)
lab.check(p.returncode == 143 and time.monotonic() - start < 60, "a slow server does not hold the program")
lab.end()
