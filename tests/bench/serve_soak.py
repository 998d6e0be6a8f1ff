#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A server under many clients of all manners for a long time: those that wait, hang up, read slowly, send
rubbish or too much, or never finish a request (tests/lab/soak.py).

Holds when nothing crashes, every request is answered or refused with a status, descriptors come back to
where they were, resident memory does not grow (slope of the second half), and in the end nothing runs and
every page of the KV cache is free or kept for prefixes.  Prints a line every half minute.
"""
import sys

from bench_lab import BenchLab, head, parser, row
from lab import descriptors
from serving import Server
from soak import Soak

p = parser(__doc__)
p.set_defaults(shape="fable")
p.add_argument("--minutes", type=float, default=10, help="10 or 30 are usual (default: 10)")
p.add_argument("--clients", type=int, default=64)
p.add_argument("--workers", type=int, default=2, help="0: one process (default: 2)")
p.add_argument("--parallel", type=int, default=8)
p.add_argument("--seed", type=int, default=1)
p.add_argument("--slope", type=float, default=20,
               help="megabytes an hour that a process may grow (default: 20)")
args = p.parse_args()
lab = BenchLab(args)
more = ["--local", args.workers, "-t", 1] if args.workers else ["-t", 2]
server = Server(lab, *more, "--parallel", args.parallel, "-c", 1024, "--pooling", "mean")
Soak(server, 8, min(20, args.minutes * 6), seed=args.seed + 1).run()  # buffers find their size
soak = Soak(server, args.clients, args.minutes * 60, seed=args.seed)
if not soak.settle():
    sys.exit("the server does not come to rest before the run")
files = {name: descriptors(pid) for name, pid in soak.pids.items()}


told = [0]


def progress(s):
    now = {name: x[-1] for name, x in s.samples.items()}
    lab.say("%5.0f s: %d requests, %d wrong; %s" % (
        next(iter(now.values()))[0], s.total(), len(s.wrong),
        ", ".join("%s %.1f MB %d files" % (name, x[1] / 1e6, x[2]) for name, x in now.items())))
    for line in s.wrong[told[0]:20]:
        lab.say("wrong: " + line)
    told[0] = len(s.wrong)


soak.run(progress)
lab.say("\n" + soak.table() + "\n")
rest = soak.settle(60)
lab.say(head("process", "MB at the start", "MB at the end", "MB most", "MB an hour (second half)",
             "files before", "files after"))
for name, pid in soak.pids.items():
    x = soak.samples[name]
    lab.say(row(name, "%.1f" % (x[0][1] / 1e6), "%.1f" % (x[-1][1] / 1e6),
                "%.1f" % (max(b for _, b, _ in x) / 1e6), "%.1f" % soak.grown(name), files[name],
                descriptors(pid) if server.alive() else "gone"))
lab.say("")
for line in soak.wrong[told[0]:20]:
    lab.say("wrong: " + line)
lab.verdict(not soak.wrong, "%d requests of %d clients in %g minutes, each answered or refused with a "
            "status" % (soak.total(), args.clients, args.minutes))
lab.verdict(server.alive() and rest, "afterwards nothing runs, nothing waits and every page is free or kept "
            "for prefixes")
if server.alive():
    lab.verdict(all(descriptors(pid) <= files[name] + 2 for name, pid in soak.pids.items()),
                "descriptors are back where they were")
    lab.verdict(all(soak.grown(name) <= args.slope for name in soak.pids),
                "memory grows by at most %g MB an hour" % args.slope)
    lab.verdict(server.stop(30) == 0, "the server ends in peace")
lab.finish()
