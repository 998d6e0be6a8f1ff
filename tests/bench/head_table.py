#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the type of embedding and head costs and brings: perplexity on one model, speed on the shape of
another.

usage: head_table.py BUILD_DIR TEXT [--model FILE] [--ctx N] [--shape 2b4t] [--threads N] [--gen N]
                     [--repetitions N] [--types f16,q8_0,q6_k,q4_0]

Prints a Markdown table: for each type bytes of the head in the shape, perplexity of the text with its change
against the first type and the share of scored positions with the same most likely token, and tokens per
second decoded with the head read in full (--head full) and as Tern chooses (--head auto).  Models are made by
`tern convert` in a temporary folder, one at a time.  Speeds are medians of the repetitions; with each stands
its share of the read bandwidth, which says how quiet the machine was.
"""
import argparse
import json
import os
import subprocess
import tempfile


def call(*command):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE).stdout


def predict(args, model):
    data = json.loads(call(args.tern, "perplexity", "-q", "--json", "--nll", "-f", args.text, "-c", args.ctx,
                           "-m", model))
    return data["ppl"], [t for c in data["chunks"] for t in c["top"]]


def speed(args, model, head):
    """Median of tokens per second, share of the read bandwidth, bytes of the head that a token reads, and how
    it is read."""
    data = json.loads(call(args.tern, "bench", "-m", model, "-p", 0, "-n", args.gen, "-r",
                           args.repetitions, "-t", args.threads, "--head", head, "-o", "json"))
    result = data["results"][0]
    return (result["median_ts"], result["share"], data["sessions"][0]["head_bytes"],
            result["head"].split()[-1])


def cell(rate, share):
    return "%.1f" % rate + ((" (%.0f %%)" % (100 * share) if share else ""))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("text")
    p.add_argument("--model",
                   default=os.path.join(os.path.dirname(__file__), "../../deploy/models/fable.gguf"))
    p.add_argument("--ctx", type=int, default=256)
    p.add_argument("--shape", default="2b4t")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--gen", type=int, default=32)
    p.add_argument("--repetitions", type=int, default=7)
    p.add_argument("--types", default="f16,q8_0,q6_k,q4_0")
    args = p.parse_args()
    args.tern = os.path.join(args.build, "bin", "tern")
    base = None
    print("| head | MB, %s | perplexity | against the first | same token | full, tokens/s | MB a token | "
          "auto, tokens/s | MB a token |" % args.shape)
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for kind in args.types.split(","):
        with tempfile.TemporaryDirectory() as d:
            model = os.path.join(d, "model.gguf")
            call(args.tern, "convert", args.model, "-o", model, "--head", kind, "-q")
            ppl, top = predict(args, model)
            base = base or (ppl, top)
            os.unlink(model)
            call(args.tern, "convert", "--synthetic", args.shape, "--head", kind, "-o", model, "-q")
            full = speed(args, model, "full")
            auto = speed(args, model, "auto")
        same = sum(a == b for a, b in zip(top, base[1])) / len(top)
        print("| %s | %.0f | %.4f | %+.3f %% | %.2f %% | %s | %.0f | %s, %s | %.0f |" %
              (kind, full[2] / 1e6, ppl, 100 * (ppl / base[0] - 1), 100 * same, cell(*full[:2]),
               full[2] / 1e6, cell(*auto[:2]), auto[3], auto[2] / 1e6), flush=True)


if __name__ == "__main__":
    main()
