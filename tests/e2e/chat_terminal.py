# SPDX-License-Identifier: Apache-2.0
"""`tern chat` at a terminal (tmux): ten turns with commands, line editing, history and Ctrl-C."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

from lab import SKIPPED, Lab, children_of, state_of, wait_until

if not shutil.which("tmux"):
    print("skipped: tmux is not installed")
    sys.exit(SKIPPED)
lab = Lab()
HISTORY = os.path.join(lab.dir, "state", "tern", "history")


class Terminal:
    """A tmux server of our own with one window in which tern chat runs."""

    def __init__(self, name, *args):
        self.socket = lab.path(name)
        self.end = lab.path(name + ".end")
        command = " ".join(shlex.quote(str(a)) for a in [lab.tern, "chat", *args])
        env = {"XDG_STATE_HOME": os.path.join(lab.dir, "state"), "LC_ALL": "C.UTF-8"}
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "50",
                  "%s; echo $? > %s; sleep 600" % (command, shlex.quote(self.end)), env=env)
        self.ask("set-option", "-g", "history-limit", "10000")
        self.tty_pid = int(self.ask("display-message", "-p", "#{pane_pid}"))

    def tmux(self, *args, env=None):
        return subprocess.run(["tmux", "-S", self.socket, *args], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=dict(lab.env, **(env or {})), timeout=30,
                              check=False)

    def ask(self, *args):
        return self.tmux(*args).stdout.decode("utf-8", "replace")

    def screen(self):
        return self.ask("capture-pane", "-p", "-J", "-S", "-5000")

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def count(self, pattern):
        return len(re.findall(pattern, self.screen(), re.M))

    def wait(self, pattern, times=1, seconds=60):
        return wait_until(lambda: self.count(pattern) >= times, seconds)

    def at_prompt(self, seconds=60):
        """The last line is an empty prompt."""
        return wait_until(lambda: self.screen().rstrip("\n").rstrip(" ").endswith("\n>"), seconds)

    def at_line_start(self):
        return self.ask("display-message", "-p", "#{cursor_x}").strip() == "0"

    def begin(self, text):
        """Types a line at the prompt and sees it taken: a Ctrl-C before that would take back the Enter."""
        self.at_prompt()
        line = "> %s\n" % text
        before = self.screen().count(line)
        self.type(text)
        self.keys("Enter")
        wait_until(lambda: self.screen().count(line) > before and
                   (self.at_line_start() or self.since(text)))

    def since(self, text):
        """What stands behind the last line with this text."""
        return self.screen().rsplit("> %s\n" % text, 1)[-1].rstrip()

    def say(self, text):
        """Types a line at the prompt and waits for the next one; what came between them."""
        self.begin(text)
        self.at_prompt()
        return self.since(text).rsplit("\n>", 1)[0]

    def stop(self, text, times):
        """Says text and stops the answer when there is some of it."""
        self.begin(text)
        wait_until(lambda: len(self.since(text)) > 60, 240)
        self.keys("C-c")
        return self.wait(r"\(stopped\)", times)

    def ended(self, seconds=60):
        """The exit code, or None."""
        if not wait_until(lambda: os.path.exists(self.end) and os.path.getsize(self.end) > 0, seconds):
            return None
        with open(self.end, encoding="ascii") as f:
            return int(f.read())

    def close(self):
        self.tmux("kill-server")


def stopped(terminal):
    """The program in it is."""
    return "T" in [state_of(pid) for pid in children_of(terminal.tty_pid)]


WORDS = ["Once upon a time there was a king.", "The king had a daughter.",
         "One day she went into the forest.", "There she met a wolf."]
GREEDY = ["--temp", 0, "--chat-template", "plain"]
saved = lab.path("saved.json")
piped = lab.run("chat", *GREEDY, "-q", "-n", 30, stdin="\n".join(WORDS).encode() + b"\n").text

t = Terminal("first", *GREEDY, "-n", 30)
try:
    lab.check(t.at_prompt(), "a prompt", t.screen())
    lab.check("template plain (by --chat-template), context of" in t.screen(), "a greeting", t.screen())
    got = [t.say(w) for w in WORDS]  # turns 1 to 4
    lab.check("".join(g + "\n" for g in got) == piped, "the answers are those over a pipe", [got, piped])
    stats = t.say("/stats")
    kept = re.search(r"(\d+) new tokens of prompt, (\d+) kept", stats)
    lab.check(kept and int(kept[1]) < 20 and int(kept[2]) > 100, "/stats: the cache is kept", stats)
    lab.check("8 messages written" in t.say("/save " + saved), "/save", t.screen())

    t.say("/reset")
    lab.check(t.say(WORDS[0]) == got[0], "/reset: as in the beginning", t.screen())  # turn 5
    t.say("/system Speak of wolves.")
    lab.check("Speak of wolves." in t.say("/system"), "/system", t.screen())
    t.say(WORDS[0])  # turn 6
    lab.check("/reset" in t.say("/elvish") + t.say("/help"), "a command that is none, /help", t.screen())

    # A line of two, with a word taken back and letters of several bytes.
    t.type("wrong")
    t.keys("C-u")
    t.type("Die sch\u00f6ne K\u00f6nigstochtex")
    t.keys("BSpace")
    t.type("r\\")
    t.keys("Enter")
    t.wait(r"^\. ")
    t.type("sprach:")
    t.keys("Enter")  # turn 7
    t.at_prompt()
    lab.check("8 messages read" in t.say("/load " + saved), "/load", t.screen())
    lab.check(t.say(WORDS[1]) != got[1], "/load: with what was said", t.screen())  # turn 8
    t.say("/save " + saved)
    with open(saved, encoding="utf-8") as f:
        lab.check(len(json.load(f)["messages"]) == 10, "/save after /load")

    # History: the last words once more.
    t.keys("Up", "Up")
    lab.check(t.wait(r"^> " + WORDS[1] + " *$", 3), "the line before is there again", t.screen())
    t.keys("Enter")  # turn 9
    t.at_prompt()

    # Ctrl-C at the prompt drops the line; what follows shows that once is not the end.
    t.type("half a li")
    t.wait("half a li")
    t.keys("C-c")
    lab.check(t.wait("Ctrl-C again"), "Ctrl-C at the prompt drops the line", t.screen())
    t.say("And in the end")  # turn 10
    lab.check(t.ended(0.2) is None, "and the conversation goes on", t.screen())
    transcript = t.screen()
    t.type("two\tcolumns")  # as what is pasted may have them
    t.keys("Enter")
    t.at_prompt()
    t.say("/save " + saved)
    with open(saved, encoding="utf-8") as f:
        lab.check(json.load(f)["messages"][-2]["content"] == "two\tcolumns", "a tab is a tab", t.screen())
    t.type("/quit")
    t.keys("Enter")
    lab.check(t.ended() == 0, "/quit", t.screen())
finally:
    t.close()
print("-- the terminal\n" + re.sub(r"\n\s*\n+", "\n", transcript) + "--")
with open(HISTORY, encoding="utf-8") as f:
    text = f.read()
lab.check(os.stat(HISTORY).st_mode & 0o777 == 0o600 and "met\\040a\\040wolf." in text and
          "K\u00f6nig" in text, "the history is kept for the user alone", text)

# Ctrl-C during an answer, over workers: the answer ends, the cache is kept, the conversation goes on.
LONG = ["--temp", 0, "--chat-template", "plain", "--ignore-eos", "-c", 1024, "-n", 1000, "--cpu", "ref",
        "-t", 1]
t = Terminal("second", *LONG, "--local", 2, "--no-history")
try:
    lab.check(t.stop("Once upon a time", 1), "Ctrl-C stops an answer", t.screen())
    first = t.say("/stats")
    tokens = int(re.search(r"; (\d+) tokens, [\d.]+ tokens/s", first)[1])
    lab.check(0 < tokens < 900, "in the middle", first)
    lab.check(t.stop("And then", 2), "and the next one", t.screen())
    second = t.say("/stats")
    in_use = int(re.search(r"(\d+) of 1024 tokens", first)[1])
    lab.check(in_use - 1 <= int(re.search(r"(\d+) kept from before", second)[1]) <= in_use,
              "what was said up to there is kept", first + second)
    # A key that is held down stops the answer, too; it does not kill.
    t.begin("And so")
    wait_until(lambda: len(t.since("And so")) > 60, 240)
    for pid in children_of(t.tty_pid):
        for _ in range(20):
            os.kill(pid, signal.SIGINT)
    lab.check(t.wait(r"\(stopped\)", 3) and t.ended(0.2) is None, "many Ctrl-C at once", t.screen())
    t.at_prompt()
    again = t.count("Ctrl-C again")
    # Stopped and taken up again, the line is still there.
    t.type("half a li")
    t.wait("half a li")
    t.keys("C-z")
    lab.check(wait_until(lambda: stopped(t)), "Ctrl-Z stops the program")
    for pid in children_of(t.tty_pid):
        os.kill(pid, signal.SIGCONT)
    t.type("ne")
    lab.check(t.wait("half a line"), "and it goes on", t.screen())
    t.keys("C-c")
    t.wait("Ctrl-C again", again + 1)
    t.keys("C-c")
    lab.check(t.ended() == 0, "Ctrl-C twice at the prompt ends the program", t.screen())
finally:
    t.close()

with open(HISTORY, encoding="utf-8") as f:
    lab.check(f.read() == text, "--no-history leaves the file alone")

# Ctrl-C while a long conversation is read, in the middle of its chunks: what was said stays, and so does the
# cache.
words = " ".join(["the old king and his three daughters went into the forest"] * 16)
long = lab.write("long.json", json.dumps([{"role": "user", "content": words}] * 3))
t = Terminal("middle", *LONG, "-c", 2048, "--chunk", 16, "--local", 2, "--load", long, "--no-history")
try:
    t.begin("And then")
    t.keys("C-c")
    lab.check(t.wait(r"\(stopped\)", 1), "Ctrl-C before the answer begins", t.screen())
    stats = t.say("/stats")
    lab.check(re.search(r"5 messages, \d+ of 2048", stats) and " 0 tokens, " in stats,
              "nothing was answered", stats)
    sent = int(re.search(r"(\d+) tokens sent through the layers", stats)[1])
    lab.check(t.stop("they", 2), "Ctrl-C again", t.screen())
    stats = t.say("/stats")
    kept = int(re.search(r"(\d+) kept from before", stats)[1])
    lab.check(sent <= kept, "what had been sent is kept", [sent, stats])
    t.say("/save " + saved)
    with open(saved, encoding="utf-8") as f:
        told = json.load(f)["messages"]
    before = lab.write("told.json", json.dumps(told[:-2]))
    whole = lab.run("chat", "--temp", 0, "--chat-template", "plain", "--ignore-eos", "-q", "-n", 100,
                    "-c", 2048, "--load", before, "-p", "they")
    lab.check(len(told[-1]["content"]) > 20 and whole.text.startswith(told[-1]["content"]),
              "as if nobody had stopped it", [told[-1], whole.text])
finally:
    t.close()

# SIGTERM at the prompt: the terminal is as it was, and the exit code says so.
t = Terminal("third", *GREEDY)
try:
    t.at_prompt()
    for pid in children_of(t.tty_pid):
        os.kill(pid, signal.SIGTERM)
    lab.check(t.ended() == 143, "SIGTERM at the prompt", t.screen())
finally:
    t.close()

# A model that writes control characters: none reaches the terminal.
escape = lab.run("tokenize", "-p", "\x1b", "--ids", "--no-bos").text.split()
bell = lab.run("tokenize", "-p", "\x07", "--ids", "--no-bos").text.split()
if lab.check(len(escape) == 1 and len(bell) == 1, "the vocabulary has a token for ESC", escape):
    forced = ["--temp", 0, "--chat-template", "plain", "-n", 3, "-p", "x", "--logit-bias",
              escape[0] + "+1000"]
    t = Terminal("fourth", *forced)
    try:
        lab.check(t.ended() == 0 and "^[^[^[" in t.screen(), "ESC is shown in place of being sent",
                  t.screen())
    finally:
        t.close()
    r = lab.run("chat", *forced)
    lab.check(r.out == b"\x1b\x1b\x1b\n", "a pipe gets what the model wrote", r.out)

lab.end()
