# SPDX-License-Identifier: Apache-2.0
"""What tells of a running server: /metrics against Prometheus' format and /tern/cluster, `tern status`, and
`tern top` in a terminal (tmux) and over a pipe; servers that are none, or hostile."""
import http.client
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time

from lab import Lab, children_of, state_of, wait_until
from serving import Server

lab = Lab()
SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')


def parse(text):
    """The text format 0.0.4, strictly: {(name, labels): value}, {family: type}."""
    values, types, helped, current = {}, {}, set(), None
    if not text.endswith("\n"):
        raise ValueError("no newline at the end")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            if name in helped:
                raise ValueError("two HELP of " + name)
            helped.add(name)
            current = name
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name != current or name in types or kind not in ("counter", "gauge", "histogram", "summary"):
                raise ValueError(line)
            types[name] = kind
            continue
        found = SAMPLE.match(line)
        if not found:
            raise ValueError("no sample: " + line)
        name, inside, value = found.groups()
        parts = {"histogram": r"_(bucket|sum|count)$", "summary": r"_(sum|count)$"}.get(types.get(current))
        base = re.sub(parts, "", name) if parts else name
        labels, at = [], 0
        while inside and at < len(inside):
            part = LABEL.match(inside, at)
            if not part:
                raise ValueError("labels: " + line)
            labels.append((part.group(1), part.group(2)))
            at = part.end()
        key = (name, tuple(labels))
        if base != current or key in values or len(dict(labels)) != len(labels):
            raise ValueError("a sample out of its family, or twice: " + line)
        values[key] = float(value)
    return values, types


def check_shape(values, types):
    """Names, also without the suffix that newer formats leave out, and histograms whose buckets grow to their
    count."""
    wrong = [n for n, t in types.items()
             if n.startswith("tern_") and (t == "counter") != n.endswith("_total")]
    wrong += [n for n in types if n.endswith("_total") and n[:-len("_total")] in types]
    for name, kind in types.items():
        if kind != "histogram":
            continue
        rows = {}
        for (sample, labels), value in values.items():
            if sample == name + "_bucket":
                rest = tuple(x for x in labels if x[0] != "le")
                rows.setdefault(rest, []).append((float(dict(labels)["le"]), value))
        for rest, buckets in rows.items():
            counts = [v for _, v in sorted(buckets)]
            if (counts != sorted(counts) or sorted(buckets)[-1][0] != float("inf") or
                    counts[-1] != values[(name + "_count", rest)] or (name + "_sum", rest) not in values):
                wrong.append((name, rest, buckets))
    return wrong


def scrape(server):
    a = server.get("/metrics")
    lab.check(a.status == 200 and a.headers["content-type"].startswith("text/plain; version=0.0.4"),
              "/metrics is text of version 0.0.4", a.headers)
    return parse(a.body.decode())


# -- metrics, against the picture of the cluster -------------------------------------------------------------

server = Server(lab, "-m", lab.model, "--local", 2, "-t", 1, "--parallel", 2, "-c", 256, "--context-shift",
                "--alias", 'a"b\\c', "--drain-timeout", 0)
first, types = scrape(server)
lab.check(check_shape(first, types) == [], "names and histograms are as they should be",
          check_shape(first, types))
lab.check(first[("tern_build_info", (("version", "0.1.0"), ("model", 'a\\"b\\\\c')))] == 1,
          "labels are escaped", [k for k in first if k[0] == "tern_build_info"])
for i in range(2):
    server.post("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 20, "ignore_eos": True,
                                    "temperature": 0})
server.get("/nothing")
lab.check(wait_until(server.idle), "all is over")
second, types = scrape(server)
cluster = server.get("/tern/cluster").json
lab.check(all(second[k] >= v for k, v in first.items()
              if types.get(k[0]) == "counter" or re.search("_(bucket|sum|count)$", k[0])),
          "counters only grow", [(k, v, second[k]) for k, v in first.items() if second[k] < v])
lab.check(second[("tern_tokens_total", (("kind", "generated"),))] == 40, "tokens are counted", second)
totals, sched = cluster["totals"], cluster["scheduler"]
agree = {("tern_jobs_total", ()): totals["jobs"],
         ("tern_jobs_done_total", (("outcome", "ended"),)): totals["ended"],
         ("tern_tokens_total", (("kind", "prompt"),)): totals["prompt_tokens"],
         ("tern_tokens_total", (("kind", "generated"),)): totals["answer_tokens"],
         ("llamacpp:tokens_predicted_total", ()): totals["answer_tokens"],
         ("tern_steps_total", ()): totals["steps"], ("llamacpp:n_decode_total", ()): totals["steps"],
         ("tern_kv_pages", ()): sched["pages"]["total"],
         ("tern_kv_pages_free", ()): sched["pages"]["free"],
         ("tern_kv_pages_cached", ()): sched["pages"]["cached"],
         ("tern_prefix_lookups_total", ()): sched["prefix"]["lookups"],
         ("tern_prefix_hits_total", ()): sched["prefix"]["hits"],
         ("tern_jobs_running_limit", ()): 2, ("tern_jobs_running", ()): 0}
for i, s in enumerate(cluster["stages"]):
    where = (("stage", str(i)), ("worker", s["name"]))
    agree[("tern_stage_steps_total", where)] = s["steps"]
    agree[("tern_stage_weight_bytes", where)] = s["weight_bytes"]
    agree[("tern_stage_rejected_total", where)] = s["rejected"]
for i, h in enumerate(cluster["hops"]):
    agree[("tern_hop_bytes_total", (("hop", str(i)), ("from", h["from"]), ("to", h["to"])))] = h["bytes"]
lab.check(len(cluster["stages"]) == 2 and all(second.get(k) == v for k, v in agree.items()),
          "/metrics and /tern/cluster agree", [(k, v, second.get(k)) for k, v in agree.items()
                                               if second.get(k) != v])


def hops_known():
    """A hop is measured by steps once its clocks have been compared, which takes a busy machine a while."""
    server.post("/v1/completions", {"prompt": "Once", "max_tokens": 4, "ignore_eos": True})
    return all(h["within_us"] for h in server.cluster()["hops"])


lab.check(wait_until(hops_known, 30), "hops are measured", server.get("/tern/cluster").body)
hops = server.cluster()["hops"]


def hops_agree():
    """Looked at twice: the clocks may be compared anew in between."""
    written = {k: v for k, v in parse(server.get("/metrics").body.decode())[0].items()
               if k[0] in ("tern_hop_seconds", "tern_hop_clock_error_seconds")}
    told = {}
    for i, h in enumerate(server.cluster()["hops"]):
        where = (("hop", str(i)), ("from", h["from"]), ("to", h["to"]))
        told.update({("tern_hop_seconds", where + (("quantile", q),)): h[p]
                     for p, q in (("p50_us", "0.5"), ("p99_us", "0.99")) if h[p] is not None})
        if h["within_us"] is not None:
            told[("tern_hop_clock_error_seconds", where)] = h["within_us"]
    return set(told) == set(written) and all(abs(written[k] * 1e6 - v) < 1e-3 for k, v in told.items())


lab.check(wait_until(hops_agree), "hops are told where clocks can tell them, and nowhere else", hops)
lab.check(len(hops) == 3 and all(h["within_us"] > 0 for h in hops) and
          all(h[p] is None or h[p] > h["within_us"] for h in hops for p in ("p50_us", "p99_us")),
          "no hop is told to be shorter than clocks can say", hops)
lab.check(second[("tern_http_requests_total", ())] >= first[("tern_http_requests_total", ())] + 3,
          "requests are counted")
lab.check(second[("tern_first_token_seconds_count", ())] == 2 and
          second[("tern_between_tokens_seconds_count", ())] > 20, "latencies are counted")

# -- tern status ---------------------------------------------------------------------------------------------

r = lab.run("status", "--server", server.url)
lab.check(r.code == 0 and "  ready  " in r.text and 'model a"b\\c' in r.text, "tern status",
          r.text + r.errors)
for s in cluster["stages"]:
    row = [line for line in r.text.splitlines() if line.startswith(s["name"] + " ")]
    lab.check(len(row) == 1 and s["endpoint"] in row[0] and s["cpu"] in row[0] and
              "%d-%d" % tuple(s["layers"]) in row[0], "a row for " + s["name"], r.text)
lab.env["TERN_SERVER"] = server.url
r = lab.run("status", "--json")
lab.check(r.code == 0 and json.loads(r.text)["stages"][1]["layers"] == cluster["stages"][1]["layers"],
          "--json, by $TERN_SERVER", r.text)
del lab.env["TERN_SERVER"]
lab.check(lab.run("status", "--server", "127.0.0.1:1").code == 69, "nobody there: 69")
lab.check(lab.run("status", "--server", "ftp://x").code == 64 and lab.run("status", "more").code == 64,
          "nonsense: 64")

# -- tern top over a pipe, and in a terminal -----------------------------------------------------------------

busy = {"prompt": "Once upon a time", "ignore_eos": True, "max_tokens": 1000000}  # its context is shifted


def work():
    """One request behind the other, however fast they are."""
    try:
        while server.post("/v1/completions", busy).status == 200:
            pass
    except (OSError, http.client.HTTPException):
        pass  # the server goes before


for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
wait_until(lambda: server.get("/tern/cluster").json["slots"])
lab.env["LC_ALL"] = "C"
r = lab.run("top", "--server", server.url, "--interval", 0.3, "-n", 3)
blocks = r.text.split("work of the last 5 s")
lab.check(r.code == 0 and len(blocks) == 4 and "\x1b" not in r.text and
          re.search(r"\|[ .:=+*#@-]*[.:=+*#@-]+ ?\|", blocks[3]) and "slot " in blocks[3],
          "tern top over a pipe: blocks of ASCII", r.text + r.errors)


class Terminal:
    def __init__(self, name, columns, rows, *args):
        self.socket, self.end = lab.path(name), lab.path(name + ".end")
        command = " ".join(shlex.quote(str(a)) for a in [lab.tern, "top", *args])
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows),
                  "printf 'before\\n'; %s; echo $? > %s; sleep 600" % (command, shlex.quote(self.end)))
        self.pid = int(self.ask("display-message", "-p", "#{pane_pid}"))

    def tmux(self, *args):
        return subprocess.run(["tmux", "-S", self.socket, *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=dict(lab.env, LC_ALL="C.UTF-8"), timeout=30,
                              check=False)

    def ask(self, *args):
        return self.tmux(*args).stdout.decode("utf-8", "replace")

    def screen(self):
        return self.ask("capture-pane", "-p")

    def wait(self, pattern, seconds=60):
        return wait_until(lambda: re.search(pattern, self.screen(), re.M), seconds)

    def restored(self):
        """The first screen is back, with its cursor and wrapping, and what is typed is shown."""
        return wait_until(self.as_before)

    def as_before(self):
        flags = self.ask("display-message", "-p", "#{alternate_on} #{cursor_flag} #{wrap_flag}").strip()
        tty = self.ask("display-message", "-p", "#{pane_tty}").strip()
        with open(tty, "rb") as f:
            stty = subprocess.run(["stty", "-a"], stdin=f, stdout=subprocess.PIPE, check=False)
        stty = stty.stdout.decode()
        return flags == "0 1 1" and " echo " in stty and " icanon" in stty and "-icanon" not in stty

    def code(self, seconds=60):
        if not wait_until(lambda: os.path.exists(self.end) and os.path.getsize(self.end) > 0, seconds):
            return None
        with open(self.end, encoding="ascii") as f:
            return int(f.read())


if shutil.which("tmux"):
    t = Terminal("one", 80, 24, "--server", server.url, "--interval", 0.2)
    try:
        lab.check(t.wait("work of the last 5 s") and t.wait("^coordinator *\\|.*[\u2581-\u2588]"),
                  "lanes on the screen", t.screen())
        shown = t.screen()
        lab.check(all(len(line) <= 80 for line in shown.splitlines()) and "WORKER" in shown and
                  shown.startswith("http://") and "ENDPOINT" not in shown, "80 columns are enough", shown)
        t.tmux("send-keys", "+")
        lab.check(t.wait("work of the last 10 s"), "+ shows more seconds", t.screen())
        t.tmux("send-keys", "p")
        lab.check(t.wait("^PAUSED"), "p pauses", t.screen())
        t.tmux("send-keys", "p")
        lab.check(wait_until(lambda: "PAUSED" not in t.screen()), "p goes on", t.screen())
        t.tmux("resize-window", "-x", "170", "-y", "40")
        lab.check(t.wait("ENDPOINT$"), "a wider window shows more", t.screen())
        t.tmux("send-keys", "C-z")
        lab.check(t.restored(), "Ctrl-Z gives the terminal back", t.screen())
        wait_until(lambda: all(state_of(pid) == "T" for pid in children_of(t.pid)))
        for pid in children_of(t.pid):
            os.kill(pid, signal.SIGCONT)
        lab.check(t.wait("work of the last"), "and it goes on", t.screen())
        t.tmux("send-keys", "q")
        lab.check(t.code() == 0 and t.restored() and "before" in t.screen(), "q ends it", t.screen())
    finally:
        t.tmux("kill-server")
    t = Terminal("two", 80, 24, "--server", server.url, "--interval", 0.2)
    try:
        t.wait("work of the last")
        for pid in children_of(t.pid):
            os.kill(pid, signal.SIGTERM)
        lab.check(t.code() == 143 and t.restored(), "SIGTERM gives the terminal back", t.screen())
    finally:
        t.tmux("kill-server")
else:
    print("note: tmux is not installed: the full screen is not looked at")

# -- keys, and a server that goes ----------------------------------------------------------------------------

top = subprocess.Popen([lab.tern, "top", "--server", server.url, "--interval", "0.2"], env=lab.env,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
top.stdout.readline()
server.check_stop()
seen = wait_until(lambda: b"LOST" in top.stdout.readline())
top.kill()
lab.check(seen, "a server that goes is said to be lost, and asked again")

# -- strangers -----------------------------------------------------------------------------------------------

EVIL = {"version": "1\x1b[2J", "ready": False, "why": "\x1b]0;owned\x07\u009b2J\u202e", "uptime_s": -1e300,
        "now_us": 2**62, "model": {"name": "\x1b[31mred\u009b", "layers": "six"}, "coordinator": [],
        "stages": [{"name": "\x1b[1m\u0007w\u00f6rk" * 50, "endpoint": 7, "layers": [None, {}],
                    "suspect": True, "memory_bytes": 1e300, "ms_per_step": "x"}] * 500,
        "hops": [{"p50_us": -5}] * 900, "slots": [{"slot": []}] * 999,
        "scheduler": {"pages": 5}, "latency": [], "rates": None, "totals": 3,
        "steps": [{"n": i, "taken": 5, "done": 2**62, "stages": [[0, 1, 2**62, 0], 7, None] * 99}
                  for i in range(-1, 30)]}
ANSWERS = {"/evil/tern/cluster": (200, json.dumps(EVIL).encode()),
           "/none/tern/cluster": (404, b"<html>not here"), "/html/tern/cluster": (200, b"<html>\x1b[2J"),
           "/deep/tern/cluster": (200, b"[" * 100000), "/key/tern/cluster": (401, b"{}"),
           "/big/tern/cluster": (200, b" " * (9 << 20)),
           "/full/tern/cluster": (503, b'{"error":{"message":"later\\u001b[2J"}}')}


class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = ANSWERS.get(self.path.split("?")[0], (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass

    def log_message(self, *_):
        pass


stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
threading.Thread(target=stranger.serve_forever, daemon=True).start()
base = "http://127.0.0.1:%d" % stranger.server_port
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
for what, code, words in (("evil", 75, "NOT READY"), ("none", 65, "no `tern serve`"),
                          ("html", 65, "no `tern serve`"), ("deep", 65, "no `tern serve`"),
                          ("key", 77, "--api-key-file"), ("big", 65, "more than"), ("full", 75, "later")):
    r = lab.run("status", "--server", base + "/" + what)
    lab.check(r.code == code and words in r.text + r.errors and not CONTROLS.search(r.text + r.errors),
              "a stranger: " + what, [r.code, r.text[-600:], r.errors[:600]])
r = lab.run("status", "--json", "--server", base + "/evil")
lab.check(r.code == 75 and not CONTROLS.search(r.text), "--json has no control characters either",
          r.text[:200])
start = time.monotonic()
r = lab.run("top", "--server", base + "/evil", "-n", 2, "--interval", 0.1, "--seconds", 40)
lab.check(r.code == 0 and not CONTROLS.search(r.text) and time.monotonic() - start < 60,
          "top bears a stranger", [r.code, r.text[:600], r.errors])
key = lab.write("key", "# mine\nme secret-of-mine\n")
r = lab.run("status", "--server", base + "/key", "--api-key-file", key)
lab.check(r.code == 77 and "another key" in r.errors and "secret" not in r.errors, "a wrong key", r.errors)
lab.end()
