# SPDX-License-Identifier: Apache-2.0
"""`tern serve` before it is ready: it listens and says that it loads, whatever is asked; what goes wrong
until then ends it as if nobody had been there, and so does a signal."""
import fcntl
import http.client
import json
import select
import signal
import socket
import struct
import threading
import time

from lab import SANITIZER, Cluster, Lab, free_port, wait_until

lab = Lab()


class Gate:
    """Stands before a worker: takes its connections, and lets nothing through until it is opened."""

    def __init__(self):
        self.open = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))

    def before(self, endpoint):
        host, _, port = endpoint.replace("tcp://", "").rpartition(":")
        self.worker = (host, int(port))
        threading.Thread(target=self.take, daemon=True).start()
        return "tcp://127.0.0.1:%d" % self.listener.getsockname()[1]

    def take(self):
        while True:
            threading.Thread(target=self.join, args=(self.listener.accept()[0],), daemon=True).start()

    def join(self, near):
        self.open.wait()
        far = socket.create_connection(self.worker)
        threading.Thread(target=self.pump, args=(near, far), daemon=True).start()
        self.pump(far, near)

    @staticmethod
    def pump(one, other):
        try:
            while True:
                data = one.recv(65536)
                if not data:
                    break
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Early:
    """A server that is asked as soon as its process runs."""

    def __init__(self, *args):
        self.port = free_port()
        self.process = lab.start("serve", "--port", self.port, "-t", 1, "-c", 128, *args)

    def ask(self, method, path, body=None, headers=()):
        """Status, headers, body; (None, why, b"") when nobody answers."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            c.request(method, path, body if body is None else json.dumps(body),
                      dict({"Content-Type": "application/json"}, **dict(headers)))
            r = c.getresponse()
            return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
        except (OSError, http.client.HTTPException) as e:
            return None, repr(e), b""
        finally:
            c.close()

    def wait_loading(self):
        return wait_until(lambda: self.ask("GET", "/health")[0] == 503)

    def said(self):
        """Has it said that it is ready?"""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def end(self, number=None, seconds=60):
        """Exit code, what it wrote, and how long it took."""
        start = time.monotonic()
        if number:
            self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=seconds)
        except Exception:
            self.process.kill()
            out, err = self.process.communicate()
        text = err.decode("utf-8", "replace")
        lab.check(not SANITIZER.search(text), "no sanitizer report", text)
        return self.process.returncode, out.decode(), text, time.monotonic() - start


# -- what is wrong is said, and once ------------------------------------------------------------------------

with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    r = lab.run("serve", "--port", port, "-m", "no-such-model.gguf")
    lab.check(r.code == 74 and str(port) in r.errors and "no-such-model" not in r.errors,
              "a port in use is found before the model is looked for", (r.code, r.errors))
r = lab.run("serve", "--port", 0, "-m", "no-such-model.gguf")
same = lab.run("tokenize", "-m", "no-such-model.gguf", "-p", "x")
lab.check(r.code == same.code != 0 and r.errors == same.errors.replace("tern tokenize:", "tern serve:") and
          r.errors.count("\n") == 1 and not r.text, "a model that is missing: one sentence, and its code",
          (r.code, r.errors, same.code, same.errors))

# -- where others find it ----------------------------------------------------------------------------------


def addresses():
    """Of this machine's networks, but not of itself."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for _, name in socket.if_nameindex():
            question = struct.pack("256s", name.encode()[:15])
            try:
                flags = struct.unpack("H", fcntl.ioctl(s, 0x8913, question)[16:18])[0]   # SIOCGIFFLAGS
                packed = fcntl.ioctl(s, 0x8915, question)[20:24]                          # SIOCGIFADDR
            except OSError:
                continue
            if flags & 1 and not flags & 8:
                found.append(socket.inet_ntoa(packed))
    return found


everywhere = Early("--host", "0.0.0.0", "--insecure-no-key")
lab.check(wait_until(everywhere.said), "it listens on all addresses")
code, out, err, _ = everywhere.end(signal.SIGTERM)
lab.check(all("http://%s:%d" % (a, everywhere.port) in err for a in addresses()) and
          "//0.0.0.0" not in out + err and "127.0.0.1" in out and code == 0,
          "and says which these are", (addresses(), out, err))

# -- while a worker is waited for ---------------------------------------------------------------------------

gate = Gate()
cluster = Cluster(lab, 1, via=lambda i, endpoint: gate.before(endpoint))
key = "a-key-for-this-test"
mine = {"Authorization": "Bearer " + key}
chat = {"messages": [{"role": "user", "content": "Hello"}]}
ROUTES = (("GET", "/health", None, 503), ("GET", "/v1/models", None, "model_loading"),
          ("GET", "/props", None, 503), ("GET", "/metrics", None, 503),
          ("GET", "/tern/cluster", None, 503), ("GET", "/tern/events", None, 503),
          ("GET", "/nothing", None, 503), ("GET", "/v1/nothing", None, "model_loading"),
          ("POST", "/completion", {"prompt": "x"}, 503),
          ("POST", "/tokenize", {}, 503),
          ("POST", "/v1/chat/completions", chat, "model_loading"),
          ("POST", "/v1/embeddings", {"input": "x"}, "model_loading"))
for _ in range(3):  # all of it within the time that a worker has: again where another program takes it
    gate.open.clear()
    server = Early(*cluster.args(), "--api-key-file", lab.write("keys", "[test] %s\n" % key))
    loads = server.wait_loading()
    answers = [server.ask(method, path, body, mine) for method, path, body, _ in ROUTES]
    page, stranger = server.ask("GET", "/"), server.ask("POST", "/completion", {"prompt": "x"})
    waits = not server.said() and server.process.poll() is None
    gate.open.set()
    line = server.process.stdout.readline().decode()
    if line:
        break
lab.check(loads, "it answers before it is ready", answers)
for (method, path, _, code), (status, headers, text) in zip(ROUTES, answers):
    lab.check(status == 503 and int(headers["retry-after"]) >= 1 and json.loads(text) == {
        "error": {"message": "Loading model", "type": "unavailable_error", "param": None, "code": code}},
        "%s %s: it is being loaded" % (method, path), (status, headers, text))
status, headers, text = page
lab.check(status == 200 and headers["content-type"].startswith("text/html"), "the page is there already",
          (status, headers))
lab.check(stranger[0] == 401, "who has no key is told no more")
lab.check(waits, "it does not say that it is ready")
status, headers, text = server.ask("GET", "/health")
lab.check("http://127.0.0.1:%d " % server.port in line and status == 200,
          "when it says so, it is", (line, status, text))
once = {"prompt": "Once upon a time", "n_predict": 4}
status, headers, text = server.ask("POST", "/completion", once, mine)
lab.check(status == 200 and json.loads(text)["tokens_predicted"] == 4, "and answers", (status, text))
code, out, errors, seconds = server.end(signal.SIGTERM)
lab.check(code == 0, "and ends when told to", (code, errors))

# -- what ends it meanwhile ---------------------------------------------------------------------------------

gate.open.clear()
for number in (signal.SIGINT, signal.SIGTERM):
    for _ in range(3):  # unless another program has the processor for so long
        server = Early(*cluster.args())
        lab.check(server.wait_loading(), "it loads")
        kept = socket.create_connection(("127.0.0.1", server.port))  # says nothing, and holds up nobody
        code, out, errors, seconds = server.end(number)
        kept.close()
        if seconds < 1.5:
            break
    lab.check(code == 128 + number and seconds < 1.5 and not out and not errors,
              "%s while it loads ends it at once" % number.name, (code, seconds, out, errors))
server = Early(*cluster.args())
lab.check(server.wait_loading(), "it loads")
code, out, errors, seconds = server.end()
same = lab.run("run", "-p", "x", "-n", 1, *cluster.args())
lab.check(code == same.code != 0 and cluster.names[0] in errors and not out and
          errors == same.errors.replace("tern run:", "tern serve:"),
          "a worker that does not answer: one sentence, and its code", (code, errors, same.code, same.errors))
cluster.stop()
lab.end()
