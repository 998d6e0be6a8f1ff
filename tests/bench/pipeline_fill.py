#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How full a pipeline is: workers with one thread each against one process with as many threads and the same
batch, and the same workers behind links with a delay.

One process (I), workers without a delay (L) and workers behind each delay (D) are measured in turn, each many
streams in steady state (`tern bench --streams`); a figure is compared with the mean of its neighbours of the
other kind, because the speed of a shared machine wanders.  Layers are split by measured time.  The one
process gets as many streams as the workers had rows in a step.  Behind a delay there are more streams, the
rows of a step times as many steps as the links hold and one more, for a delay is seldom a whole number of
steps.
"""
import math

from bench_lab import BenchLab, head, median, numbers, parser, row, spans
from lab import Cluster
from links import delayed

p = parser(__doc__)
p.add_argument("--workers", type=int, default=2)
p.add_argument("--streams", type=int, default=24, help="over the workers, without a delay (default: 24)")
p.add_argument("--gen", type=int, default=24, help="tokens of each stream (default: 24)")
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--delays", type=numbers, default=[1, 10, 50], metavar="MS,...",
               help="one way, of every hop (default: 1,10,50)")
p.add_argument("--target", type=float, default=92, help="percent of one process that must be reached")
p.add_argument("--delay-target", type=float, default=90, help="percent of the figure without a delay")
p.add_argument("--empty-target", type=float, default=8,
               help="percent of the time in which the busiest stage may have nothing to compute")
args = p.parse_args()
lab = BenchLab(args)
N = args.workers


def figure(kind, streams, *more):
    x = lab.bench("--streams", streams, "-n", args.gen, *more)["results"][0]
    f = x["flow"]
    busiest = f["stages"][f["busiest"]]
    x["empty"] = busiest["empty"] if busiest["empty"] is not None else float("nan")
    lab.say(row(kind, streams, "%.2f" % x["median_ts"], "%.1f" % f["rows"], "%.2f" % f["in_flight"],
                " / ".join("%.1f" % s["step_ms"] for s in f["stages"]), "%.1f" % f["head_ms"],
                " / ".join("?" if s["empty"] is None else "%.1f" % (100 * s["empty"]) for s in f["stages"]),
                "%.1f" % x["between_tokens_ms"]["p99"]))
    return x


first = lab.bench("--streams", args.streams, "-n", 8, "-t", 1, "--local", N, "--split", "measured")
layers = first["sessions"][0]["layers"]
lab.say("machine: %s; model: %s; layers %s, measured %s ms a layer, head %.1f ms a step\n" %
        (first["machine"], first["sessions"][0]["model"], "+".join(map(str, layers)),
         " / ".join("%.3f" % x for x in first["sessions"][0]["layer_ms"]), first["sessions"][0]["head_ms"]))
local = ["-t", 1, "--local", N, "--split", ",".join(map(str, layers))]
lab.say(head("way", "streams", "t/s", "rows", "in flight", "stage ms a step", "head ms", "empty %",
             "itl p99 ms"))

# -- against one process -------------------------------------------------------------------------------------
ratios, empties, last, rows = [], [], None, None
for i in range(args.rounds):
    over = figure("%d workers" % N, args.streams, *local)
    rows = max(1, round(over["flow"]["rows"]))
    if last is None:  # how many rows a step has was not known before
        last = figure("one process, %d threads" % N, rows, "-t", N)
        over = figure("%d workers" % N, args.streams, *local)
    after = figure("one process, %d threads" % N, rows, "-t", N)
    ratios.append(over["median_ts"] / ((last["median_ts"] + after["median_ts"]) / 2))
    empties.append(over["empty"])
    last = after

# -- behind delays -------------------------------------------------------------------------------------------
behind = {}
before = figure("%d workers" % N, args.streams, *local)
stage_ms = max(s["step_ms"] for s in before["flow"]["stages"])
for d in args.delays:
    proxies = []
    cluster = Cluster(lab, N, tag="d%s" % str(d).replace(".", "-"), layers=spans(layers), model=lab.model,
                      args=["--threads", "1"], via=delayed(lab, "delay=%s" % d, proxies))
    more = 1 + math.ceil(d * (N + 1) / stage_ms)
    streams = min(192, args.streams + more * max(1, round(before["flow"]["rows"])))
    ratio = []
    for i in range(args.rounds):
        x = figure("%d workers, %s ms a hop" % (N, d), streams, "-t", 1, *cluster.args())
        after = figure("%d workers" % N, args.streams, *local)
        ratio.append(x["median_ts"] / ((before["median_ts"] + after["median_ts"]) / 2))
        before = after
    behind[d] = ratio
    cluster.stop()
    for x in proxies:
        x.stop()

lab.say("")


def in_words(values):
    return "%.1f %% (%s)" % (100 * median(values), ", ".join("%.1f" % (100 * x) for x in values))


lab.verdict(median(ratios) * 100 >= args.target, "%d workers reach %s of one process with %d threads and %d "
            "rows a step; %.0f %% are due" % (N, in_words(ratios), N, rows, args.target))
lab.verdict(median(empties) * 100 < args.empty_target, "the busiest stage has nothing to compute %s of the "
            "time; less than %.0f %% is due" % (in_words(empties), args.empty_target))
for d, ratio in behind.items():
    lab.verdict(median(ratio) * 100 >= args.delay_target, "behind %s ms a hop %s of the figure without; %.0f "
                "%% are due" % (d, in_words(ratio), args.delay_target))
lab.finish()
