# SPDX-License-Identifier: Apache-2.0
"""The command line: help, unknown options, bad numbers, JSON, Ctrl-C, a reader that goes away, prompts from
elsewhere."""
import json
import os
import re
import signal
import subprocess

from lab import Lab

lab = Lab()
USAGE = 64
COMMANDS = ["run", "chat", "serve", "status", "top", "perplexity", "embed", "bench", "tokenize", "inspect",
            "convert", "pull", "keygen"]
ASK = ["-n", 8, "--temp", 0]

# -- help and mistakes ---------------------------------------------------------------------------------------
for command in ([], ["--help"], ["help"]):
    r = lab.run(*command)
    lab.check(all(c in r.text + r.errors for c in COMMANDS), "tern %s lists the commands" %
              " ".join(command), r.errors)
r = lab.run("--version")
lab.check(r.code == 0 and r.text.startswith("tern 0."), "tern --version", r.text + r.errors)
r = lab.run("--version", program=lab.ternd)
lab.check(r.code == 0 and r.text.startswith("ternd 0."), "ternd --version", r.text + r.errors)
for program, args in [(lab.tern, [c]) for c in COMMANDS] + [(lab.ternd, [])]:
    name = os.path.basename(program) + " " + " ".join(args)
    r = lab.run(*args, "--help", program=program)
    lab.check(r.code == 0 and len(r.text.split("\n")) > 3 and not r.err, name + " --help prints to stdout",
              r.errors)
    lab.check(all(len(line) <= 100 for line in r.text.split("\n")), name + " --help fits a terminal", r.text)
    r = lab.run(*args, "--no-such-option", program=program)
    lab.check(r.code == USAGE and "no-such-option" in r.errors and "--help" in r.errors and not r.out,
              name + " names an unknown option", "code %s: %s" % (r.code, r.errors))
    lab.check(len(r.errors.strip().split("\n")) <= 2, name + " does not print its whole help at a mistake",
              r.errors)
for words, says in ((["fly"], "fly"), (["sevre"], "`tern serve`"), (["list"], "`tern pull"),
                    (["ps"], "`tern status`"), (["worker"], "`ternd`"), (["-p", "x"], "`tern run -p`")):
    r = lab.run(*words)
    lab.check(r.code == USAGE and words[0] in r.errors and says in r.errors and not r.out,
              "tern %s is no command, and says %s" % (words[0], says), r.errors)
r = lab.run("help", "serve")
lab.check(r.code == 0 and r.out == lab.run("serve", "--help").out, "tern help serve is tern serve --help",
          r.errors)

# What hands do that know another program: one sentence with the option that is meant, and that there is.
HABITS = [
    ("serve", ["-np", 4], "--parallel"), ("serve", ["-ngl", 99], "leave it out"),
    ("serve", ["--n-gpu-layers=99"], "leave it out"), ("serve", ["--api-key", "hush"], "--api-key-file"),
    ("serve", ["--api-key=hush"], "--api-key-file"), ("status", ["--api-key", "hush"], "--api-key-file"),
    ("serve", ["-hf", "a/b"], "tern pull"), ("serve", ["--temp", 1], "request"), ("serve", ["-fa"], "leave"),
    ("serve", ["--batch-size", 9], "--chunk"), ("serve", ["-ctk", "q8_0"], "--kv"),
    ("serve", ["--metrics"], "always"), ("serve", ["-a", "me"], "--alias"),
    ("serve", ["--prot", 1], "--port"), ("serve", ["--ctx_size", 9], "--ctx-size"),
    ("serve", ["-port", 1], "--port"), ("serve", ["--max", 1], "--max-"), ("serve", ["words"], "-m"),
    ("run", ["--rpc", "h:1"], "--cluster"), ("run", ["-cnv"], "tern chat"), ("run", ["-np", 2], "-p"),
    ("chat", ["--host", "h"], "--server"), ("chat", ["-sys", "x"], "--system"),
    ("top", ["-u", "x"], "--server"),
    ("bench", ["-ub", 64], "--chunk"), ("run", ["--json=yes"], "no value"), ("run", ["-p"], "value"),
]
helps = {}
for command, words, says in HABITS:
    r = lab.run(command, *words)
    what = "tern %s %s" % (command, " ".join(map(str, words)))
    lab.check(r.code == USAGE and says in r.errors and r.errors.count("\n") == 1 and not r.out,
              what + ": says " + says, "code %s: %s" % (r.code, r.errors))
    helps.setdefault(command, lab.run(command, "--help").text)
    named = [o for o in re.findall(r"(?<!`tern )(?<=[ `(])--?[a-z][a-z-]*", r.errors.split(": ", 2)[-1])
             if o not in ("--help", str(words[0]).split("=")[0])]
    lab.check(all(re.search(re.escape(o) + r"\b", helps[command]) for o in named),
              what + ": names options that there are", (named, r.errors))
    lab.check("hush" not in r.errors, what + ": says no secret again", r.errors)
for args, says in ((["-H", "0.0.0.0"], "--listen"), (["-p", 1], "--listen"), (["--memry", "2G"], "--memory"),
                   (["-m"], "value"), (["word"], "word")):
    r = lab.run(*args, program=lab.ternd)
    lab.check(r.code == USAGE and says in r.errors and not r.out, "ternd %s: says %s" % (args[0], says),
              r.errors)
for args in (["-n", "many"], ["-n", "-5"], ["-n", "3x"], ["-n", ""], ["--temp", "nan"], ["--top-p", "1.5"],
             ["--wire", "f64"], ["--cpu", "486"], ["-t", "0"], ["-t", "100000"], ["--local", "0"],
             ["--local", "7"], ["--layout", "3bit"],
             ["--seed", "-"], ["--chunk", "0"], ["-c", "x"], ["--local", "2", "--split", "6"],
             ["--local", "2", "--split", "0,6"], ["--local", "2", "--split", "3,4"],
             ["--local", "2", "--cluster", "x"],
             ["--logit-bias", "x"], ["--logprobs", "-3"]):
    r = lab.run("run", "-p", "x", *args)
    lab.check(r.code in range(64, 79) and args[-2].lstrip("-") in r.errors and not r.out,
              "run %s is refused" % " ".join(args),
              "code %s: %s" % (r.code, r.errors))
for ids, named in (("1,99999", "99999 is"), ("5000x", "5000 is"), ("1" * 30, "1" * 20 + "... is")):
    r = lab.run("tokenize", "--decode", ids)
    lab.check(r.code == USAGE and "id " + named + " outside" in r.errors, "--decode names the id", r.errors)
for args in (["--name", "two words"], ["--name", ""], ["--name", "n" * 65], ["--memory", "2X"],
             ["--memory", "0"], ["--threads", "0"], ["--cpu", "486"], ["--i2s-layout", "D"],
             ["--layout", "1.6"],             ["--ready-fd", "77"]):
    r = lab.run("--listen", "127.0.0.1:0", *args, program=lab.ternd)
    lab.check(r.code == USAGE and args[0] in r.errors and not r.out, "ternd %s is refused" % " ".join(args),
              "code %s: %s" % (r.code, r.errors))

# -- prompts -------------------------------------------------------------------------------------------------
once = lab.run("run", "-p", "Once upon a time", *ASK)
lab.check(once.code == 0 and len(once.text.strip()) > 5, "a text for a prompt", once.errors)
file = lab.write("prompt.txt", "Once upon a time")
r = lab.run("run", "-f", file, *ASK)
lab.check(r.code == 0 and r.out == once.out, "-f FILE is the same as -p", r.text + r.errors)
r = lab.run("run", "-f", "-", *ASK, stdin=b"Once upon a time")
lab.check(r.code == 0 and r.out == once.out, "-f - reads the prompt from stdin", r.text + r.errors)
r = lab.run("run", *ASK, stdin=b"Once upon a time")
lab.check(r.code == 0 and r.out == once.out, "without -p and -f the prompt comes from stdin",
          r.text + r.errors)
r = lab.run("run", "-p", "", *ASK)
lab.check(r.code == 0 or (r.code in range(64, 79) and "prompt" in r.errors),
          "an empty prompt works or is refused", r.errors)
r = lab.run("run", "-p", "x" * 20000, *ASK)
lab.check(r.code in range(64, 79) and "context" in r.errors, "a prompt beyond the context is refused",
          r.errors[-500:])
r = lab.run("run", "-f", lab.write("bytes", bytes(range(256))), *ASK)
lab.check(r.code in [0] + list(range(64, 79)), "any bytes as a prompt do no harm", r.errors)
r.out.decode("utf-8")
r = lab.run("run", "-p", "Once", "-n", 0)
lab.check(r.code in (0, USAGE), "-n 0", r.errors)

# -- sampling ------------------------------------------------------------------------------------------------
dice = ["run", "-p", "Once upon a time", "-n", 16, "--temp", "1.2"]
a, b, c = lab.run(*dice, "--seed", 1), lab.run(*dice, "--seed", 1), lab.run(*dice, "--seed", 2)
lab.check(a.code == 0 and a.out == b.out, "the same seed gives the same text", a.errors)
lab.check(a.out != c.out, "another seed gives another text")
r = lab.run("run", "-p", "Once upon a time", "-n", 40, "--temp", 0, "--stop", "there")
lab.check(r.code == 0 and "there" not in r.text.replace("Once upon a time", ""),
          "a stop string ends the text before it", r.text)
r = lab.run("run", "-p", "Once upon a time", "-n", 4, "--temp", 0, "--logprobs", 3, "--json")
lab.check(r.code == 0, "--logprobs 3 --json", r.errors)

# -- JSON ----------------------------------------------------------------------------------------------------
sample = lab.write("sample.txt", "There was once a poor woman who had two daughters. " * 40)
for args in (["run", "-p", "Once", "-n", 4, "--json"], ["run", "-p", "Once", "-n", 4, "--local", 2, "--json"],
             ["inspect", "--json"], ["tokenize", "-p", "Once upon a time", "--json"],
             ["perplexity", "-f", sample, "-c", 128, "--json"]):
    r = lab.run(*args)
    try:
        value = json.loads(r.text)
    except ValueError as e:
        value = None
        lab.check(False, "tern %s gives JSON" % " ".join(map(str, args)), "%s\n%s\n%s" %
                  (e, r.text[:500], r.errors))
    if value is not None:
        lab.check(r.code == 0 and value, "tern %s gives JSON" % " ".join(map(str, args)), r.errors)
r = lab.run("tokenize", "-p", "Once upon a time", "--json")
lab.check(b"nan" not in r.out.lower(), "no NaN in JSON")

# -- layouts of ternary weights ------------------------------------------------------------------------------
weights = {}
for layout in ("2bit", "1.6bit"):
    for extra in ([], ["--local", 2]):
        r = lab.run("run", "-p", "Once", "-n", 2, "--temp", 0, "--layout", layout, "--json", *extra)
        stages = json.loads(r.text)["stages"] if r.code == 0 else []
        lab.check(stages and all(s["layout"] == layout for s in stages),
                  "--layout %s is named in the figures %s" % (layout, extra), r.text[-500:] + r.errors)
        weights[layout, len(extra)] = sum(s["weight_bytes"] for s in stages)
    r = lab.run("inspect", "--layout", layout, "--json")
    memory = json.loads(r.text)["memory"]
    lab.check(memory["layout"] == layout and memory["tiles_bytes"] == memory["tiles_bytes_by_layout"][layout],
              "tern inspect predicts for --layout " + layout, memory)
    lab.check(memory["tiles_bytes"] + memory["norms_bytes"] == weights[layout, 0],
              "and that is what the weights take: %d bytes" % weights[layout, 0], memory)
lab.check(weights["1.6bit", 0] < 0.9 * weights["2bit", 0] and weights["1.6bit", 2] < 0.9 * weights["2bit", 2],
          "1.6 bits are fewer than 2", weights)

# -- KV types and the head -----------------------------------------------------------------------------------
whole = {}
for kv in ("f16", "int8"):
    r = lab.run("run", "-p", "Once", "-n", 2, "--temp", 0, "-c", 256, "--kv", kv, "--json")
    said = json.loads(r.text) if r.code == 0 else {}
    memory = json.loads(lab.run("inspect", "--kv", kv, "-c", 256, "--json").text)["memory"]
    lab.check(said.get("kv") == kv and memory["kv"] == kv and
              memory["kv_bytes"] == memory["kv_bytes_by_type"][kv], "--kv %s is named" % kv,
              r.text + r.errors)
    r = lab.run("run", "-p", "Once", "-n", 2, "--kv", kv, "--head", "statistical")
    lab.check("kv " + kv in r.errors and "head: statistical, may differ" in r.errors and
              ("2bit" in r.errors or "1.6bit" in r.errors), "figures name KV, head and layout", r.errors)
    whole[kv] = memory["total_bytes"]
    r = lab.run("inspect", "--kv", kv, "-c", 256)
    other = "int8" if kv == "f16" else "f16"
    lab.check(all(w in r.text for w in ("KV cache, " + kv, "in all with --kv " + other,
                                        "screened copy of the head", "in all with --head full",
                                        "in all with --head statistical",
                                        "in all with --layout")),
              "tern inspect says what options change", r.text[-1500:])
lab.check(whole["int8"] < whole["f16"], "int8 takes less", whole)
p = lab.run("run", "-p", "Once", "-n", 2, "--temp", 0, "--verbose")
lab.check(re.search(r"layout (2bit|1\.6bit) \((measured|remembered)\): 2bit [0-9.]+, 1\.6bit [0-9.]+",
                    p.errors),
          "--verbose says what was measured", p.errors)

# -- interruption and readers that go away -------------------------------------------------------------------
lasting = ["-p", "Once upon a time", "-n", 1000, "-c", 1024, "--temp", 0, "--ignore-eos", "--cpu", "ref",
           "-t", 1]
for extra in ([], ["--local", "2"]):
    p = lab.start("run", *lasting, *extra)
    os.read(p.stdout.fileno(), 1)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=240)
    lab.check(p.returncode in (130, -signal.SIGINT) and b"Sanitizer" not in err,
              "Ctrl-C ends a run cleanly %s (%s)" % (extra, p.returncode), err)
    out.decode("utf-8")
    p = lab.start("run", *lasting, *extra)
    os.read(p.stdout.fileno(), 1)
    p.stdout.close()
    err = p.stderr.read()
    code = p.wait(240)
    lab.check(code != 0 and b"Sanitizer" not in err,
              "a reader that goes away ends a run %s (%s)" % (extra, code), err)
with open("/dev/full", "wb") as full:
    p = subprocess.run([lab.tern, "run", "-p", "Once", "-n", "4"], stdout=full, stderr=subprocess.PIPE,
                       env=lab.env, timeout=60)
    lab.check(p.returncode in range(64, 79) and p.stderr, "a full disk under stdout is an error", p.stderr)
lab.end()
