#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`tern serve` under a Poisson load: requests come at random moments, at a given mean rate, whether or not
earlier ones have been answered.

For each rate a table has what was offered and done, time to the first token and between tokens, and errors;
the same goes into a plot (SVG).  Prompts have --prompt words in the mean (exponential), answers --gen tokens
in the mean (geometric, end of text ignored); the same seed gives the same load.  Tokens count when the event
with their text has come.
"""
import json
import random
import threading
import time

from bench_lab import BenchLab, head, numbers, parser, row
from plot import chart
from serving import Server

WORDS = "once upon a time there was a little dog who liked to run in the park with a friend of his".split()

p = parser(__doc__)
p.add_argument("--rates", type=numbers, default=[0.25, 0.5, 1, 2], metavar="R,...",
               help="requests a second, one after the other (default: 0.25,0.5,1,2)")
p.add_argument("--seconds", type=float, default=30, help="of each rate, last answers aside")
p.add_argument("--prompt", type=int, default=40)
p.add_argument("--gen", type=int, default=32)
p.add_argument("--workers", type=int, default=2, help="0: one process with two threads (default: 2)")
p.add_argument("--parallel", type=int, default=16)
p.add_argument("--ctx", type=int, default=512)
p.add_argument("--seed", type=int, default=1)
p.add_argument("--out", default="serve_load", help="name of the .md and .svg files (default: %(default)s)")
args = p.parse_args()
lab = BenchLab(args)
more = ["--local", args.workers, "-t", 1] if args.workers else ["-t", 2]
server = Server(lab, *more, "--parallel", args.parallel, "-c", args.ctx, "--max-queue", 1024, "--json",
                wait=300)
model = json.loads(server.said)["model"]


def percentile(values, percent):
    v = sorted(values)
    return v[min(len(v) - 1, len(v) * percent // 100)] if v else float("nan")


class Load:
    def __init__(self, rate, seconds):
        self.rate, self.seconds, self.lock = rate, seconds, threading.Lock()
        self.first, self.between, self.tokens, self.errors, self.done, self.sent = [], [], 0, {}, 0, 0
        self.whole = []

    def one(self, prompt, n):
        body = {"prompt": prompt, "max_tokens": n, "temperature": 0, "stream": True, "ignore_eos": True,
                "cache_prompt": False}
        try:
            a = server.stream("/v1/completions", body, timeout=600)
            what = None if a.status == 200 else "status %d" % a.status
            if not what and (not a.events or a.events[-1] != "[DONE]"):
                what = "cut short"
        except OSError as e:
            a, what = None, type(e).__name__
        with self.lock:
            if what:
                self.errors[what] = self.errors.get(what, 0) + 1
                return
            times = a.times[:-2] or a.times[:1]  # without the events that say why it ends
            self.done += 1
            self.tokens += n
            self.first.append(times[0] * 1e3)
            self.whole.append(a.seconds)
            self.between += [(y - x) * 1e3 for x, y in zip(times, times[1:])]

    def run(self, seed):
        r = random.Random(seed)
        threads, start = [], time.monotonic()
        at = start
        while True:
            at += r.expovariate(self.rate)
            if at - start > self.seconds:
                break
            words = 1 + min(int(r.expovariate(1 / args.prompt)), args.ctx // 4)
            prompt = " ".join(r.choice(WORDS) for _ in range(words))
            n = 1 + min(int(r.expovariate(1 / args.gen)), args.ctx // 2)
            time.sleep(max(0, at - time.monotonic()))
            t = threading.Thread(target=self.one, args=(prompt, n), daemon=True)
            t.start()
            threads.append(t)
            self.sent += 1
        for t in threads:
            t.join(600)
        self.took = time.monotonic() - start


lab.say("model %s, %s, %d at once; prompts of %d words, answers of %d tokens in the mean\n" %
        (model, "%d workers" % args.workers if args.workers else "one process", args.parallel,
         args.prompt, args.gen))
warm = Load(args.rates[0], min(5, args.seconds))
warm.run(0)
table = [head("requests/s", "sent", "answered", "tokens/s", "ttft p50 ms", "p95", "p99", "itl p50 ms", "p95",
              "p99", "whole p50 s", "errors")]
lab.say(table[0])
points = []
for i, rate in enumerate(args.rates):
    load = Load(rate, args.seconds)
    load.run(args.seed + i)
    x = {"rate": rate, "speed": load.tokens / load.took}
    for k in (50, 95, 99):
        x["ttft%d" % k], x["itl%d" % k] = percentile(load.first, k), percentile(load.between, k)
    points.append((x, load))
    table.append(row("%g" % rate, load.sent, load.done, "%.1f" % x["speed"], "%.0f" % x["ttft50"],
                     "%.0f" % x["ttft95"], "%.0f" % x["ttft99"], "%.1f" % x["itl50"], "%.1f" % x["itl95"],
                     "%.1f" % x["itl99"], "%.2f" % percentile(load.whole, 50),
                     ", ".join("%s: %d" % e for e in sorted(load.errors.items())) or "none"))
    lab.say(table[-1])
with open(args.out + ".md", "w", encoding="utf-8") as f:
    f.write("\n".join(table) + "\n")


def line(name, key):
    return name, [(x["rate"], x[key]) for x, load in points if load.done]


with open(args.out + ".svg", "w", encoding="utf-8") as f:
    f.write(chart("tern serve under a Poisson load: %s" % model,
                  [("Throughput", "tokens/s", [line("all streams", "speed")]),
                   ("Time to first token", "ms", [line("p50", "ttft50"), line("p95", "ttft95"),
                                                  line("p99", "ttft99")]),
                   ("Time between tokens", "ms", [line("p50", "itl50"), line("p95", "itl95"),
                                                  line("p99", "itl99")])], "requests a second"))
lab.say("\nwritten: %s.md, %s.svg" % (args.out, args.out))
lab.verdict(all(not load.errors for _, load in points), "every request is answered in full")
lab.verdict(server.stop(30) == 0, "the server ends in peace")
lab.finish()
