# SPDX-License-Identifier: Apache-2.0
"""tern bench: every test runs and has sane figures, in all three forms; mistakes give a sentence."""
import csv
import io
import json
import os
import signal
import time

from lab import Lab, children_of, soonest, wait_until

lab = Lab()
QUICK = ["-p", 16, "-n", 4, "-r", 2]


def bench(*args, **kwargs):
    return lab.run("bench", *args, timeout=240, **kwargs)


def sane(row, what):
    """Within bounds that no machine leaves and no mistake in a unit keeps."""
    lab.check(row["mean_ts"] > 0.1 and row["stddev_ts"] >= 0 and len(row["samples_ts"]) == 2 and
              min(row["samples_ts"]) <= row["median_ts"] <= max(row["samples_ts"]), what + ": speeds", row)
    # A model this small lies in the caches, which read faster than memory.
    lab.check(row["share"] is None or 0 < row["share"] < 20, what + ": share", row)


# -- one session a thread count ------------------------------------------------------------------------------
r = bench(*QUICK, "-t", "1,2", "-b", "2,1", "-pg", "8,4", "--json")
lab.check(r.code == 0, "bench --json", r.errors)
data = json.loads(r.text)
rows = data["results"]
names = ["pp16", "tg4", "tg4 x 2 seqs", "pp8+tg4"]
want = [(t, n) for t in (1, 2) for n in names]
lab.check([(x["threads"], x["test"]) for x in rows] == want, "all tests, for every thread count",
          [(x["threads"], x["test"]) for x in rows])
for x in rows:
    sane(x, "%s with %d threads" % (x["test"], x["threads"]))
lab.check([s["threads"] for s in data["sessions"]] == [1, 2], "a session for each thread count")
for s in data["sessions"]:
    lab.check(0 < s["load_ms"] < s["first_token_ms"] < 60000, "load and first token", s)
    read = s["read_bytes_per_s"]
    lab.check(1e8 < read["min"] <= read["median"] <= read["max"] < 1e12 and len(read["samples"]) >= 20,
              "read bandwidth, taken around every test", read)
fable = data["sessions"][0]
lab.check(fable["ternary_macs"] == 6 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768) and
          fable["head_macs"] == 256 * 4096, "multiply-adds of a token", fable)
lab.check(rows[0]["macs_per_token"] == fable["ternary_macs"] and
          rows[1]["macs_per_token"] == fable["ternary_macs"] + fable["head_macs"],
          "the head counts in tg only")
weights = fable["layer_bytes"] + fable["head_bytes"]
# One token stands in front; of the four behind it the mean reads 1 + 2.5 positions.
lab.check(rows[1]["bytes_per_token"] == weights + 3.5 * fable["kv_bytes_per_position"], "bytes of a token",
          rows[1])
lab.check(rows[2]["bytes_per_token"] < rows[1]["bytes_per_token"], "sequences share the weights", rows[2])

r = bench("-p", 8, "-n", 2, "-r", 2, "-t", 2, "-d", 40, "--json")
data = json.loads(r.text)
deep, s = data["results"], data["sessions"][0]
lab.check([x["test"] for x in deep] == ["pp8 @ d40", "tg2 @ d40"] and
          deep[1]["bytes_per_token"] == s["layer_bytes"] + s["head_bytes"] +
          41.5 * s["kv_bytes_per_position"],
          "behind positions that are there", r.text + r.errors)
for x in deep:
    sane(x, x["test"])
r = bench("-p", 0, "-n", 2, "-r", 1, "-t", 1, "-d", 40, "--json",
          "--override-kv", "bitnet-b1.58.attention.sliding_window=int:16",
          "--override-kv", "bitnet-b1.58.attention.sliding_window_pattern=int:3")
data = json.loads(r.text) if r.code == 0 else None
s = data["sessions"][0] if data else s  # its own: what is measured to be the faster layout may change
lab.check(data and data["results"][0]["bytes_per_token"] == s["layer_bytes"] + s["head_bytes"] +
          (2 * 41.5 + 4 * 16) / 6 * s["kv_bytes_per_position"],
          "of four of six layers a token reads the window", r.text + r.errors)
r = bench("-p", 8, "-n", 2, "-r", 1, "-t", 1, "--kv", "int8", "--json")
data = json.loads(r.text)
lab.check(data["results"][0]["kv"] == "int8" and rows[0]["kv"] == "f16" and
          fable["kv_bytes_per_position"] == 6 * 2 * 128 * 2 and
          data["sessions"][0]["kv_bytes_per_position"] == 6 * 2 * (128 + 2 * 4),
          "int8 codes and their scales", r.text + r.errors)

# -- forms ---------------------------------------------------------------------------------------------------
r = bench(*QUICK, "-t", 1)
lines = [x for x in r.text.split("\n") if x.startswith("|")]
lab.check(r.code == 0 and len(lines) == 7 and "pp16" in lines[2] and "tg4" in lines[3] and
          "\u00b1" in lines[2] and len({x.count("|") for x in lines[:4]}) == 1, "Markdown", r.text + r.errors)
r = bench(*QUICK, "-t", 1, "-o", "csv")
table = list(csv.DictReader(io.StringIO(r.text)))
lab.check(r.code == 0 and [x["test"] for x in table] == ["pp16", "tg4"] and float(table[1]["mean_ts"]) > 0,
          "CSV", r.text + r.errors)
r = bench("-p", 8, "-n", 2, "-r", 2, "-t", 1, "--local", 2, "--json")
lab.check(r.code == 0 and all(x["workers"] == 2 for x in json.loads(r.text)["results"]), "--local 2",
          r.errors)
for x in json.loads(r.text)["results"]:
    sane(x, "--local 2: " + x["test"])
r = bench("-pg", "8,2", "-r", 1, "-t", 1, "-o", "csv", "--cpu", "ref")
lab.check(r.code == 0 and [x["test"] for x in csv.DictReader(io.StringIO(r.text))] == ["pp8+tg2"],
          "-pg alone, at the reference level", r.text + r.errors)

# -- a model of its own --------------------------------------------------------------------------------------
where = os.path.join(lab.dir, "temporary")
os.mkdir(where)
r = bench("--synthetic", "125m", "--embd-type", "q8_0", "-p", 4, "-n", 2, "-r", 1, "-t", 2, "--json",
          env={"TMPDIR": where})
row = json.loads(r.text)["results"][0]
lab.check(r.code == 0 and row["model"] == "125m" and row["head"] == "Q8_0 screened" and
          row["params"] > 128e6 and not os.listdir(where) and "MB" in r.errors,
          "--synthetic says how much it writes, and cleans up",
          r.text + r.errors)

# -- kernels -------------------------------------------------------------------------------------------------
best = fable["level"]
r = bench("--kernels", "--cpu", best, "-o", "json")
lab.check(r.code == 0, "--kernels", r.errors)
kernels = json.loads(r.text)["kernels"]
ops = {x["op"] for x in kernels}
lab.check({x["level"] for x in kernels} == {best} and {x["model"] for x in kernels} ==
          {"2b4t", "llama3-8b", "large"} and len(ops) > 20 and
          {"ternary 2bit", "ternary 1.6bit", "attend int8", "matvec Q6_K", "screen4"} <= ops,
          "every op, for the shapes of three models", ops)
lab.check(all(0 < x["ns"] < 1e11 and 0 < x["gb_per_s"] < 10000 and (x["share"] is None or 0 < x["share"] < 20)
              for x in kernels), "sane figures", [x for x in kernels if x["ns"] <= 0])

# -- mistakes and Ctrl-C -------------------------------------------------------------------------------------
for args in (["-p", "x"], ["-p", "1,,2"], ["-n", "-3"], ["-r", "0"], ["-t", "0"], ["-b", "0"], ["-b", "33"],
             ["-o", "xml"], ["-pg", "5"], ["-pg", "5,0"], ["-c", "64"], ["-d", "x"], ["-p", "0", "-n", "0"],
             ["-p", ",".join(["1"] * 17)], ["-m", lab.path("gone.gguf")], ["stray"],
             ["--kernels", "-m", lab.model], ["--kernels", "-t", "2"], ["--kernels", "-r", "2"],
             ["--kernels", "--local", "2"], ["-pg"], ["--kv", "int4"], ["--layout", "3bit"],
             ["--head", "half"],
             ["--kernels", "--cpu", "486"], ["--kernels", "--cpu", "ref,"], ["--cpu", "ref,avx2"],
             ["--synthetic", "5t"], ["--synthetic", "125m", "-m", lab.model], ["--type", "tq2_0"],
             ["--synthetic", "125m", "--type", "f16"], ["--synthetic", "125m", "--embd-type", "i2_s"]):
    r = bench(*args)
    lab.check(r.code in range(64, 79) and len(r.errors.strip().split("\n")) == 1 and not r.out and
              soonest(r, 5) < 5, "bench %s is refused" % " ".join(args)[:40],
              "code %s: %s" % (r.code, r.errors))
p = lab.start("bench", "-p", 64, "-n", 512, "-r", 100, "-t", 1, "--local", 2)
lab.check(wait_until(lambda: len(children_of(p.pid)) == 2), "two workers run")
time.sleep(0.3)
p.send_signal(signal.SIGINT)
start = time.monotonic()
out, err = p.communicate(timeout=30)
lab.check(p.returncode == 130 and time.monotonic() - start < 20, "Ctrl-C ends it", err)
lab.end()
