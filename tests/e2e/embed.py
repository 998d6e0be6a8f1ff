# SPDX-License-Identifier: Apache-2.0
"""tern embed: pooling and normalisation by their definitions, recomputed here from the rows; the same bits
alone and among others, in chunks, on workers and a cluster; mistakes."""
import json
import math
import signal
import struct

from lab import SANITIZER, Cluster, Lab

lab = Lab()
LINES = ["Once upon a time there was a little girl.", "The dog", "", "He said: \"No!\" and went away",
         "a", "One day, Tom and Sue went to the park. " * 9, "x" * 70, "The cat sat on the mat"]
texts = lab.write("texts", "\n".join(LINES) + "\n")


def embed(*args, **kwargs):
    return lab.run("embed", *args, **kwargs)


def rows(r):
    return [[float(v) for v in line.split()] for line in r.text.splitlines()]


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def same(a, b):
    """Nine digits name a float; so equal floats have equal text."""
    return len(a) == len(b) and all(f32(x) == f32(y) for x, y in zip(a, b))


def normalized(row):
    total = 0.0
    for v in row:
        total += f32(v) * f32(v)
    return [f32(f32(v) / math.sqrt(total)) for v in row]


# -- definitions ---------------------------------------------------------------------------------------------
text = LINES[0]
all_rows = rows(embed("-p", text, "--pooling", "none", "--no-normalize"))
n_embd = len(all_rows[0])
lab.check(len(all_rows) > 5 and n_embd > 100, "a row for each token", len(all_rows))
mean = []
for i in range(n_embd):
    total = 0.0
    for row in all_rows:
        total += f32(row[i])
    mean.append(f32(total / len(all_rows)))
for pooling, want in (("mean", mean), ("last", all_rows[-1]), ("cls", all_rows[0])):
    raw = rows(embed("-p", text, "--pooling", pooling, "--no-normalize"))
    lab.check(len(raw) == 1 and same(raw[0], want), pooling + " is what it is said to be")
    unit = rows(embed("-p", text, "--pooling", pooling))
    lab.check(same(unit[0], normalized(want)) and abs(sum(v * v for v in unit[0]) - 1) < 1e-5,
              pooling + ", normalised")
unit = rows(embed("-p", text, "--pooling", "none"))
lab.check(all(same(u, normalized(r)) for u, r in zip(unit, all_rows)) and len(unit) == len(all_rows),
          "none, normalised: each row")
prefix = rows(embed("-p", text[:16], "--pooling", "none", "--no-normalize"))
lab.check(same(prefix[0], all_rows[0]) and same(prefix[1], all_rows[1]) and not same(*all_rows[:2]),
          "a row depends on nothing behind it")

# -- many texts, ways of running -----------------------------------------------------------------------------
r = embed("-f", texts, "--pooling", "mean")
base = r.text
lab.check(r.code == 0 and len(base.splitlines()) == len(LINES) and "8 texts" in r.errors,
          "a line for each line, the empty one too", r.errors)
alone = "".join(embed("-p", line, "--pooling", "mean", "-q").text for line in LINES)
lab.check(alone == base, "the same alone and among others, in the order of lines")
many = lab.write("many", "\n".join(LINES * 40))
r = embed("-f", many, "--pooling", "mean", "-q")
lab.check(r.code == 0 and r.text == base * 40 and not r.err, "more texts than slots", r.errors)
crlf = lab.write("crlf", "\r\n".join(LINES) + "\r\n")
lab.check(embed("-f", crlf, "--pooling", "mean").text == base, "lines that end with CR LF")
lab.check(embed("-f", "-", "--pooling", "mean", stdin="\n".join(LINES).encode()).text ==
          base, "stdin, without a newline at the end")
for args in (["--chunk", 1], ["--chunk", 7], ["--chunk", "all"], ["-t", 1], ["--cpu", "ref"],
             ["--local", 2], ["--local", 3, "--chunk", 5], ["--layout", "1.6bit"]):
    for pooling in ("mean", "last"):
        want = base if pooling == "mean" else embed("-f", texts, "--pooling", "last").text
        r = embed("-f", texts, "--pooling", pooling, *args)
        lab.check(r.code == 0 and r.text == want, "the same bits with %s, %s" %
                  (" ".join(map(str, args)), pooling), r.errors)
cluster = Cluster(lab, 2)
r = embed("-f", texts, "--pooling", "mean", *cluster.args())
lab.check(r.code == 0 and r.text == base, "the same bits on a cluster", r.errors)
cluster.stop()
lab.check(embed("-f", texts, "--pooling", "mean", "--wire", "f32").text != base, "another wire, other bits")

# -- JSON ----------------------------------------------------------------------------------------------------
j = json.loads(embed("-f", texts, "--pooling", "mean", "--json").text)
lab.check([[f32(v) for v in e] for e in j["embeddings"]] ==
          [[f32(float(v)) for v in line.split()] for line in base.splitlines()] and
          j["pooling"] == "mean" and j["normalized"] is True and j["n_embd"] == n_embd and
          len(j["tokens"]) == len(LINES) and j["tokens"][0] == len(all_rows),
          "JSON says the same", j["tokens"])
j = json.loads(embed("-f", texts, "--pooling", "none", "--json").text)
lab.check([len(e) for e in j["embeddings"]] == j["tokens"], "JSON of all rows")

# -- an end before the end -----------------------------------------------------------------------------------
lots = lab.write("lots", "The cat sat on the mat and looked at the dog.\n" * 5000)
p = lab.start("embed", "-f", lots, "--pooling", "mean")
p.stdout.readline()
p.stdout.close()
err = p.stderr.read().decode()
lab.check(p.wait(30) == 0 and "texts" not in err and not SANITIZER.search(err),
          "nobody reads on: it ends", err)
with open("/dev/full", "w", encoding="ascii") as full:
    p = lab.start("embed", "-f", lots, "--pooling", "mean", stdout=full)
    err = p.communicate(timeout=60)[1].decode()
lab.check(p.returncode in range(64, 79) and "cannot write" in err and "texts" not in err, "a full disk", err)
p = lab.start("embed", "-f", lots, "--pooling", "mean", "--json", "--local", 2)
seen = p.stdout.readline()
p.send_signal(signal.SIGINT)
out, err = p.communicate(timeout=30)
lab.check(p.returncode == 130 and not SANITIZER.search(err.decode()), "Ctrl-C", (p.returncode, err))

# -- mistakes ------------------------------------------------------------------------------------------------
longer = lab.write("longer", "short\n" + "word " * 300 + "\n")
for args, words in ((["-p", "x"], ["--pooling"]), ([], ["-f"]), (["-p", "x", "-f", texts], ["exclude"]),
                    (["-p", "x", "--pooling", "max"], ["max"]), (["-f", lab.path("none")], ["none"]),
                    (["-f", longer, "--pooling", "mean", "-c", 64], ["line 2", "64"]),
                    (["-p", "x", "--pooling", "mean", "--head", "full"], ["--head"]),
                    (["-p", "x", "--pooling", "mean", "more"], ["more"]),
                    (["-f", lab.write("empty", ""), "--pooling", "mean"], ["no lines"])):
    r = embed(*args)
    lab.check(r.code in range(64, 79) and not r.out and all(w in r.errors for w in words),
              "refused: " + " ".join(str(a) for a in args)[-60:], "code %s: %s" % (r.code, r.errors))
lab.end()
