# SPDX-License-Identifier: Apache-2.0
"""What the measuring scripts share: arguments, a model of some shape, `tern bench` as data, tables and
verdicts.  Programs, keys and clusters come from tests/e2e/lab.py; the build directory is the first argument
of every script."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lab import Lab  # noqa: E402


def parser(text):
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build", help="build directory, of the release preset")
    p.add_argument("--model", help="model file; without it one of --shape is made and removed afterwards")
    p.add_argument("--shape", default="2b4t", help="see `tern convert --help` (default: %(default)s)")
    return p


def numbers(text):
    return [float(x) if "." in x else int(x) for x in text.split(",")]


class BenchLab(Lab):
    """A Lab whose model is that of the arguments."""

    def __init__(self, args):
        super().__init__()
        self.failures = 0
        if args.model:
            self.model = os.path.abspath(args.model)
        elif args.shape != "fable":
            where = os.environ.get("TMPDIR", "/var/tmp")
            self.big = tempfile.TemporaryDirectory(prefix="tern-bench-", dir=where)
            self.model = os.path.join(self.big.name, args.shape + ".gguf")
            self.say("making a model of the shape %s in %s" % (args.shape, where))
            r = self.run("convert", "--synthetic", args.shape, "-o", self.model, "-q", timeout=600)
            if r.code:
                sys.exit("no model: " + r.errors)
        self.env["TERN_MODEL"] = self.model

    @staticmethod
    def say(text):
        print(text, flush=True)

    def bench(self, *args, timeout=1800):
        """`tern bench --json` as data."""
        command = [self.tern, "bench", "-m", self.model, "-q", "--json"] + [str(a) for a in args]
        p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env,
                           timeout=timeout)
        if p.returncode:
            sys.exit("%s: %s" % (" ".join(command), p.stderr.decode("utf-8", "replace")))
        return json.loads(p.stdout)

    def verdict(self, holds, text):
        """A last line that says whether an expectation holds."""
        self.failures += not holds
        self.say("%s: %s" % ("holds" if holds else "DOES NOT HOLD", text))

    def finish(self):
        sys.exit(1 if self.failures else 0)


def median(values):
    v = sorted(values)
    return (v[(len(v) - 1) // 2] + v[len(v) // 2]) / 2 if v else float("nan")


def row(*cells):
    return "| " + " | ".join(str(c) for c in cells) + " |"


def head(*cells):
    return row(*cells) + "\n|" + " ---: |" * len(cells)


def spans(layers):
    """Layer counts as the spans of a cluster file."""
    out, at = [], 0
    for n in layers:
        out.append("%d-%d" % (at, at + n - 1))
        at += n
    return out
