# SPDX-License-Identifier: Apache-2.0
"""llama-server's own routes of tern serve, asked with curl: their fields, their forms, and that they say what
tern run, tokenize and embed say."""
import contextlib
import json
import shutil
import struct
import subprocess
import threading
import time

from lab import Lab, wait_until
from serving import Answer, Server

lab = Lab()
if not shutil.which("curl"):
    lab.skip("curl is missing")
    lab.end()
KEY, OTHER = "a-key-for-this-test", "another-key-for-this-test"
server = Server(lab, "--parallel", 2, "--max-queue", 2, "--max-body", "256K", key=KEY, more_keys=[OTHER])


def curl(method, path, body=None, key=KEY, more=()):
    command = ["curl", "-s", "-S", "-i", "-N", "-m", "60", "-X", method, server.url + path]
    command += ["-H", "Expect:"] + list(more)
    if key:
        command += ["-H", "Authorization: Bearer " + key]
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    if data is not None:
        command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    r = subprocess.run(command, input=data, capture_output=True, timeout=90)
    head, _, rest = r.stdout.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:] if ":" in line)}
    return Answer(int(lines[0].split()[1]) if lines[0] else None, headers, rest)


def get(path, **kwargs):
    return curl("GET", path, **kwargs)


def post(path, body, **kwargs):
    return curl("POST", path, body, **kwargs)


def complete(**body):
    r = post("/completion", dict({"prompt": "Once upon a time", "n_predict": 8, "temperature": 0}, **body))
    return r.json if r.status == 200 else lab.check(False, "/completion %s" % body, r.body) or {}


def parsed(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


# -- what it is ----------------------------------------------------------------------------------------------
for path in ("/health", "/v1/health"):
    r = get(path, key=None)
    lab.check(r.status == 200 and r.json == {"status": "ok"}, path + ", without a key", r.body)
props = get("/props").json
lab.check(props["total_slots"] == 2 and props["default_generation_settings"]["n_ctx"] == 1024 and
          props["default_generation_settings"]["params"]["top_k"] == 40 and
          "content" in props["chat_template"] and props["model_alias"] == "fable" and
          props["bos_token"] == "<|begin_of_text|>" and props["eos_token"].startswith("<|") and
          props["modalities"] == {"vision": False, "audio": False},
          "/props", props)
slots = get("/slots").json
lab.check([s["id"] for s in slots] == [0, 1] and not any(s["is_processing"] for s in slots), "/slots",
          slots)
lab.check(get("/slots?fail_on_no_slot=1").status == 200, "a slot is free")
lab.check(get("/lora-adapters").json == [], "no adapters")

# -- whose form errors have, also those from before a route is reached ---------------------------------------
TEXT_PLAIN = ["-H", "Origin: " + server.url, "-H", "Content-Type: text/plain"]
for path, own in (("/completion", True), ("/nowhere", True), ("/v1/completions", False),
                  ("/chat/completions", False), ("/v1/nowhere", False)):
    for status, error, want in (
            (401, post(path, {}, key=None), "invalid_api_key"),
            (413, post(path, {"content": "x" * 300000}), None),
            (413, post(path, {"content": "x" * 300000}, more=["-H", "Transfer-Encoding: chunked"]), None),
            (431, post(path, {}, more=["-H", "X-Long: " + "x" * 20000]), None),
            (415, curl("POST", path, more=TEXT_PLAIN + ["-d", "{}"]), None),
            (404 if "nowhere" in path else 405, curl("PUT", path), None)):
        lab.check(error.status == status and error.error["code"] == (status if own else want) and
                  set(error.error) == {"message", "type", "param", "code"},
                  "%d of %s" % (status, path), error.body)
for path, own in (("/infill", True), ("/rerank", True), ("/props", True), ("/slots/0?action=erase", True),
                  ("/lora-adapters", True), ("/v1/messages", False), ("/v1/rerank", False)):
    r = post(path, {})
    lab.check(r.status == 501 and r.error["type"] == "not_supported_error" and
              r.error["code"] == (501 if own else None), "%s is not there, and says so" % path, r.body)

# -- ours ----------------------------------------------------------------------------------------------------
r = get("/", key=None)
again = get("/", key=None, more=["-H", "If-None-Match: " + r.headers["etag"]])
lab.check(r.status == 200 and r.headers["content-type"].startswith("text/html") and b"<html" in r.body and
          r.headers["content-security-policy"].startswith("default-src 'none'") and
          r.headers["x-frame-options"] == "DENY", "the page, with its policy", r.headers)
lab.check(again.status == 304 and not again.body and again.headers["etag"] == r.headers["etag"],
          "no second time to who has it", again.headers)
lab.check("steps" not in get("/tern/cluster").json and
          isinstance(get("/tern/cluster?since=0").json["steps"], list), "/tern/cluster, steps if asked for")
for since in ("x", "-1", "", "99999999999999999999"):
    r = get("/tern/cluster?since=" + since)
    lab.check(r.status == 400 and r.error["param"] == "since", "since=%s is refused" % since, r.body)
with contextlib.closing(server.request("GET", "/tern/events")) as c:
    r = c.getresponse()
    e = [json.loads(line[len("data: "):]) for line in (r.readline() for _ in range(4)) if line.strip()]
lab.check(r.getheader("Content-Type").startswith("text/event-stream") and len(e) == 2 and
          all(x["model"]["name"] == "fable" for x in e), "/tern/events", e)
lab.check(get("/tern/events", key=None).status == 401, "with a key alone")

# -- tokens --------------------------------------------------------------------------------------------------
TEXT = "The fox, \u00e9 \u72d0 \U0001f98a\n<|begin_of_text|> x"
for args, body in ((["--no-bos"], {}), ([], {"add_special": True}),
                   (["--no-bos", "--no-parse-special"], {"parse_special": False})):
    want = [int(i) for i in lab.run("tokenize", "--ids", *args, "-p", TEXT).text.split()]
    got = post("/tokenize", dict(body, content=TEXT)).json["tokens"]
    lab.check(got == want, "/tokenize says what tern tokenize %s says" % " ".join(args), (got, want))
ids = post("/tokenize", {"content": TEXT}).json["tokens"]
lab.check(post("/detokenize", {"tokens": ids}).json["content"] == TEXT, "/detokenize gives the text back")
pieces = post("/tokenize", {"content": TEXT, "with_pieces": True}).json["tokens"]
joined = b"".join(bytes(p["piece"]) if isinstance(p["piece"], list) else p["piece"].encode() for p in pieces)
lab.check([p["id"] for p in pieces] == ids and joined.decode() == TEXT and
          any(isinstance(p["piece"], list) for p in pieces), "pieces, as bytes where no UTF-8", pieces)
lab.check(post("/tokenize", {"content": ["The", 5, " fox"]}).json["tokens"].count(5) == 1, "a mixed list")
lab.check(post("/tokenize", {}).json == {"tokens": []} and
          post("/detokenize", {}).json == {"content": ""}, "nothing of nothing")
for body in ({"tokens": [4096]}, {"tokens": [-1]}, {"tokens": ["x"]}, {"tokens": [1.5]}, {"tokens": 7}):
    r = post("/detokenize", body)
    lab.check(r.status == 400 and r.error["param"] == "tokens" and r.error["code"] == 400,
              "/detokenize refuses %s" % body, r.body)
r = post("/tokenize", {"content": {"a": 1}})
lab.check(r.status == 400 and r.error["param"] == "content", "/tokenize refuses an object", r.body)

# -- a template ----------------------------------------------------------------------------------------------
TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tell me about the fox."}]
prompt = post("/apply-template", {"messages": TALK}).json["prompt"]
chat = post("/v1/chat/completions", {"messages": TALK, "temperature": 0, "max_tokens": 10}).json
lab.check(prompt == "Be kind.\nTell me about the fox.\n" and
          complete(prompt=prompt, n_predict=10)["content"] == chat["choices"][0]["message"]["content"],
          "/apply-template, and the same answer from its text", (prompt, chat))
r = post("/apply-template", {"messages": TALK, "chat_template_kwargs": {"no_such_variable": True}})
lab.check(r.status == 200 and r.json["prompt"] == prompt, "a variable that no template reads", r.body)
r = post("/apply-template", {"messages": TALK, "chat_template_kwargs": {"messages": []}})
lab.check(r.status == 400 and r.error["param"] == "chat_template_kwargs", "a variable of the template's own",
          r.body)
r = post("/apply-template", {"messages": []})
lab.check(r.status == 400 and r.error["param"] == "messages", "no messages", r.body)

# -- completion ----------------------------------------------------------------------------------------------
want = lab.run("run", "-p", "Once upon a time", "-n", 24, "--temp", 0, "-q").text
c = complete(n_predict=24, return_tokens=True)
lab.check(want.rstrip("\n").endswith(c["content"].rstrip("\n")) and len(c["content"]) > 40,
          "the text of tern run", (want, c["content"]))
lab.check(c["stop"] is True and c["stop_type"] == "limit" and c["stopping_word"] == "" and
          c["tokens_predicted"] == 24 == len(c["tokens"]) and c["tokens_evaluated"] == 5 and
          c["truncated"] is False and c["index"] == 0 and c["model"] == "fable" and
          c["prompt"].endswith("Once upon a time") and c["id_slot"] in (0, 1) and
          c["generation_settings"]["n_predict"] == 24,
          "its figures", c)
t = c["timings"]
lab.check(t["predicted_n"] == 24 and t["prompt_n"] + t["cache_n"] == 5 and t["predicted_ms"] > 0 and
          abs(t["predicted_per_second"] * t["predicted_ms"] / 24e3 - 1) < 0.01, "its timings", t)
lab.check(post("/detokenize", {"tokens": c["tokens"]}).json["content"] == c["content"], "its tokens")
ids = post("/tokenize", {"content": "Once upon a time", "add_special": True}).json["tokens"]
lab.check(complete(prompt=ids, n_predict=24)["content"] == c["content"] and
          complete(prompt=ids[:2] + [" upon a time"], n_predict=24)["content"] ==
          complete(prompt=ids[:2] + post("/tokenize", {"content": " upon a time"}).json["tokens"],
                   n_predict=24)["content"], "token ids and mixed prompts")
s = complete(n_predict=40, stop=[" king", " queen"])
lab.check(s["stop_type"] == "word" and s["stopping_word"] == " king" and " king" not in s["content"] and
          c["content"].startswith(s["content"]), "a stop text", s)
lab.check(complete(n_predict=0)["tokens_predicted"] == 0, "no tokens at all")
p = complete(n_predict=3, n_probs=2)["completion_probabilities"]
lab.check(len(p) == 3 and all(len(x["top_logprobs"]) == 2 and x["logprob"] <= 0 and
                              bytes(x["bytes"]).decode() == x["token"] and
                              x["top_logprobs"][0]["id"] == x["id"] for x in p), "n_probs", p)
lab.check(complete(logit_bias=[[p[0]["id"], False]], n_predict=1, n_probs=1)
          ["completion_probabilities"][0]["id"] != p[0]["id"], "a bias of false forbids")
lab.check(complete(n_predict=12, temperature=1, seed=5)["content"] ==
          complete(n_predict=12, temperature=1, seed=5, cache_prompt=False)["content"] !=
          complete(n_predict=12, temperature=1, seed=6)["content"], "seeds, with and without the cache")
many = post("/completion", {"prompt": ["Once upon a time", "The fox"], "n_predict": 8, "temperature": 0}).json
lab.check([m["index"] for m in many] == [0, 1] and many[0]["content"] == complete()["content"] and
          many[1]["content"] == complete(prompt="The fox")["content"], "two prompts", many)
many = post("/completion", {"prompt": "The fox", "n_cmpl": 3, "n_predict": 8, "seed": 3}).json
lab.check(len(many) == 3 and many[2]["content"] ==
          complete(prompt="The fox", temperature=0.8, seed=5)["content"], "three answers", many)
many = post("/completion", {"prompt": "The fox", "n_cmpl": 12, "n_predict": 4, "seed": 3}).json
lab.check(len(many) == 12 and many[11]["content"] ==
          complete(prompt="The fox", temperature=0.8, seed=14, n_predict=4)["content"],
          "more answers than slot and queue have room for", many)
lab.check(complete(prompt="The fox", wrong_field=[1], id_slot=7, mirostat_tau=5.0)["content"] ==
          complete(prompt="The fox")["content"], "unknown fields are ignored")
some = complete(n_predict=24, response_fields=["content", "generation_settings/n_predict", "content/x",
                                               "nothing", "timings"])
lab.check(set(some) == {"content", "generation_settings/n_predict", "timings"} and
          some["content"] == c["content"] and some["generation_settings/n_predict"] == 24 and
          some["timings"]["predicted_n"] == 24, "response_fields", some)
lab.check(set(complete(response_fields=[])) == set(c), "none named: all of them")
r = post("/completion", {"prompt": "x", "response_fields": ["content", 1]})
lab.check(r.status == 400 and r.error["param"] == "response_fields", "names of fields are strings", r.body)
long = "The fox saw the crow. " * 30
first, again = complete(prompt=long), complete(prompt=long)
lab.check(again["tokens_cached"] >= 64 and again["timings"]["cache_n"] == again["tokens_cached"] and
          again["content"] == first["content"] and
          complete(prompt=long, cache_prompt=False)["tokens_cached"] == 0, "the prefix cache", again)
full = complete(prompt=(ids * 203)[:1012], n_predict=-1, ignore_eos=True)
lab.check(full["truncated"] is True and full["stop_type"] == "limit" and full["tokens_evaluated"] == 1012 and
          full["tokens_predicted"] in (12, 13), "a context that is full", full["tokens_predicted"])
j = complete(n_predict=100, temperature=1, seed=1, json_schema={
    "type": "object", "properties": {"a": {"enum": ["x", "y"]}, "b": {"type": "boolean"}},
    "required": ["a", "b"], "additionalProperties": False})
got = parsed(j["content"])
lab.check(isinstance(got, dict) and got["a"] in ("x", "y") and isinstance(got["b"], bool) and
          len(got) == 2 and j["stop_type"] == "eos", "a JSON schema", j["content"])
g = complete(n_predict=50, temperature=1, grammar='root ::= "fox" [0-9] [0-9] "!"')
lab.check(len(g["content"]) == 6 and g["content"].startswith("fox") and g["content"].endswith("!"),
          "a grammar", g["content"])

# -- streams -------------------------------------------------------------------------------------------------
r = post("/completion", {"prompt": "Once upon a time", "n_predict": 24, "temperature": 0, "stream": True,
                         "timings_per_token": True})
e = [json.loads(x) for x in r.events]
lab.check(r.headers["content-type"].startswith("text/event-stream") and "[DONE]" not in r.body.decode() and
          "".join(x["content"] for x in e) == c["content"] and [x["stop"] for x in e] ==
          [False] * (len(e) - 1) + [True] and [i for x in e for i in x["tokens"]] == c["tokens"] and
          e[-1]["stop_type"] == "limit" and all("timings" in x for x in e) and
          len({x["id_slot"] for x in e}) == 1 and e[0]["id_slot"] in (0, 1), "events", r.body)
for path, more in (("/completion", {}), ("/v1/completions", {}),
                   ("/v1/chat/completions", {"messages": [{"role": "user", "content": "fox " * 600}]})):
    r = post(path, dict({"prompt": "fox " * 600, "max_tokens": 2, "stream": True, "return_progress": True,
                         "cache_prompt": False, "response_fields": ["stop"]}, **more))
    e = [json.loads(x) for x in r.events if x != "[DONE]"]
    told = [x["prompt_progress"] for x in e if "prompt_progress" in x]
    done = [x["processed"] for x in told]
    lab.check(told and done == sorted(set(done)) and done[-1] == told[-1]["total"] > 600 and
              all(x["cache"] == 0 and x["time_ms"] >= 0 for x in told) and
              ["prompt_progress" in x for x in e[path.startswith("/v1/chat"):]] ==
              [True] * len(told) + [False] * (len(e) - len(told) - path.startswith("/v1/chat")),
              "%s: how far the prompt is, before the answer" % path, r.body)
    lab.check((e[-1] == {"stop": True}) == (path == "/completion"), "%s: response_fields" % path, e[-1])
# Steps of one row each: far more of them than anybody wants to hear of.
small = Server(lab, "--parallel", 4, "--chunk", 1)
r = small.stream("/completion", {"prompt": [[i] + [20] * 700 for i in range(4)], "stream": True,
                                 "n_predict": 1, "cache_prompt": False, "return_progress": True})
for i in range(4):
    told = [e["prompt_progress"] for e in r.parsed() if e["index"] == i and "prompt_progress" in e]
    lab.check(2 <= len(told) <= 4 + told[-1]["time_ms"] / 100 and told[-1]["processed"] == 701,
              "progress is told now and then", told)
small.check_stop()
r = post("/completions", {"prompt": ["Once upon a time", "The fox"], "n_predict": 8, "temperature": 0,
                          "stream": True})
e = [json.loads(x) for x in r.events]
lab.check("".join(x["content"] for x in e if x["index"] == 1) == complete(prompt="The fox")["content"] and
          sum(x["stop"] for x in e) == 2, "events of two prompts", r.body)

# -- embedding -----------------------------------------------------------------------------------------------
for pooling in ("mean", "last"):
    line = lab.run("embed", "-p", "The fox", "--pooling", pooling, "-q").text.split()
    e = post("/embedding", {"content": "The fox", "pooling": pooling}).json
    lab.check(e[0]["index"] == 0 and [f32(float(v)) for v in line] == [f32(v) for v in e[0]["embedding"][0]],
              "/embedding, " + pooling + ": the vector of tern embed", e)
rows = lab.run("embed", "-p", "The fox", "--pooling", "none", "--no-normalize", "-q").text.splitlines()
e = post("/embeddings", {"input": ["The fox", "A crow"], "pooling": "none"}).json
lab.check(len(e) == 2 and [[f32(float(v)) for v in row.split()] for row in rows] ==
          [[f32(v) for v in row] for row in e[0]["embedding"]], "all rows", e)

# -- mistakes ------------------------------------------------------------------------------------------------
for path, body, status, words in (
        ("/completion", b"", 400, "empty"), ("/completion", b"{", 400, "JSON"),
        ("/completion", b"[1]", 400, "object"),
        ("/completion", {}, 400, "prompt"), ("/completion", {"prompt": "x", "mirostat": 2}, 400, "mirostat"),
        ("/completion", {"prompt": "x " * 2000}, 400, "context"),
        ("/completion", {"prompt": "x", "grammar": "root ::= ("}, 400, ""),
        ("/embedding", {"content": "x", "pooling": "max"}, 400, "max"),
        ("/embedding", {"content": "x"}, 400, "pooling"),
        ("/tokenize", b'{"content": "\xff"}', 400, "JSON"),
        ("/tokenize", {"content": "x" * 300000}, 413, ""),
        ("/nowhere", {}, 404, "/nowhere"), ("/health", {}, 405, "GET")):
    r = post(path, body)
    e = r.error
    lab.check(r.status == status and words in e["message"] and e["code"] == status and
              {"message", "type", "param", "code"} <= set(e), "%s of %s" % (status, path), r.body)
    if status == 405:
        lab.check("GET" in r.headers.get("allow", "") and e["code"] == 405, "Allow says what there is",
                  r.headers)
e = post("/completion", {"prompt": "x " * 2000}).error
lab.check(e["type"] == "exceed_context_size_error" and e["n_ctx"] == 1024 and e["n_prompt_tokens"] > 2000,
          "too long a prompt says how long", e)

server.check_stop()

# -- more than there is room for, by answers without an end --------------------------------------------------
server = Server(lab, "--parallel", 2, "--max-queue", 2, "-c", 256, "--context-shift", key=KEY,
                more_keys=[OTHER])
hold = {"prompt": "Once", "n_predict": -1, "ignore_eos": True, "temperature": 0, "stream": True}


def scheduler():
    return get("/tern/cluster").json["scheduler"]


def crowd(*askers):
    """Their connections, in the order in which the server has heard them."""
    connections = []
    for key, user in askers:
        connections.append(server.request("POST", "/completion", dict(hold, user=user),
                                          headers={"Authorization": "Bearer " + key}))
        lab.check(wait_until(lambda: scheduler()["running"] + scheduler()["waiting"] == len(connections)),
                  "request %d of a crowd is heard" % len(connections), scheduler())
    return connections


connections = crowd(*[(KEY, "a")] * 4)
refused = post("/completion", {"prompt": "x", "n_predict": 1})
lab.check(refused.status == 503 and refused.error["type"] == "unavailable_error" and
          refused.error["code"] == 503 and int(refused.headers["retry-after"]) >= 1,
          "a full queue is 503 with Retry-After", (scheduler(), refused.body))
slots = get("/slots")
streams = [c.getresponse() for c in connections[:2]]
mine = [json.loads(s.readline()[len("data: "):])["id_slot"] for s in streams]
lab.check(sorted(mine) == [0, 1], "each says in which slot it is", mine)
lab.check(sum(s["is_processing"] for s in slots.json) == 2, "both are in /slots, wherever their KV lies",
          slots.body)
r = get("/slots?fail_on_no_slot=1")
lab.check(r.status == 503 and r.error["code"] == 503, "no slot is free", r.body)
for held_open in streams + connections:
    held_open.close()
lab.check(wait_until(lambda: not any(s["is_processing"] for s in get("/slots").json)),
          "clients that hang up free their slots")

# One who asks for many gets no turn before another for it.
connections = crowd((KEY, "a"), (KEY, "b"), (KEY, "c"), (OTHER, "a"))
connections[0].sock.close()
events = connections[3].getresponse()
first = events.readline()
lab.check(first.startswith(b"data: ") and scheduler()["waiting"] == 1, "turns are given by keys", first)
events.close()
for connection in connections:
    connection.close()
lab.check(wait_until(lambda: scheduler()["running"] + scheduler()["waiting"] == 0), "all are gone")

# -- many threads --------------------------------------------------------------------------------------------
want = {i: complete(prompt="The fox %d" % i, temperature=1, seed=i)["content"] for i in range(6)}
wrong = []


def one(i):
    for _ in range(2):
        while True:
            r = post("/completion", {"prompt": "The fox %d" % i, "n_predict": 8, "temperature": 1,
                                            "seed": i})
            if r.status != 503:
                break
            time.sleep(0.05)
        if r.status != 200 or r.json["content"] != want[i]:
            wrong.append((i, r.status, r.body))


threads = [threading.Thread(target=one, args=(i,)) for i in want]
for t in threads:
    t.start()
for t in threads:
    t.join()
lab.check(not wrong, "answers among others are those of alone", wrong)
server.check_stop()

# -- a context that is shifted -------------------------------------------------------------------------------
server = Server(lab, "-c", 64, "--context-shift", "--alias", 'a "fox"')
hold = {"prompt": "Once upon a time", "n_predict": 150, "temperature": 0, "ignore_eos": True}
whole, kept = [post("/completion", dict(hold, n_keep=n), key=None).json for n in (0, -1)]
lab.check(whole["tokens_predicted"] == 150 == kept["tokens_predicted"] and whole["truncated"] and
          whole["stop_type"] == "limit" and whole["content"][:60] == kept["content"][:60] and
          whole["content"] != kept["content"], "a context that is full goes on, with what n_keep says",
          (whole, kept))
lab.check(get("/v1/models", key=None).json["data"][0]["id"] == 'a "fox"' and
          post("/v1/embeddings", {"input": "x", "pooling": "last"}, key=None).json["model"] == 'a "fox"',
          "a name with quotes")
server.check_stop()
lab.end()
