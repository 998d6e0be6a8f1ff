#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much sooner a long prompt is through when several equal machines share the layers, and what it does to
sequences that generate meanwhile.

The machines are ternd processes with one thread, each of which the kernel gives the same share of a CPU in
slices of some milliseconds (cgroups; skipped without the right to make them).  The coordinator has the rest
of the machine.  With N of them and a prompt in n chunks, at best N x n / (n + N - 1) times the speed of one
can be had; the share of that is printed.  Layers that do not divide by N cost something in it.  One machine
is measured before and behind every number of them and the mean of both counts, because the speed of a shared
host wanders; with several rounds the median is judged.

Then the same with sequences that generate: how much later their tokens come while the prompt is there.
"""
import itertools
import sys

from bench_lab import BenchLab, head, median, numbers, parser, row
from lab import SKIPPED, Cluster
from machines import Quota

p = parser(__doc__)
p.add_argument("--stages", type=numbers, default=[2, 3, 4], metavar="N,...", help="(default: 2,3,4)")
p.add_argument("--rounds", type=int, default=1)
p.add_argument("--prompt", type=int, default=2048)
p.add_argument("--chunk", type=int, help="rows of a chunk (default: as the scheduler chooses)")
p.add_argument("--cpus", type=float, default=0.4, help="of each machine (default: 0.4)")
p.add_argument("--period", type=float, default=10, metavar="MS", help="of a slice (default: 10)")
p.add_argument("--repetitions", type=int, default=1)
p.add_argument("--streams", type=int, default=2, help="that generate meanwhile, 0: none (default: 2)")
p.add_argument("--target", type=float, default=85, help="percent of the best that must be reached")
args = p.parse_args()
quota = Quota(args.cpus, int(args.period * 1000))
if quota.why:
    print("skipped: " + quota.why)
    sys.exit(SKIPPED)
lab = BenchLab(args)
chunk = ["--chunk", args.chunk] if args.chunk else []
lab.say("machines of %g CPU each, in slices of %g ms every %g ms\n" %
        (args.cpus, args.cpus * args.period, args.period))
lab.say(head("machines", "streams", "prompt t/s", "seconds", "chunks", "rows of one", "of one machine",
             "at best", "share", "stages busy", "chunk / trip ms", "trip p99 ms", "itl alone p50 ms",
             "delay p50 / p99 ms"))
tags = itertools.count()
shares, delays = {n: [] for n in args.stages}, []


def line(n, x, base=None, best=None):
    f, rate = x["flow"], x["median_ts"]
    lab.say(row(n, x["streams"], "%.2f" % rate, "%.2f" % (args.prompt / rate), f["chunks"],
                "%.1f" % f["chunk_rows"], "%.2f x" % (rate / base) if base else "",
                "%.2f x" % best if best else "", "%.1f %%" % (100 * rate / base / best) if base else "",
                "?" if f["busy"] is None else "%.1f %%" % (100 * f["busy"]),
                "%.1f / %.1f" % (x["chunk_ms"], x["trip_ms"]), "%.1f" % x["trips_ms"]["p99"],
                "%.1f" % x["alone_ms"]["p50"] if x["streams"] else "",
                "%.1f / %.1f" % (x["delay_ms"]["p50"], x["delay_ms"]["p99"]) if x["streams"] else ""))


def measure(n, streams=0):
    """The prompt alone, and beside streams if there are any."""
    cluster = Cluster(lab, n, tag="n%d-%d-" % (n, next(tags)), model=lab.model, args=["--threads", "1"])
    for w in cluster.workers:
        quota.add(w.process.pid)
    common = ["-p", args.prompt, "-n", 0, "-t", 1, "-r", args.repetitions, *chunk, *cluster.args()]
    alone = lab.bench("--streams", 0, *common)["results"][0]
    beside = lab.bench("--streams", streams, *common)["results"][0] if streams else None
    cluster.stop()
    return alone, beside


before, _ = measure(1)
line(1, before)
for i in range(args.rounds):
    for n in args.stages:
        x, beside = measure(n, args.streams)
        after, _ = measure(1)
        n_chunks = x["flow"]["chunks"]
        base, best = (before["median_ts"] + after["median_ts"]) / 2, n * n_chunks / (n_chunks + n - 1)
        shares[n].append(x["median_ts"] / base / best)
        line(n, x, base, best)
        if beside:
            line(n, beside)
            delays.append((n, beside["delay_ms"]["p99"], beside["trips_ms"]["p99"], beside["trip_ms"]))
        line(1, after)
        before = after
quota.close()
lab.say("")
for n, share in shares.items():
    lab.verdict(100 * median(share) >= args.target, "%d machines reach %.1f %% (%s) of the best that their "
                "chunks allow; %.0f %% are due" % (n, 100 * median(share),
                                                   ", ".join("%.1f" % (100 * x) for x in share), args.target))
for n, p99, trip, mean in delays:
    lab.verdict(p99 <= trip, "%d machines: tokens come %.1f ms later (p99); a chunk takes %.1f ms through "
                "all stages (p99; mean %.1f)" % (n, p99, trip, mean))
lab.finish()
