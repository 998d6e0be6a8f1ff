# SPDX-License-Identifier: Apache-2.0
"""tern pull against a server of our own: what is loaded, resumed, checked and refused, and who sees the
token."""
import hashlib
import http.server
import json
import os
import resource
import shutil
import signal
import ssl
import subprocess
import threading
import time

from lab import Lab, soonest, wait_until

lab = Lab()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secretOfTheTest"


class Repo:
    def __init__(self, files, small=()):
        self.files = files                # path -> bytes
        self.small = set(small)           # not in LFS: named by git, no SHA-256
        self.listing = {}                 # path -> changes of its entry
        self.raw = None                   # the whole answer, instead
        self.gated = False

    def json(self):
        if self.raw is not None:
            return self.raw
        siblings = []
        for path, data in self.files.items():
            entry = {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            if path not in self.small:
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data),
                                "pointerSize": 134}
            entry.update(self.listing.get(path, {}))
            siblings.append(entry)
        return json.dumps({"id": "x", "sha": COMMIT, "siblings": siblings}).encode()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # clients that go away are what is tested here


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def plain(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        site = self.server.site
        site.seen.append((self.path, self.headers.get("Authorization"), self.headers.get("Range")))
        try:
            site.answer(self)
        except OSError:
            self.close_connection = True


class Site:
    """A server on a port of its own.  how: path of a file -> what it does to its answer."""

    def __init__(self, repos, tls=None):
        self.repos, self.seen, self.how, self.cdn = repos, [], {}, None
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.site = self
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
            self.url = "https://localhost:%d" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, r):
        parts = r.path.split("?")[0].split("/")
        if parts[1:3] == ["api", "models"]:
            repo = self.repos.get("/".join(parts[3:5]))
            if not repo:
                return r.plain(401, b"{}", [("X-Error-Code", "RepoNotFound")])
            if parts[6] != "main" and parts[6] != "v2":
                return r.plain(404, b"{}", [("X-Error-Code", "RevisionNotFound")])
            return r.plain(200, repo.json())
        repo, path = self.repos["/".join(parts[1:3])], "/".join(parts[5:])
        if repo.gated and r.headers.get("Authorization") != "Bearer " + TOKEN:
            return r.plain(401, b"{}", [("X-Error-Code", "GatedRepo")])
        if self.cdn:
            return r.plain(302, b"elsewhere", [("Location", self.cdn + r.path)])
        if path in self.how:
            return self.how[path](r, repo.files[path])
        return send(r, repo.files[path])


def send(r, data, limit=None, rate=None, ranges=True):
    """The file, or the part that was asked for; breaks the connection after limit bytes."""
    start = 0
    wanted = r.headers.get("Range")
    if wanted and ranges:
        start = int(wanted[len("bytes="):].split("-")[0])
        r.send_response(206)
        r.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
    else:
        r.send_response(200)
    body = data[start:]
    r.send_header("Content-Length", str(len(body)))
    r.end_headers()
    sent = body if limit is None else body[:limit]
    if rate:
        for i in range(0, len(sent), rate // 20):
            r.wfile.write(sent[i:i + rate // 20])
            time.sleep(0.05)
    else:
        r.wfile.write(sent)
    if limit is not None:
        r.wfile.flush()
        r.close_connection = True


with open(lab.model, "rb") as f:
    MODEL = f.read()
BIG = bytes(range(256)) * 40000  # 10 MB
repos = {
    "org/one": Repo({".gitattributes": b"x", "README.md": b"hello", "fable-i2_s.gguf": MODEL},
                    small=[".gitattributes", "README.md"]),
    "org/folder": Repo({"config.json": b"{}", "generation_config.json": b"{}", "README.md": b"x",
                        "tokenizer.json": b"{ }", "tokenizer_config.json": b"{}", "logo.png": b"png",
                        "chat_template.jinja": b"{{}}", "original/consolidated.safetensors": b"no",
                        "model-00001-of-00002.safetensors": b"a" * 1000,
                        "model-00002-of-00002.safetensors": b"b" * 900,
                        "model.safetensors.index.json": b"{}", "1_Pooling/config.json": b"{}"},
                       small=["config.json", "generation_config.json", "README.md", "tokenizer_config.json",
                              "model.safetensors.index.json", "1_Pooling/config.json",
                              "chat_template.jinja"]),
    "org/many": Repo({"a-q4_0.gguf": b"aaaa", "b-tq2_0.gguf": b"bbbb", "s-00001-of-00002.gguf": b"s1",
                      "s-00002-of-00002.gguf": b"s2", "mmproj-x.gguf": b"mm"}),
    "org/big": Repo({"big.gguf": BIG}),
    "org/none": Repo({"README.md": b"x"}),
}
site = Site(repos)
other = Site(repos)
count = 0


def pull(*args, env=None, root=None, timeout=60):
    base = {"HF_ENDPOINT": site.url, "HOME": lab.dir, "TERN_MODELS": root or lab.path("models"),
            "no_proxy": "*", "NO_PROXY": "*"}
    base.update(env or {})
    return lab.run("pull", *args, env=base, timeout=timeout)


def fresh():
    global count
    count += 1
    return lab.path("models%d" % count)


def files_in(root):
    found = []
    for at, dirs, names in os.walk(root):
        found += [os.path.relpath(os.path.join(at, n), root) for n in names]
    return sorted(n for n in found if "/.pull/" not in n)


def parts_in(root):
    return [os.path.join(at, n) for at, _, names in os.walk(root) for n in names if n.endswith(".part")]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def refused(r, *words):
    return r.code in range(64, 79) and all(w in r.errors for w in words) and not r.out


# -- one file, and again -------------------------------------------------------------------------------------
r = pull("org/one")
path = r.text.rstrip("\n")
lab.check(r.code == 0 and path == lab.path("models/org/one/fable-i2_s.gguf") and read(path) == MODEL,
          "the only .gguf, its path on stdout", r.errors)
lab.check(files_in(lab.path("models")) == ["org/one/fable-i2_s.gguf"], "and nothing else",
          files_in(lab.path("models")))
run = lab.run("run", "-m", path, "-p", "Once upon a time", "-n", 4, "--temp", 0)
lab.check(run.code == 0 and run.out, "tern run takes it", run.errors)
lab.check(any(p == "/org/one/resolve/%s/fable-i2_s.gguf" % COMMIT for p, _, _ in site.seen),
          "the commit of the listing is what is loaded", site.seen)
site.seen.clear()
r = pull("org/one")
lab.check(r.code == 0 and r.text.rstrip("\n") == path and len(site.seen) == 1,
          "whole already: only the listing is asked for", site.seen)
os.utime(path, (1, 1))
site.seen.clear()
r = pull("org/one", "-q")
lab.check(r.code == 0 and len(site.seen) == 1 and not r.err, "touched but the same: its hash is taken",
          r.errors)
with open(path, "r+b") as f:
    f.seek(1000)
    f.write(b"damage")
r = pull("org/one")
lab.check(r.code == 0 and read(path) == MODEL, "damaged: loaded again", r.errors)
site.seen.clear()
r = pull("org/one", "--force")
lab.check(r.code == 0 and len(site.seen) == 2, "--force loads it again", site.seen)
r = pull("org/one:README.md")
lab.check(r.code == 0 and read(r.text.rstrip("\n")) == b"hello", "a file by name", r.errors)
repos["org/one"].files["README.md"] = b"HELLO"
r = pull("org/one:README.md")
lab.check(r.code == 0 and read(r.text.rstrip("\n")) == b"HELLO", "another content of the same size", r.errors)
r = pull("org/one@v2:README.md")
lab.check(r.code == 0 and "/org/one@v2/" in r.text, "another revision has a folder of its own", r.text)
r = pull("org/one", env={"TERN_MODELS": "", "XDG_DATA_HOME": lab.path("data")})
lab.check(r.code == 0 and r.text.startswith(lab.path("data/tern/models/org/one/")), "$XDG_DATA_HOME", r.text)
r = pull("org/one", env={"TERN_MODELS": "", "XDG_DATA_HOME": ""})
lab.check(r.code == 0 and r.text.startswith(lab.path(".local/share/tern/models/")), "~/.local/share", r.text)

# -- which files ---------------------------------------------------------------------------------------------
root = fresh()
r = pull("org/folder", root=root)
lab.check(r.code == 0 and r.text == root + "/org/folder\n" and
          [n[len("org/folder/"):] for n in files_in(root)] ==
          ["1_Pooling/config.json", "chat_template.jinja", "config.json", "generation_config.json",
           "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
           "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"],
          "a Hugging Face folder", (r.errors, files_in(root)))
r = pull("org/folder", "--list")
lab.check(r.code == 0 and len(r.text.splitlines()) == 12 and r.text.count("*") == 9, "--list", r.text)
listed = json.loads(pull("org/folder", "--list", "--json").text)
lab.check([("*" if f["chosen"] else " ") + f["path"] for f in listed["files"]] ==
          [line[0] + line[18:] for line in r.text.splitlines()] and listed["repository"] == "org/folder",
          "--list --json", listed)
lab.check(refused(pull("org/folder", "--json"), "--list"), "--json without --list")
r = pull("org/many")
lab.check(refused(r, "a-q4_0.gguf", "s-00001-of-00002.gguf"), "several models: which?", r.errors)
for name in ("org/many:s-00001-of-00002.gguf", "org/many:s-*"):
    root = fresh()
    r = pull(name, root=root)
    lab.check(r.code == 0 and r.text.endswith("/s-00001-of-00002.gguf\n") and len(files_in(root)) == 2,
              "all parts of a split model, the first on stdout: " + name, (r.text, r.errors))
r = pull("org/many:*_0.gguf", root=fresh())
lab.check(r.code == 0 and r.text.endswith("/org/many\n"), "a pattern of several models", r.text + r.errors)
lab.check(refused(pull("org/none"), "--list"), "no model at all")
lab.check(refused(pull("org/one:nothing.gguf"), "nothing.gguf", "--list"), "no such file")
for bad in ("", "org/one/x", "../x", "org/..", "org/one:../x", "org/one:/etc/x", "org/one@..:x", "o/.hid",
            "org/one:a\\b", "x y/z", "org/one@", "org/one:"):
    lab.check(refused(pull(bad)), "refused as a name: '%s'" % bad)

# -- rights and the token ------------------------------------------------------------------------------------
r = pull("org/missing")
lab.check(refused(r, "does not exist", "HF_TOKEN", "401"), "unknown repository, no token", r.errors)
r = pull("org/missing", env={"HF_TOKEN": TOKEN})
lab.check(refused(r, "token") and TOKEN not in r.errors, "unknown repository, with a token", r.errors)
r = pull("org/one@nope")
lab.check(refused(r, "404"), "unknown revision", r.errors)
repos["org/one"].gated = True
r = pull("org/one", "--force")
lab.check(refused(r, "gated", "HF_TOKEN"), "gated model, no token", r.errors)
site.seen.clear()
other.seen.clear()
site.cdn = other.url
r = pull("org/one", "--force", env={"HF_TOKEN": TOKEN})
lab.check(refused(r, "gated"), "the other server is gated too and gets no token", r.errors)
lab.check(site.seen[1][1] == "Bearer " + TOKEN and other.seen and
          all(auth is None for _, auth, _ in other.seen),
          "the token goes to the endpoint and not where it redirects to", (site.seen, other.seen))
repos["org/one"].gated = False
r = pull("org/one", "--force", env={"HF_TOKEN": TOKEN})
lab.check(r.code == 0 and read(path) == MODEL, "a redirect is followed", r.errors)
os.makedirs(lab.path(".cache/huggingface"))
lab.write(".cache/huggingface/token", TOKEN + "\n")
site.cdn = None
site.seen.clear()
r = pull("org/one")
lab.check(r.code == 0 and site.seen[0][1] == "Bearer " + TOKEN, "the token of the file", site.seen)
os.unlink(lab.path(".cache/huggingface/token"))
lab.check(refused(pull("org/one", env={"HF_TOKEN": "a\x01b"}), "token"), "a token with odd bytes")

# -- redirects that are none ---------------------------------------------------------------------------------
secret = lab.write("secret", "do not read me")
for target, word in (("file://" + secret, "redirects"), ("ftp://127.0.0.1/x", "redirects"),
                     ("gopher://127.0.0.1/x", "redirects")):
    site.how["big.gguf"] = lambda r, d, t=target: r.plain(302, b"", [("Location", t)])
    r = pull("org/big", root=fresh())
    lab.check(refused(r, word), "no redirect to " + target.split(":")[0], r.errors)
site.how["big.gguf"] = lambda r, d: r.plain(302, b"", [("Location", r.path)])
lab.check(refused(pull("org/big"), "redirects"), "a circle of redirects ends")
lab.check(refused(pull("org/big", env={"HF_ENDPOINT": "file:///etc"}), "HF_ENDPOINT"), "an endpoint of files")
r = pull("org/big", env={"HF_ENDPOINT": site.url.replace("http:", "https:")})
lab.check(refused(r), "an https endpoint never speaks http", r.errors)
r = pull("org/big", env={"HF_ENDPOINT": "http://127.0.0.1:1"})
lab.check(refused(r, "cannot reach") and soonest(r, 10) < 10, "nobody there: said at once", r.errors)

# -- connections that break ----------------------------------------------------------------------------------
root = fresh()
site.seen.clear()
site.how["big.gguf"] = lambda r, d: send(r, d, limit=4000000)
r = pull("org/big", root=root)
lab.check(r.code == 0 and read(root + "/org/big/big.gguf") == BIG and r.errors.count("trying again") == 2,
          "a connection that breaks: goes on by itself", r.errors)
lab.check([w for p, _, w in site.seen if "resolve" in p][0] is None and
          [w for p, _, w in site.seen if "resolve" in p][1].startswith("bytes="), "with ranges", site.seen)
root = fresh()
r = pull("org/big", "--retries", 0, root=root)
lab.check(refused(r, "kept", "broke") and len(parts_in(root)) == 1 and not files_in(root),
          "without retries: a sentence, and the part is kept", r.errors)
have = os.path.getsize(parts_in(root)[0])
site.seen.clear()
site.how.clear()
r = pull("org/big", root=root)
lab.check(r.code == 0 and read(root + "/org/big/big.gguf") == BIG and
          site.seen[1][2] == "bytes=%d-" % have and have > 3000000 and not parts_in(root),
          "the same command goes on from there", (have, site.seen))
# A server that knows no ranges, and one whose file became another one.
root = fresh()
site.how["big.gguf"] = lambda r, d: send(r, d, limit=4000000)
pull("org/big", "--retries", 0, root=root)
site.how["big.gguf"] = lambda r, d: send(r, d, ranges=False)
r = pull("org/big", root=root)
lab.check(r.code == 0 and read(root + "/org/big/big.gguf") == BIG, "no ranges there: from the beginning",
          r.errors)
root = fresh()
site.how["big.gguf"] = lambda r, d: send(r, d, limit=4000000)
pull("org/big", "--retries", 0, root=root)
repos["org/big"].files["big.gguf"] = BIG[::-1]
site.how.clear()
r = pull("org/big", root=root)
lab.check(r.code == 0 and read(root + "/org/big/big.gguf") == BIG[::-1] and not parts_in(root),
          "another file meanwhile: nothing of the old one is used", r.errors)
repos["org/big"].files["big.gguf"] = BIG
busy = []
site.how["big.gguf"] = lambda r, d: send(r, d) if len(busy) > 1 else (
    busy.append(1), r.plain(503, b"later", [("Retry-After", "1")]))
r = pull("org/big", root=fresh())
lab.check(r.code == 0 and len(busy) == 2 and r.seconds > 2, "503 with Retry-After: later", r.errors)
site.how["big.gguf"] = lambda r, d: r.plain(418, b"x" * 5000000)
lab.check(refused(pull("org/big", root=fresh()), "418"), "another status")


site.how["big.gguf"] = lambda r, d: (r.send_response(200), r.send_header("Content-Length", str(len(d))),
                                     r.end_headers(), r.wfile.write(d[:1000]), r.wfile.flush(),
                                     time.sleep(20))
root = fresh()
r = pull("org/big", "--timeout", 1, "--retries", 0, root=root)
lab.check(refused(r, "kept") and soonest(r, 7) < 7 and len(parts_in(root)) == 1, "a stall is given up",
          r.errors)

# -- hostile answers -----------------------------------------------------------------------------------------
site.how["big.gguf"] = lambda r, d: send(r, d[:-5] + b"wrong")
root = fresh()
r = pull("org/big", root=root)
lab.check(refused(r, "SHA-256", "removed") and not parts_in(root) and not files_in(root),
          "another content than was promised: removed, and said", r.errors)
site.how["big.gguf"] = lambda r, d: send(r, d + b"more")
lab.check(refused(pull("org/big", root=fresh()), "listing"), "a size that lies")


def endless(r, data):
    r.send_response(200)
    r.send_header("Connection", "close")
    r.end_headers()
    while True:
        r.wfile.write(data)


site.how["big.gguf"] = endless
root = fresh()
r = pull("org/big", root=root)
lab.check(refused(r, "more than") and sum(os.path.getsize(p) for p in parts_in(root)) <= len(BIG),
          "a body without end", r.errors)
site.how["big.gguf"] = lambda r, d: (r.send_response(206), r.send_header("Content-Length", "5"),
                                     r.send_header("Content-Range", "bytes 7-11/%d" % len(d)),
                                     r.end_headers(), r.wfile.write(d[7:12]))
lab.check(refused(pull("org/big", root=fresh()), "another part"), "a part nobody asked for")
site.how.clear()

evil = repos["org/evil"] = Repo({"../escape.gguf": b"e" * 10, "/abs.gguf": b"a", "a/../../b.gguf": b"b",
                                 "c\\d.gguf": b"c", "good.gguf": b"g" * 10, "x/.hidden": b"h",
                                 "n" * 300 + ".gguf": b"n", "\x1b[2J.gguf": b"esc"})
root = fresh()
r = pull("org/evil", root=root)
lab.check(r.code == 0 and files_in(root) == ["org/evil/good.gguf"] and "7 files" in r.errors,
          "names that lead elsewhere are left out", (r.errors, files_in(root)))
lab.check(not os.path.exists(os.path.join(root, "..", "escape.gguf")) and
          not os.path.exists(root + "/org/escape.gguf"), "and nothing is written there")
for raw, what in ((b"not json", "no JSON"), (b"[]", "another JSON"), (b"{\"siblings\": 5}", "no array"),
                  (b"{\"siblings\": [{}]}", "an entry without a name"), (b"[" * 100000, "a deep JSON"),
                  (b"{\"siblings\": [" + b"{\"rfilename\": \"a\"}," * 1200000 + b"{}]}", "a huge JSON"),
                  (b"{\"siblings\": [{\"rfilename\": \"a.gguf\", \"size\": 9000000000000000000}]}",
                  "a huge size"),
                  (b"{\"siblings\": [{\"rfilename\": \"a.gguf\", \"lfs\": {\"sha256\": \"zz\"}}]}",
                  "no hash"),
                  (b"", "an empty listing")):
    evil.raw = raw
    r = pull("org/evil", root=root)
    lab.check(refused(r), "a listing that is %s" % what, (r.code, r.errors, r.text))
evil.raw = None
evil.listing["good.gguf"] = {"lfs": {"sha256": hashlib.sha256(b"g" * 10).hexdigest(), "size": 1 << 41}}
r = pull("org/evil", root=fresh())
lab.check(refused(r, "room"), "more than the disk has room for", r.errors)

# -- https -------------------------------------------------------------------------------------------------
pem = lab.path("server.pem")
made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                       "-nodes", "-keyout", pem + ".key", "-out", pem, "-days", "2", "-subj",
                       "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL) if shutil.which("openssl") else None
if not made or made.returncode != 0:
    lab.skip("https: there is no openssl to make a certificate")
else:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, pem + ".key")
    safe, elsewhere = Site(repos, context), Site(repos, context)
    trusted = {"HF_ENDPOINT": safe.url, "SSL_CERT_FILE": pem, "HF_TOKEN": TOKEN}
    r = pull("org/one", root=fresh(), env=dict(trusted, SSL_CERT_FILE=""))
    lab.check(refused(r, "certificate") and not safe.seen, "a certificate nobody vouches for", r.errors)
    numbered = dict(trusted, HF_ENDPOINT=safe.url.replace("localhost", "127.0.0.1"))
    r = pull("org/one", root=fresh(), env=numbered)
    lab.check(refused(r) and not safe.seen, "a certificate of another name", r.errors)
    r = pull("org/one", root=fresh(), env=trusted)
    lab.check(r.code == 0 and safe.seen[-1][1] == "Bearer " + TOKEN, "https, and the token", r.errors)
    elsewhere.seen.clear()
    safe.cdn = elsewhere.url
    r = pull("org/one", root=fresh(), env=trusted)
    lab.check(r.code == 0 and elsewhere.seen[0][1] is None, "to another port without the token", r.errors)
    other.seen.clear()
    safe.cdn = other.url
    r = pull("org/one", root=fresh(), env=trusted)
    lab.check(refused(r, "redirects") and not other.seen, "from https nothing leads to http", r.errors)

# -- the disk, and Ctrl-C ------------------------------------------------------------------------------------
root = fresh()
env = dict(lab.env, HF_ENDPOINT=site.url, HOME=lab.dir, TERN_MODELS=root, no_proxy="*")
p = subprocess.run([lab.tern, "pull", "org/big"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                   preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                                       resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))))
lab.check(p.returncode in range(64, 79) and b"cannot write" in p.stderr and not p.stdout,
          "a file that cannot grow: a sentence", p.stderr)
site.how["big.gguf"] = lambda r, d: send(r, d, rate=2000000)
shutil.rmtree(root)
p = lab.start("pull", "org/big", env={k: env[k] for k in ("HF_ENDPOINT", "HOME", "TERN_MODELS", "no_proxy")})
lab.check(wait_until(lambda: parts_in(root) and os.path.getsize(parts_in(root)[0]) > 500000), "it loads")
second = lab.run("pull", "org/big", env=env)
lab.check(refused(second, "another tern pull"), "one at a time", second.errors)
p.send_signal(signal.SIGINT)
out, err = p.communicate(timeout=60)
lab.check(p.returncode == 130 and b"kept" in err and b"same command" in err and not out,
          "Ctrl-C keeps the part and says how to go on", err)
site.how.clear()
site.seen.clear()
r = pull("org/big", root=root)
lab.check(r.code == 0 and read(root + "/org/big/big.gguf") == BIG and site.seen[1][2], "and so it does",
          r.errors)
lab.end()
