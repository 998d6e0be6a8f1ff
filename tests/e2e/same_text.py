# SPDX-License-Identifier: Apache-2.0
"""The same answer however it is cut: text and logit bits are equal for every way of running, and for every
--wire format.

One factor at a time against a plain in-process run, and a few mixed combinations drawn with a fixed seed.
"""
import os
import platform
import random

from lab import Cluster, Lab

PROMPT = "Once upon a time there was a king who had three daughters, and the youngest"
OTHERS = ["The wolf said", "In the middle of the dark forest stood a small house", "Why"]
WIRES = ["int8", "int8-32", "int8-64", "int8-row", "int8x2", "f16", "f32"]
LAYERS = 6
TOKENS = 12
SAMPLING = ["-n", TOKENS, "--seed", 7, "--temp", "0.8", "--top-k", 40, "--top-p", "0.95"]

lab = Lab()
serial = 0


def run(wire, args=(), prompts=(PROMPT,), env=None):
    """Text of the run and the bits of all its logits."""
    global serial
    serial += 1
    file = lab.path("logits-%d" % serial)
    command = ["run", "--wire", wire, "--logits-out", file] + SAMPLING + list(args)
    for p in prompts:
        command += ["-p", p]
    r = lab.run(*command, env=env)
    bits = b""
    for name in [file] + ["%s.%d" % (file, i + 1) for i in range(len(prompts))]:
        if os.path.exists(name):
            with open(name, "rb") as f:
                bits = bits or f.read()  # of the first prompt
            os.unlink(name)
    return r, bits


def cpu_levels():
    """The levels this machine has, asked of tern itself."""
    found = []
    arm = platform.machine() == "aarch64"
    for level in ["ref"] + (["neon", "dotprod", "i8mm"] if arm else ["avx2", "avx512"]):
        r, bits = run("f32", ["--cpu", level])
        if r.code == 0:
            found.append(level)
        else:
            lab.skip("--cpu %s: %s" % (level, r.errors.strip().split("\n")[-1]))
    return found


levels = cpu_levels()
assert "ref" in levels
basis = {}
for wire in WIRES:
    r, bits = run(wire, ["-t", 1])
    lab.check(r.code == 0 and len(r.text.strip()) > 10, "--wire %s: a text in-process" % wire, r.errors)
    lab.check(len(bits) >= TOKENS * 4096 * 4, "--wire %s: logits of every token (%d bytes)" %
              (wire, len(bits)))
    basis[wire] = (r.out, bits)
lab.check(len({b for _, b in basis.values()}) == len(WIRES),
          "the formats differ from each other, so equality says something")


def same(wire, args, what, env=None):
    r, bits = run(wire, args, env=env)
    text, logits = basis[wire]
    lab.check(r.code == 0 and r.out == text and bits == logits, "--wire %s: same text and bits: %s" %
              (wire, what),
              "code %s, text equal %s, bits equal %s (%d and %d bytes)\n%s" %
              (r.code, r.out == text, bits == logits, len(bits), len(logits), r.errors))


def partition(parts, rng):
    """Sizes of `parts` slices, each of at least one layer."""
    cuts = sorted(rng.sample(range(1, LAYERS), parts - 1))
    return [b - a for a, b in zip([0] + cuts, cuts + [LAYERS])]


rng = random.Random(20240521)
for wire in WIRES:
    for threads in (2, 3):
        same(wire, ["-t", threads], "%d threads" % threads)
    for level in levels:
        same(wire, ["--cpu", level], "cpu " + level)
    for chunk in (1, 7, 64, 512):
        same(wire, ["--chunk", chunk], "chunks of %d" % chunk)
    for layout in ("2bit", "1.6bit", "auto"):
        same(wire, ["--layout", layout], "tiles of " + layout)
    same(wire, ["--local", 2], "2 local workers")
    same(wire, ["--local", 2, "--layout", "1.6bit"], "2 local workers, tiles of 1.6bit")
for n in (1, 3, 6):
    wire = WIRES[n % 5]
    same(wire, ["--local", n], "%d local workers" % n)
for sizes in ([1, 5], [4, 2], [3, 1, 2]):
    wire = rng.choice(WIRES)
    same(wire, ["--local", len(sizes), "--split", ",".join(map(str, sizes))], "split %s" % sizes)
for _ in range(4):
    parts = rng.choice([2, 3, 4])
    wire, level = rng.choice(WIRES), rng.choice(levels)
    args = ["--local", parts, "--split", ",".join(map(str, partition(parts, rng))), "--cpu", level,
            "-t", rng.choice([1, 2, 3]),
            "--chunk", rng.choice([1, 5, 64, 512]), "--layout", rng.choice(["2bit", "1.6bit"])]
    same(wire, args, " ".join(map(str, args)))

# A cluster of separate daemons, evenly and unevenly; the same daemons serve one coordinator after another.
for layers in (None, ["0-0", "1-3", "4-5"], ["0-2", "3", "4-5"]):
    tag = "even-" if layers is None else layers[0] + "-"
    cluster = Cluster(lab, 3, tag=tag, layers=layers, args=["--threads", 1])
    for wire in WIRES if layers is None else ["int8x2", "f32"]:
        same(wire, cluster.args(), "cluster of 3, layers %s" % (layers or "even"))
    lab.check(cluster.stop() == [0, 0, 0], "the workers end cleanly on SIGTERM")

# Each worker's layout is its own affair.
cluster = Cluster(lab, 2, tag="mixed-", args=["--threads", 1],
                  each=[["--layout", "2bit"], ["--layout", "1.6bit"]])
for wire in ("int8", "f32"):
    same(wire, cluster.args(), "cluster of 2, tiles of 2bit and 1.6bit")
lab.check(cluster.stop() == [0, 0], "the workers end cleanly on SIGTERM")

# Alone and in company: the first of several prompts gives the bits it gives alone.
for wire in WIRES:
    for args in ([], ["--local", 2]):
        r, bits = run(wire, args, prompts=[PROMPT] + OTHERS)
        text, logits = basis[wire]
        lab.check(r.code == 0 and bits == logits and text.strip() in r.out,
                  "--wire %s: same text and bits in company of %d%s" %
                  (wire, len(OTHERS), " " + str(args) if args else ""),
                  r.errors)

# The cache of int8 has bits of its own, and they are the same everywhere too.
for wire, where in (("int8", ["--local", 3]), ("f32", ["-t", 3, "--chunk", 7])):
    one, one_bits = run(wire, ["--kv", "int8", "-t", 1])
    two, two_bits = run(wire, ["--kv", "int8"] + where)
    lab.check(one.code == 0 and two.code == 0 and one.out == two.out and one_bits == two_bits,
              "--wire %s --kv int8: same text and bits: %s" % (wire, where), one.errors + two.errors)
    lab.check(one_bits != basis[wire][1], "--wire %s --kv int8 differs from --kv f16" % wire)
lab.end()
