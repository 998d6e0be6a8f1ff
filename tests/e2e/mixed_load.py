# SPDX-License-Identifier: Apache-2.0
"""520 requests of all kinds from 16 clients at once, some of whom hang up: each answer is, to the bit, that
the same request alone on an idle server, in one process and with two workers.

mixed_load.py BUILD [SEED]"""
import json
import random
import sys
import threading
import time

from lab import Lab, wait_until
from serving import Server

KINDS = 104  # requests that differ
TIMES = 5    # each of them under load
CLIENTS = 16
BEGIN = "Once upon a time there was a fox who lived at the edge of a great wood, and every day "
WORDS = ("fox crow lion king mother water mountain night golden said went saw and the a little old bird "
         "child \u00e9t\u00e9 \u72d0 \U0001f98a house tree").split()
SCHEMA = {"type": "object", "properties": {"who": {"enum": ["fox", "crow"]}, "n": {"type": "integer"},
                                           "good": {"type": "boolean"}},
          "required": ["who", "n", "good"], "additionalProperties": False}

lab = Lab()
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
rng = random.Random(seed)


def some_text():
    words = " ".join(rng.choice(WORDS) for _ in range(rng.choice((1, 3, 10, 30, 90))))
    return (BEGIN if rng.random() < 0.5 else "") + words


def sampling():
    o = {"max_tokens": rng.choice((1, 2, 5, 12, 20)), "seed": rng.randrange(1 << 31)}
    o.update(rng.choice(({"temperature": 0}, {"temperature": 1}, {"temperature": 1.3, "top_k": 0},
                         {"top_p": 0.5, "min_p": 0.1}, {"temperature": 0.9, "repeat_penalty": 1.3},
                         {"frequency_penalty": 0.7, "presence_penalty": 0.3, "repeat_last_n": -1},
                         {"logit_bias": {" fox": 4, "411": -100}})))
    if rng.random() < 0.3:
        o["stop"] = rng.choice((".", [",", "."], " the", ["\n", " and"]))
    if rng.random() < 0.2:
        o["n"] = rng.choice((2, 3))
    if rng.random() < 0.15:
        o.update({"max_tokens": 60, "json_schema": SCHEMA} if rng.random() < 0.5 else
                 {"grammar": 'root ::= ("fox" | "crow") (" " [a-z]+)* "."'})
    if rng.random() < 0.3:
        o["cache_prompt"] = False
    return o


def some_request():
    """Path and body."""
    kind = rng.randrange(8)
    if kind < 3:
        body = dict(sampling(), messages=[{"role": "user", "content": some_text()}])
        if rng.random() < 0.5:
            body["messages"].insert(0, {"role": "system", "content": BEGIN})
        if rng.random() < 0.3:
            body.update(logprobs=True, top_logprobs=rng.randrange(4))
        return "/v1/chat/completions", body
    if kind < 5:
        body = dict(sampling(), prompt=some_text() if rng.random() < 0.8 else
                    [some_text(), [rng.randrange(4000) for _ in range(9)]])
        if rng.random() < 0.3:
            body["logprobs"] = rng.randrange(4)
        return "/v1/completions", body
    if kind < 7:
        return "/completion", dict(sampling(), prompt=some_text(), return_tokens=True,
                                   n_probs=rng.choice((0, 0, 3)))
    return "/v1/embeddings", {"input": [some_text() for _ in range(rng.randrange(1, 5))],
                              "pooling": rng.choice(("mean", "last")), "encoding_format": "base64"}


requests = [some_request() for _ in range(KINDS)]


def essence(path, answer):
    """What may not differ."""
    if path == "/v1/embeddings":
        return [d["embedding"] for d in answer["data"]], answer["usage"]
    if path == "/completion":
        return [{k: a.get(k) for k in ("content", "tokens", "stop_type", "stopping_word", "tokens_predicted",
                                       "tokens_evaluated", "completion_probabilities")}
                for a in (answer if isinstance(answer, list) else [answer])]
    return answer["choices"], [answer["usage"][k] for k in ("prompt_tokens", "completion_tokens")]


def streamed_text(path, events):
    """The texts of a stream by their index, and whether it came to its end."""
    texts = {}
    for e in events:
        if e == "[DONE]":
            continue
        e = json.loads(e)
        for c in [e] if path == "/completion" else e["choices"]:
            more = c.get("content", c.get("text", c.get("delta", {}).get("content")))
            texts[c["index"]] = texts.get(c["index"], "") + (more or "")
    return texts


def whole_text(path, what):
    if path == "/completion":
        return {i: a["content"] for i, a in enumerate(what)}
    return {c["index"]: c.get("text", c.get("message", {}).get("content")) for c in what[0]}


def ask(server, path, body):
    while True:
        r = server.post(path, body)
        if r.status != 503:
            return r
        time.sleep(0.02)


def hang_up(server, path, body, after):
    c = server.connect()
    c.request("POST", path, json.dumps(dict(body, max_tokens=500)), {"Content-Type": "application/json"})
    time.sleep(after)
    c.close()


class Load:
    def __init__(self, server, want, asks, gone):
        self.server, self.want, self.asks, self.gone = server, want, asks, gone
        self.lock, self.wrong, self.done = threading.Lock(), [], 0

    def client(self):
        own = random.Random(threading.get_ident())
        while True:
            with self.lock:
                if not self.asks:
                    return
                i, how = self.asks.pop()
            path, body = requests[i]
            if how == "gone":
                hang_up(self.server, path, body, own.random() * 0.05)
                continue
            stream = how == "stream" and path != "/v1/embeddings"
            r = ask(self.server, path, dict(body, stream=True) if stream else body)
            if r.status != 200:
                right = False
            elif stream:
                right = streamed_text(path, r.events()) == whole_text(path, self.want[i])
            else:
                right = essence(path, r.json) == self.want[i]
            with self.lock:
                self.done += 1
                if not right:
                    self.wrong.append((path, body, r.status, r.body[-500:], self.want[i]))

    def run(self):
        threads = [threading.Thread(target=self.client) for _ in range(CLIENTS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()


def settled(server):
    """Nothing is computed any more, and no page is held but by the prefix cache."""
    s = server.get("/tern/cluster").json["scheduler"]
    p = s["pages"]
    return s["running"] == s["waiting"] == 0 and p["free"] + p["cached"] == p["total"]


def main():
    args = ["--parallel", "6", "-c", "768", "-q"]
    quiet = Server(lab, args=args)
    want, bad = [], []
    for path, body in requests:
        r = quiet.post(path, dict(body, cache_prompt=False))
        if r.status != 200:
            bad.append((path, body, r.body))
        want.append(essence(path, r.json) if r.status == 200 else None)
    if not lab.check(not bad, "every request alone is answered", bad[:2]):
        lab.end()
    half = KINDS * TIMES // 2
    asks = [(i % KINDS, rng.choice(("whole", "stream"))) for i in range(KINDS * TIMES)]
    rng.shuffle(asks)
    for what, server, mine in (("in one process", quiet, asks[:half]),
                               ("with two workers", Server(lab, "--local", "2", args=args), asks[half:])):
        n = len(mine)
        mine = mine + [(rng.randrange(KINDS), "gone") for _ in range(n // 8)]
        rng.shuffle(mine)
        load = Load(server, want, mine, n // 8)
        start = time.monotonic()
        load.run()
        lab.check(load.done == n and not load.wrong, "%d answers %s are those of alone" % (n, what),
                  "%d of %d differ: %r" % (len(load.wrong), n, load.wrong[:1]))
        print("  %.1f s, seed %d" % (time.monotonic() - start, seed), flush=True)
        lab.check(wait_until(lambda: settled(server), 5), "nothing is left behind, " + what,
                  server.get("/tern/cluster").json["scheduler"])
        server.stop()
    lab.end()


main()
