# SPDX-License-Identifier: Apache-2.0
"""`tern chat` over pipes: ten turns whose KV cache is kept, the same text as the whole conversation sent at
once, in one process and over workers; commands, files of conversations, a full context, signals."""
import json
import os
import signal
import subprocess
import time

from lab import Cluster, Lab

lab = Lab()
WORDS = ["Once upon a time there was a king.", "The king had a daughter.",
         "One day she went into the forest.", "There she met a wolf.", "The wolf said to her:",
         "She was not afraid.", "Then came the hunter.",
         "He took his gun.", "At home the king waited.", "And in the end"]
GREEDY = ["--temp", 0, "-q", "-n"]
# Tokens of an answer: none of the answers ends where a longer token would have reached across.
LENGTH = {"plain": 30, "bitnet": 24, "llama3": 30}


def said(words):
    return ("".join(w + "\n" for w in words)).encode()


def answers(run):
    return [json.loads(line) for line in run.text.splitlines()]


def chat(*args, words=(), stdin=None):
    return lab.run("chat", *args, stdin=said(words) if stdin is None else stdin)


def whole_text(template, history):
    """What the template makes of a conversation, written down here a second time."""
    if template == "plain":
        return "".join(content + "\n" for _, content in history)
    if template == "bitnet":
        return "".join("%s: %s<|eot_id|>" % (role.capitalize(), content.strip())
                       for role, content in history) + "Assistant: "
    return "".join("<|start_header_id|>%s<|end_header_id|>\n\n%s<|eot_id|>" % (role, content.strip())
                   for role, content in history) + "<|start_header_id|>assistant<|end_header_id|>\n\n"


# -- ten turns -----------------------------------------------------------------------------------------------

for template, n in LENGTH.items():
    options = GREEDY + [n, "--chat-template", template]
    r = chat("--json", *options, words=WORDS)
    got = answers(r)
    if not lab.check(r.code == 0 and len(got) == 10, template + ": ten answers", r.errors):
        continue
    used = [a["usage"] for a in got]
    lab.check(all(u["prompt_tokens_details"]["cached_tokens"] == v["total_tokens"] - 1
                  for u, v in zip(used[1:], used)),
              template + ": each turn keeps all that went through the layers before", used)
    lab.check(all(a["rows_sent"] == a["usage"]["total_tokens"] - 1 for a in got),
              template + ": no token goes through the layers twice", [a["rows_sent"] for a in got])
    history, same, ran, tried = [], 0, 0, 0
    for i, (words, a) in enumerate(zip(WORDS, got)):
        if template != "plain" and i % 3:
            history += [("user", words), ("assistant", a["content"])]
            continue
        tried += 1
        before = [{"role": role, "content": content} for role, content in history]
        path = lab.write("history.json", json.dumps({"messages": before}))
        whole = answers(chat("--json", *options, "--load", path, "-p", words))[0]
        same += whole["content"] == a["content"] and \
            whole["usage"]["prompt_tokens_details"]["cached_tokens"] == 0 and \
            whole["usage"]["prompt_tokens"] == a["usage"]["prompt_tokens"]
        history.append(("user", words))
        r = lab.run("run", *GREEDY, n, "-p", whole_text(template, history))
        ran += r.text == a["content"] + "\n"
        history.append(("assistant", a["content"]))
    lab.check(same == tried, template + ": the conversation sent at once gives the same answers", same)
    lab.check(ran == tried, template + ": so does tern run with the text of the template", ran)
    text = "".join(a["content"] + "\n" for a in got)
    lab.check(chat(*options, words=WORDS).text == text, template + ": as text")
    lab.check(chat(*options, *sum([["-p", w] for w in WORDS], [])).text == text, template + ": by -p")
    if template == "plain":
        for workers in (2, 3):
            r = chat(*options, "--local", workers, words=WORDS)
            lab.check(r.text == text, "over %d workers" % workers, r.errors)

# Workers of a cluster, that hear nothing of us for longer than a silence may last; then one dies.
cluster = Cluster(lab, 2)
p = lab.start("chat", "--temp", 0, "-n", 30, "-q", "--chat-template", "plain", *cluster.args(),
              stdin=subprocess.PIPE)
spoken = []
for words in WORDS[:2]:
    p.stdin.write(said([words]))
    p.stdin.flush()
    spoken.append(p.stdout.readline().decode())
    time.sleep(4)
piped = chat(*GREEDY, 30, "--chat-template", "plain", words=WORDS[:2]).text
lab.check("".join(spoken) == piped, "over a cluster, with pauses", [spoken, piped])
cluster.workers[1].stop()
out, err = p.communicate(said(WORDS[2:3]), timeout=60)
lab.check(p.returncode == 69 and "w2" in err.decode() and out == b"", "a worker that dies: a sentence",
          [p.returncode, err, out])
cluster.stop()

dump = lab.path("dump")
r = chat(*GREEDY, 5, "--dump-steps", dump, words=WORDS[:2])
with open(dump, "rb") as f:
    dumped = f.read()
lab.check(r.code == 0 and all(w.encode() in dumped for w in WORDS[:2]), "--dump-steps", r.errors)

# A stop string of several tokens is taken back from the caches: what follows is as if it had never been
# there.
options = GREEDY + [25, "--chat-template", "plain", "-r", "'s son was very"]
r = chat("--json", *options, "--local", 2, words=WORDS[:3])
got = answers(r)
lab.check(r.code == 0 and [a["finish_reason"] for a in got].count("stop") > 0, "a stop string", r.text)
path = lab.write("history.json", json.dumps([m for w, a in zip(WORDS, got[:2]) for m in (
    {"role": "user", "content": w}, {"role": "assistant", "content": a["content"]})]))
whole = answers(chat("--json", *options, "--load", path, "-p", WORDS[2]))[0]
lab.check(whole["content"] == got[2]["content"] and
          whole["usage"]["prompt_tokens"] == got[2]["usage"]["prompt_tokens"],
          "the turns behind a stop string", [whole, got])

# Drawn answers: the same seed gives the same conversation.
drawn = [chat("-q", "-n", 20, "--chat-template", "plain", "-s", seed,
               words=WORDS[:3]).text for seed in (7, 7, 8)]
lab.check(drawn[0] == drawn[1] != "" and drawn[2] != drawn[0], "a seed")

# -- commands ------------------------------------------------------------------------------------------------

base = ["--temp", 0, "-n", 10, "--chat-template", "plain"]
file = lab.path("saved.json")
r = chat(*base, words=["/help", "", WORDS[0], WORDS[1], "/save " + file, "/stats", "/reset", WORDS[0],
                       "/system Be brief.", "/system", WORDS[1], "/load " + file, WORDS[2], "/stats", "/quit",
                       "never said"])
lines = r.text.splitlines()
lab.check(r.code == 0 and len(lines) == 5, "commands are no messages", r.text + r.errors)
lab.check(len(lines) == 5 and lines[2] == lines[0], "/reset: as in the beginning", r.text)
for sentence in ("/reset ", "a new conversation", "4 messages written", "4 messages read",
                 "system prompt set", "\nBe brief.\n", "tokens in the context", "kept from before"):
    lab.check(sentence in r.errors, "commands report on stderr: " + sentence.strip(), r.errors)
with open(file, encoding="utf-8") as f:
    saved = json.load(f)["messages"]
lab.check([m["role"] for m in saved] == ["user", "assistant"] * 2 and saved[0]["content"] == WORDS[0] and
          saved[1]["content"] == lines[0], "/save", saved)
lab.check(os.stat(file).st_mode & 0o777 == 0o600, "/save: for the user alone")
third = chat(*base, "-q", words=WORDS[:3]).text.splitlines()[2]
lab.check(len(lines) == 5 and lines[4] == third, "/load: the conversation goes on", r.text)
r = chat(*base, "-q", "--system", "Be brief.", words=WORDS[1:2])
lab.check(r.code == 0 and len(lines) == 5 and r.text.splitlines()[0] ==
          chat(*base, "-q", "--load", lab.write("s.json", '[{"role":"system","content":"Be brief."}]'), "-p",
               WORDS[1]).text.splitlines()[0], "--system", r.text)

one = chat(*base, "-q", "--json", stdin=b"two\\\nlines")
r = chat(*base, "-q", "--json", "-f", lab.write("two", "two\nlines\n"))
lab.check(answers(one)[0]["content"] == answers(r)[0]["content"] and
          answers(one)[0]["usage"] == answers(r)[0]["usage"], "a line that goes on is one message",
          one.text + r.text)
r = chat(*base, "-q", stdin=b"//quit\nnext\n")
lab.check(r.code == 0 and len(r.text.splitlines()) >= 2, "two slashes are one that is said", r.text)
r = chat(*base, stdin=b"")
lab.check(r.code == 0 and r.text == "", "nothing said", r.text)
r = chat(*base, "-q", stdin=b"\xff\xfe \x80 \xc3\n/save " + file.encode() + b"\n")
lab.check(r.code == 0 and "\ufffd" in json.load(open(file, encoding="utf-8"))["messages"][0]["content"],
          "bytes that are no text", r.errors)
r = chat(*base, stdin=b"a\0b\n/save " + file.encode() + b"\n/load " + file.encode() + b"\n")
lab.check(r.code == 0 and "2 messages read" in r.errors, "a zero byte is saved and loaded", r.errors)

# -- what goes wrong -----------------------------------------------------------------------------------------


def refused(what, r, code, *sentences):
    lab.check(r.code == code and all(s in r.errors for s in sentences) and "bug at" not in r.errors,
              "%s: a sentence and exit code %d" % (what, code), "%s\n%s" % (r.code, r.errors))


refused("a command that is none", chat(*base, stdin=b"/elvish\n"), 64, "/elvish", "/help")
refused("a template that is none", chat("--chat-template", "elvish", "-p", "x"), 64, "elvish", "chatml, ")
refused("/save without a file", chat(*base, stdin=b"/save\n"), 64, "/save FILE")
refused("/save where nobody may", chat(*base, stdin=b"/save /proc/no/such\n"), 74, "/proc/no/such")
os.mkfifo(lab.path("fifo"))
refused("/save over no regular file", chat(*base, stdin=said(["/save " + lab.path("fifo")])), 74, "fifo")
for extra in ([], ["--json"]):
    with open("/dev/full", "wb") as full:
        p = subprocess.run([lab.tern, "chat", "-p", "x", "-n", "4", *extra], stdout=full,
                           stderr=subprocess.PIPE, env=lab.env, timeout=120, check=False)
    lab.check(p.returncode == 74 and b"cannot write to stdout" in p.stderr,
              "a full disk under stdout is an error " + " ".join(extra), [p.returncode, p.stderr])
refused("a file that is not there", chat(*base, "--load", lab.path("none")), 74, "none")
for name, text in (("nothing", ""), ("no JSON", "{"), ("depth", "[" * 100000), ("a number", "7"),
                   ("no array", "{}"), ("a role", '[{"role":"tool","content":"x"}]'),
                   ("no content", '[{"role":"user"}]'),
                   ("twins", '[{"role":"user","role":"user","content":"x"}]'),
                   ("null", '{"messages":[null]}')):
    refused("a conversation with " + name, chat(*base, "--load", lab.write("bad.json", text)), 65, "bad.json")
r = chat(*base, stdin=said([WORDS[0], "/load " + lab.path("bad.json"), WORDS[1]]))
refused("/load of such a file", r, 65, "bad.json")

# Full: the answer that fills the context says so, the message that does not fit is not said.
r = chat("--temp", 0, "-c", 64, "--ignore-eos", "-q", "--chat-template", "plain", "--json",
         stdin=said([WORDS[0], WORDS[1]]))
got = answers(r)
refused("a full context", r, 65, "context of 64 tokens is full", "/reset", "-c")
lab.check(len(got) == 1 and got[0]["finish_reason"] == "context" and got[0]["usage"]["total_tokens"] == 65,
          "the answer goes to the last position", r.text)
r = chat("--temp", 0, "-c", 64, "--ignore-eos", "-q", "--chat-template", "plain",
         stdin=said([WORDS[0], "/reset", WORDS[0]]))
lines = r.text.splitlines()
lab.check(r.code == 0 and lines[:len(lines) // 2] == lines[len(lines) // 2:], "/reset makes room", r.errors)
refused("a message larger than the context", chat("-c", 64, "-p", "word " * 100), 65, "room for 64")
path = lab.write("long.json", json.dumps([{"role": "user", "content": "word " * 100}]))
refused("a conversation larger than the context", chat("-c", 64, "--load", path, "-p", "x"), 65,
        "room for 64")

# -- signals -------------------------------------------------------------------------------------------------

for number in (signal.SIGINT, signal.SIGTERM):
    p = lab.start("chat", "--temp", 0, "--ignore-eos", "-c", 1000, "--local", 2, "--cpu", "ref",
                  stdin=subprocess.PIPE)
    p.stdin.write(said(WORDS))
    p.stdin.flush()
    p.stdout.read(10)
    p.send_signal(number)
    try:
        out, err = p.communicate(timeout=60)
        lab.check(p.returncode == 128 + number, "%s during an answer from a pipe" % number.name, err.decode())
    except subprocess.TimeoutExpired:
        lab.check(False, "%s is not enough" % number.name)
p = lab.start("chat", "-n", 4, stdin=subprocess.PIPE)
p.stdin.write(said(WORDS[:1]))
p.stdin.flush()
p.stdout.readline()
time.sleep(0.3)
p.send_signal(signal.SIGINT)
lab.check(p.wait(60) == 130, "SIGINT while a line is awaited")
p = lab.start("chat", "--temp", 0, "--ignore-eos", "-n", 900, "-c", 1000, stdin=subprocess.PIPE)
p.stdout.close()
p.stdin.write(said(WORDS))
p.stdin.close()
lab.check(p.wait(120) == 128 + signal.SIGPIPE, "nobody reads", p.returncode)

lab.end()
