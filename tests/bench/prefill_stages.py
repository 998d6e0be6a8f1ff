#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How much sooner a long prompt is through when several equal machines share the layers, and what it does to
sequences that generate meanwhile.

The machines are ternd processes with one thread, each of which the kernel gives the same share of a CPU in
slices of some milliseconds (cgroups; skipped without the right to make them).  The coordinator has the rest
of the machine.  With N of them and a prompt in n chunks, at best N x n / (n + N - 1) times the speed of one
can be had; the share of that is printed.  Layers that do not divide by N cost something in it.

Then the same with sequences that generate: how much later their tokens come while the prompt is there.
"""
import sys

from bench_lab import BenchLab, head, numbers, parser, row
from lab import SKIPPED, Cluster
from machines import Quota

p = parser(__doc__)
p.add_argument("--stages", type=numbers, default=[1, 2, 3, 4], metavar="N,...",
               help="1 first: the others are compared with it (default: 1,2,3,4)")
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
             "at best", "share", "stages busy", "chunk / trip ms", "itl alone p50 ms", "delay p50 / p99 ms"))
base, shares, delays = None, {}, []


def line(n, x, share=None, best=None):
    f, rate = x["flow"], x["median_ts"]
    lab.say(row(n, x["streams"], "%.2f" % rate, "%.2f" % (args.prompt / rate), f["chunks"],
                "%.1f" % f["chunk_rows"], "%.2f x" % (rate / base) if base else "",
                "%.2f x" % best if best else "", "%.1f %%" % (100 * share) if share else "",
                "?" if f["busy"] is None else "%.1f %%" % (100 * f["busy"]),
                "%.1f / %.1f" % (x["chunk_ms"], x["trip_ms"]),
                "%.1f" % x["alone_ms"]["p50"] if x["streams"] else "",
                "%.1f / %.1f" % (x["delay_ms"]["p50"], x["delay_ms"]["p99"]) if x["streams"] else ""))


for n in args.stages:
    cluster = Cluster(lab, n, tag="n%d-" % n, model=lab.model, args=["--threads", "1"])
    for w in cluster.workers:
        quota.add(w.process.pid)
    common = ["-p", args.prompt, "-n", 0, "-t", 1, "-r", args.repetitions, *chunk, *cluster.args()]
    x = lab.bench("--streams", 0, *common)["results"][0]
    base = base or x["median_ts"] / n
    n_chunks = x["flow"]["chunks"]
    best = n * n_chunks / (n_chunks + n - 1)
    share = x["median_ts"] / base / best
    line(n, x, share, best)
    if n > 1:
        shares[n] = share, n_chunks
    if args.streams:
        x = lab.bench("--streams", args.streams, *common)["results"][0]
        line(n, x)
        delays.append((n, x["delay_ms"]["p99"], x["trip_ms"], x["chunk_ms"]))
    cluster.stop()
quota.close()
lab.say("")
for n, (share, n_chunks) in shares.items():
    lab.verdict(100 * share >= args.target, "%d machines reach %.1f %% of the best that %d chunks allow; "
                "%.0f %% are due" % (n, 100 * share, n_chunks, args.target))
for n, p99, trip, chunk_ms in delays:
    lab.verdict(p99 <= trip, "%d machines: tokens come %.1f ms later at most (p99); a chunk takes %.1f ms "
                "through all stages, %.1f ms in one" % (n, p99, trip, chunk_ms))
lab.finish()
