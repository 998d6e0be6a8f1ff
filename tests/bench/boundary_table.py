#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Perplexity and greedy agreement of every boundary format, on a model and on a copy of it with outlier
channels.

usage: boundary_table.py BUILD_DIR TEXT [--model FILE] [--ctx N] [--factors 10,30,100] [--channels N]

Prints Markdown tables: per format the bytes of a row, the perplexity with its change against f32, and the
share of scored positions whose most likely token is the one f32 gives (teacher-forced).  The outlier copies
are made by make_model --outliers in a temporary folder.
"""
import argparse
import json
import os
import subprocess
import tempfile

FORMATS = ["f32", "f16", "int8x2", "int8", "int8-32", "int8-64", "int8-row"]


def row_bytes(fmt, n):
    return {"f32": 4 * n, "f16": 2 * n, "int8x2": 2 * n + 4 * -(-n // 32),
            "int8": n + 4 * -(-n // 32) + 6 * -(-n // 64), "int8-32": n + 4 * -(-n // 32),
            "int8-64": n + 4 * -(-n // 64), "int8-row": n + 4}[fmt]


def measure(args, tern, model, fmt):
    out = subprocess.run([tern, "perplexity", "-q", "--json", "--nll", "-f", args.text, "-c", str(args.ctx),
                          "-m", model,
                          "--wire", fmt], check=True, stdout=subprocess.PIPE).stdout
    data = json.loads(out)
    return data["ppl"], [t for c in data["chunks"] for t in c["top"]]


def table(args, tern, title, model, n_embd):
    base_ppl, base_top = measure(args, tern, model, "f32")
    print(f"\n{title}\n")
    print("| format | bytes a row | perplexity | against f32 | same greedy token |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for fmt in FORMATS:
        ppl, top = (base_ppl, base_top) if fmt == "f32" else measure(args, tern, model, fmt)
        same = sum(a == b for a, b in zip(top, base_top)) / len(base_top)
        change = 100 * (ppl / base_ppl - 1)
        print(f"| {fmt} | {row_bytes(fmt, n_embd)} | {ppl:.4f} | {change:+.3f} % | {100 * same:.2f} % |")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("text")
    p.add_argument("--model",
                   default=os.path.join(os.path.dirname(__file__), "../../deploy/models/fable.gguf"))
    p.add_argument("--ctx", type=int, default=256)
    p.add_argument("--factors", default="10,100,1000")
    p.add_argument("--channels", type=int, default=4)
    args = p.parse_args()
    tern, make_model = (os.path.join(args.build, "bin", x) for x in ("tern", "make_model"))
    info = json.loads(subprocess.run([tern, "inspect", "--json", "-m", args.model], check=True,
                                     stdout=subprocess.PIPE).stdout)
    n_embd = info["architecture"]["n_embd"]
    table(args, tern, "The model as it is:", args.model, n_embd)
    for factor in args.factors.split(","):
        with tempfile.TemporaryDirectory() as d:
            copy = os.path.join(d, "outliers.gguf")
            subprocess.run([make_model, "--outliers", "1", args.model, copy, "--factor", factor, "--channels",
                            str(args.channels)], check=True, stdout=subprocess.DEVNULL)
            table(args, tern, f"{args.channels} outlier channels, factor {factor}:", copy, n_embd)


if __name__ == "__main__":
    main()
