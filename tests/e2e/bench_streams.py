# SPDX-License-Identifier: Apache-2.0
"""tern bench --streams: figures of many streams that agree with each other, in-process and over workers, in
all three forms; a measured split; mistakes give a sentence."""
import csv
import io
import json

from lab import Cluster, Lab, soonest
from links import delayed

lab = Lab()


def bench(*args, **kwargs):
    return lab.run("bench", *args, timeout=240, **kwargs)


def read(r, what):
    lab.check(r.code == 0, what + " runs", r.errors)
    return json.loads(r.text) if r.code == 0 else {"results": [], "sessions": []}


def sane(x, what, stages):
    """What must hold between the figures of one test, on any machine."""
    f, s = x["flow"], x["streams"]
    lab.check(len(f["stages"]) == stages and
              all(g["idle"] is not None and -0.05 <= g["empty"] <= g["idle"] + 0.05 <= 1.05
                  for g in f["stages"]),
              what + ": every stage's idle share, and it is empty less often than idle", f["stages"])
    lab.check(0 <= f["head_share"] <= 1 and f["in_flight"] > 0 and f["seconds"] > 0, what + ": shares", f)
    if not x["n_prompt"]:
        b = x["between_tokens_ms"]
        lab.check(1 <= f["rows"] <= s and f["chunks"] == 0, what + ": rows of a step", f)
        lab.check(abs(x["per_stream_ts"] * s - x["median_ts"]) < 1e-6 * x["median_ts"],
                  what + ": all streams are as fast as one times their number", x)
        # Tokens of one stream come after each other: that many streams, one token every p50 or so; a pause
        # of the whole machine counts in p99 alone.
        lab.check(x["median_ts"] * b["p50"] / 1e3 / s < 3 and x["median_ts"] * b["p99"] / 1e3 / s > 0.3 and
                  b["p50"] <= b["p95"] <= b["p99"],
                  what + ": time between tokens agrees with speed", x)
        lab.check(x["first_token_ms"]["n"] == s * len(x["samples_ts"]) and b["n"] >= 0.9 * s * x["n_gen"],
                  what + ": every token counts", x)


# -- in-process and over workers -----------------------------------------------------------------------------
data = read(bench("--streams", "1,5", "-n", 12, "-r", 2, "-p", 200, "-t", 1, "--json"), "in one process")
names = ["s1 tg12", "s5 tg12", "pp200 + s1", "pp200 + s5"]
lab.check([x["test"] for x in data["results"]] == names, "all tests", [x["test"] for x in data["results"]])
for x in data["results"]:
    sane(x, x["test"], 1)
lab.check([x["flow"]["rows"] for x in data["results"][:2]] == [1, 5],
          "one stage takes all streams in one step", [x["flow"]["rows"] for x in data["results"]])
lab.check(all(x["ideal"] == 1 and x["flow"]["chunks"] >= 1 and x["trip_ms"] == x["chunk_ms"] and
              x["delay_ms"]["p50"] <= x["delay_ms"]["p99"] for x in data["results"][2:]),
          "one stage is its own pipeline", data["results"][2:])

data = read(bench("--streams", "8,0", "-n", 12, "-p", 256, "--chunk", 32, "-t", 1, "--local", 2, "--json"),
            "--local 2")
lab.check([x["test"] for x in data["results"]] == ["s8 tg12", "pp256 + s8", "pp256 + s0"], "--local 2: tests",
          [x["test"] for x in data["results"]])
for x in data["results"]:
    sane(x, "--local 2: " + x["test"], 2)
x = data["results"][2]
n = x["flow"]["chunks"]
lab.check(n >= 8 and abs(x["ideal"] - n / (n + 1)) < 1e-9 and x["flow"]["chunk_rows"] <= 32 and
          x["delay_ms"]["n"] == 0 and x["trip_ms"] > x["chunk_ms"] > 0, "chunks of a prompt", x)
lab.check(data["results"][0]["flow"]["in_flight"] > 1, "several steps are on their way",
          data["results"][0]["flow"])
lab.check(data["sessions"][0]["layers"] == [3, 3] and data["sessions"][0]["head_ms"] is None,
          "layers are shared evenly unless asked otherwise", data["sessions"])

# -- a split by time -----------------------------------------------------------------------------------------
data = read(bench("--streams", 2, "-n", 8, "-t", 1, "--local", 3, "--split", "measured", "--json"),
            "a measured split")
s = data["sessions"][0]
lab.check(sum(s["layers"]) == 6 and min(s["layers"]) >= 1 and min(s["layer_ms"]) > 0 and s["head_ms"] > 0,
          "layers by measured time", s)
slowest = max(n * ms for n, ms in zip(s["layers"], s["layer_ms"]))
lab.check(all(slowest <= (n + 1) * ms + 1e-9 for n, ms in zip(s["layers"], s["layer_ms"])),
          "no layer would be better off elsewhere", s)

# -- a cluster behind links ----------------------------------------------------------------------------------
proxies = []
cluster = Cluster(lab, 2, via=delayed(lab, "delay=15", proxies))
data = read(bench("--streams", 4, "-n", 6, "-t", 1, "--json", *cluster.args()), "a cluster")
x = data["results"][0]
lab.check(x["between_tokens_ms"]["p50"] >= 45, "each token goes over three links of 15 ms", x)
sane(x, "cluster", 2)
lab.check(min(g["empty"] for g in x["flow"]["stages"]) > 0.3, "few streams do not fill long links", x)
cluster.stop()

# -- forms ---------------------------------------------------------------------------------------------------
SMALL = ["--streams", "1,2", "-n", 4, "-p", 20, "-t", 1]
r = bench(*SMALL)
lines = [x for x in r.text.split("\n") if x.startswith("|")]
lab.check(r.code == 0 and len(lines) == 8 and "s2 tg4" in lines[3] and "pp20 + s1" in lines[6] and
          len({x.count("|") for x in lines}) == 1, "Markdown", r.text + r.errors)
r = bench(*SMALL, "-o", "csv")
table = list(csv.DictReader(io.StringIO(r.text)))
lab.check(r.code == 0 and [x["test"] for x in table] == ["s1 tg4", "s2 tg4", "pp20 + s1", "pp20 + s2"] and
          float(table[1]["median_ts"]) > 0 and all(None not in x and None not in x.values() for x in table),
          "CSV", r.text + r.errors)

# -- mistakes ------------------------------------------------------------------------------------------------
for args in (["--streams", "x"], ["--streams", "1,"], ["--streams", "193"], ["--streams", "0"],
             ["--streams", "1", "-n", "0"], ["--streams", "1", "-b", "2"], ["--streams", "1", "-pg", "4,4"],
             ["--streams", "1", "-d", "4,5"], ["--streams", "1", "--kernels"], ["--split", "measured"],
             ["--streams", "1", "--split", "measured"], ["--streams", "1", "--split", "4,2"]):
    r = bench(*args)
    lab.check(r.code in range(64, 79) and len(r.errors.strip().split("\n")) == 1 and not r.out and
              soonest(r, 5) < 5, "bench %s is refused" % " ".join(args), "code %s: %s" % (r.code, r.errors))
lab.end()
