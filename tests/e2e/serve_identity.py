# SPDX-License-Identifier: Apache-2.0
"""Whoever else is served, and however the layers are cut: every request gets the answer, bit for bit, that it
gets alone on an idle server.

One list of requests of all kinds is sent four times: one after the other to a server in one process; twice by
16 clients at once, with neighbours that hang up in between, in other orders; and the same to workers.
"""
import json
import random
import sys
import threading
import time

from lab import Lab
from serving import Server

lab = Lab()
REQUESTS = int(sys.argv[2]) if len(sys.argv) > 2 else 520
CLIENTS = 16
WORDS = ("Once upon a time there was a little girl who had a red ball and she went to the park with her "
         "friend the big dog saw them and said hello One day it rained so they ran home to mum").split()
SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
                                      "age": {"type": "integer", "minimum": 0, "maximum": 99}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 4},
    {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
     "additionalProperties": False},
]
GRAMMARS = ['root ::= ("yes" | "no") " " [a-c]+ "."', 'root ::= [0-9] [0-9]? ("," [0-9])*',
            'root ::= word (" " word){1,3}\nword ::= "the" | "dog" | "ran"']
SYSTEM = "You tell short stories about animals to small children, one sentence at a time."


# -- requests ------------------------------------------------------------------------------------------------
def sampling(r):
    """Drawn, or greedy; the seed is named in answers."""
    s = {"temperature": r.choice([0, 0, 0.5, 0.8, 1.2]), "seed": r.randrange(1, 1 << 31)}
    for name, values in (("top_k", [5, 40]), ("top_p", [0.5, 0.9]), ("min_p", [0.02, 0.2]),
                         ("repeat_penalty", [1.1]), ("frequency_penalty", [0.5]),
                         ("presence_penalty", [0.4])):
        if r.random() < 0.2:
            s[name] = r.choice(values)
    if r.random() < 0.1:
        s["logit_bias"] = {str(r.randrange(300, 4000)): r.choice([-5, 3])}
    return s


def text(r, least=2, most=40):
    return " ".join(r.choice(WORDS) for _ in range(r.randint(least, most)))


def shape(r, body):
    """What an answer has to look like, where it stops, how many there are."""
    k = r.random()
    if k < 0.12:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x",
                                                                         "schema": r.choice(SCHEMAS)}}
        body["max_tokens"] = 60
    elif k < 0.2:
        body["grammar"] = r.choice(GRAMMARS)
    elif k < 0.23:
        body["response_format"] = {"type": "json_object"}
    elif k < 0.4:
        body["stop"] = r.choice([["."], ["the", "\n"], " and"])
    if r.random() < 0.15:
        body["n"] = r.choice([2, 3])
    return body


def chat(r):
    messages = [{"role": "system", "content": SYSTEM}] if r.random() < 0.5 else []
    for _ in range(r.choice([0, 0, 1])):
        messages += [{"role": "user", "content": text(r)}, {"role": "assistant", "content": text(r)}]
    messages.append({"role": "user", "content": text(r)})
    body = shape(r, dict(sampling(r), messages=messages, max_tokens=r.choice([1, 5, 12, 24])))
    if r.random() < 0.2:
        body["logprobs"] = True
        body["top_logprobs"] = r.choice([0, 1, 5])
    return "/v1/chat/completions", body


def completion(r):
    prompt = text(r) if r.random() < 0.8 else [r.randrange(300, 4000) for _ in range(r.randint(1, 90))]
    body = shape(r, dict(sampling(r), prompt=prompt, max_tokens=r.choice([1, 8, 16, 30])))
    if r.random() < 0.2:
        body["logprobs"] = r.choice([0, 1, 5])
    elif r.random() < 0.2:
        body["echo"] = True
    return "/v1/completions", body


def llama(r):
    body = dict(sampling(r), prompt=text(r, 2, 120), n_predict=r.choice([2, 10, 20]),
                cache_prompt=r.random() < 0.8)
    if r.random() < 0.2:
        body["n_probs"] = 3
    return "/completion", body


def embedding(r):
    body = {"input": text(r) if r.random() < 0.6 else [text(r), text(r, 1, 5)]}
    if r.random() < 0.3:
        body["encoding_format"] = "base64"
    return "/v1/embeddings", body


def refused(r):
    return r.choice([("/v1/chat/completions", {"messages": []}), ("/v1/completions", {}),
                     ("/v1/completions", {"prompt": "x", "max_tokens": 1, "n": 1000}),
                     ("/v1/completions", {"prompt": "x", "grammar": "root ::= ("}),
                     ("/v1/completions", {"prompt": "once " * 3000}),
                     ("/v1/embeddings", {"input": 5})])


def request(i):
    r = random.Random(1000 + i)
    path, body = r.choices([chat, completion, llama, embedding, refused], [35, 30, 20, 10, 5])[0](r)
    stream = "embeddings" not in path and r.random() < 0.4
    if stream:
        body["stream"] = True
        if path.startswith("/v1") and r.random() < 0.5:
            body["stream_options"] = {"include_usage": True}
    return path, body, stream


# -- answers -------------------------------------------------------------------------------------------------
# What may differ: names, clocks, and how much of a prompt was there already.
VOLATILE = {"id", "created", "timings", "prompt_tokens_details", "tokens_cached", "id_slot", "slot_id",
            "prompt_progress"}


def settled(x):
    if isinstance(x, dict):
        return {k: settled(v) for k, v in sorted(x.items()) if k not in VOLATILE}
    return [settled(v) for v in x] if isinstance(x, list) else x


def join(whole, piece):
    """Adds a piece of log-probabilities: lists of tokens, however many came in one event."""
    if isinstance(piece, list):
        return (whole or []) + settled(piece)
    if isinstance(piece, dict):
        whole = whole or {}
        return {k: join(whole.get(k), v) for k, v in piece.items()}
    return piece if piece is not None else whole


def joined(events):
    """Choices of a stream: pieces of each joined, in order."""
    choices, rest = {}, []
    for e in events:
        if not e.get("choices") and "content" not in e:
            rest.append(settled(e))
            continue
        for c in e.get("choices", [dict(e, index=e.get("index", 0))]):
            at = choices.setdefault(c["index"], {"text": "", "logprobs": None, "end": None, "tokens": []})
            at["text"] += c.get("text", c.get("content", (c.get("delta") or {}).get("content"))) or ""
            at["logprobs"] = join(at["logprobs"], c.get("logprobs") or c.get("completion_probabilities"))
            at["tokens"] += c.get("tokens", [])
            at["end"] = c.get("finish_reason") or c.get("stop_type") or at["end"]
    return {"choices": choices, "rest": rest}


def answer(server, i):
    path, body, stream = request(i)
    if stream:
        a = server.stream(path, body, timeout=120)
        if a.status == 200:
            return json.dumps([200, joined(a.parsed())], sort_keys=True)
    else:
        a = server.post(path, body, timeout=120)
    return json.dumps([a.status, settled(a.json)], sort_keys=True)


def by_one(server):
    return [answer(server, i) for i in range(REQUESTS)]


def by_many(server, seed):
    """All of them in a random order, by clients at once; and neighbours that hang up."""
    order = list(range(REQUESTS))
    random.Random(seed).shuffle(order)
    results, lock, over = [None] * REQUESTS, threading.Lock(), threading.Event()

    def client():
        while True:
            with lock:
                if not order:
                    return
                i = order.pop()
            try:
                results[i] = answer(server, i)
            except Exception as e:  # an answer that never came is a difference
                results[i] = repr(e)

    def neighbour(k):
        r = random.Random(seed * 100 + k)
        while not over.is_set():
            body = dict(sampling(r), prompt=text(r, 1, 150), max_tokens=200, stream=r.random() < 0.5)
            try:
                if body["stream"]:
                    server.stream("/v1/completions", body, stop_after=r.randint(1, 9))
                else:
                    s = server.dial(5)
                    data = json.dumps(body).encode()
                    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: %s:%d\r\n"
                              b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" %
                              (server.host.encode(), server.port, len(data), data))
                    time.sleep(r.random() * 0.05)
                    s.close()
            except OSError:
                pass  # refused while others wait: it is only here to disturb
            time.sleep(r.random() * 0.05)
    threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
    disturb = [threading.Thread(target=neighbour, args=(k,), daemon=True) for k in range(2)]
    for t in threads + disturb:
        t.start()
    for t in threads:
        t.join(600)
    over.set()
    for t in disturb:
        t.join(30)
    return results


def compare(alone, others, what):
    wrong = [i for i in range(REQUESTS) if alone[i] != others[i]]
    lab.check(not wrong, "%d answers %s are the same as alone" % (REQUESTS, what),
              "%d differ, such as\n%s" % (len(wrong), "\n".join(
                  "%s\n  alone: %s\n  here:  %s" % (request(i)[:2], alone[i], others[i]) for i in wrong[:2])))


# -- four times ----------------------------------------------------------------------------------------------
ROOM = ["--parallel", 8, "--max-queue", 256, "-c", 1024, "--pooling", "mean"]
server = Server(lab, *ROOM)
start = time.monotonic()
alone = by_one(server)
print("one after the other: %.1f s" % (time.monotonic() - start), flush=True)
kinds = {}
for i in range(REQUESTS):
    key = (request(i)[0], json.loads(alone[i])[0])
    kinds[key] = kinds.get(key, 0) + 1
print("  ".join("%s %d: %d" % (path, status, n) for (path, status), n in sorted(kinds.items())), flush=True)
good = sum(n for (_, status), n in kinds.items() if status == 200)
lab.check(good >= 0.85 * REQUESTS and all(status in (200, 400, 413, 422) for _, status in kinds),
          "most requests are answered, the others refused", kinds)
lab.check(len(set(alone)) > 0.8 * REQUESTS, "answers differ from each other", len(set(alone)))
again = Server(lab, *ROOM)
compare(alone, by_many(again, 1), "among 16 clients")
compare(alone, by_many(again, 2), "among 16 clients, prompts known")
again.stop()
server.stop()
workers = Server(lab, *ROOM, "--local", 3, "-t", 1)
start = time.monotonic()
compare(alone, by_many(workers, 3), "over three workers among 16 clients")
print("over three workers: %.1f s" % (time.monotonic() - start), flush=True)
workers.check_stop()
lab.end()
