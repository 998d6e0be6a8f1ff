# SPDX-License-Identifier: Apache-2.0
"""One model in every form that files have: TL1 and TL2 in tiles told by an option, floats, split files;
floats that are made ternary; and metadata given on the command line.  In one process and over workers: the
same text and figures."""
import os
import re
import struct

from lab import Cluster, Lab, soonest

lab = Lab()
TEXT = os.path.join(lab.source, "tests", "golden", "fable_validation.txt")
ASK = ["run", "-n", 16, "--temp", 0, "-p", "Once upon a time", "--logprobs", 3, "--json"]
TILES = ":".join("%s=32,%%d,32" % shape for shape in ("256x256", "128x256", "768x256", "256x768"))


def tiles(columns):
    return ["--tl-tiles", TILES.replace("%d", str(columns))]


def retype(kind):
    path = lab.path(kind + ".gguf")
    r = lab.run("--retype", kind, lab.model, path, program=os.path.join(lab.build, "bin", "make_model"))
    if r.code != 0:
        raise SystemExit("make_model failed: " + r.errors)
    return path


def texts(r):
    """What must not depend on the form: tokens and their probabilities, not times."""
    return re.findall(r'"(?:text|id|logprob)": *("(?:[^"\\]|\\.)*"|[-0-9.e+]+)', r.text)


def refused(r, *words):
    return r.code in range(64, 79) and len(r.errors.strip().split("\n")) == 1 and \
        all(w in r.errors for w in words)


reference = lab.run(*ASK)
lab.check(reference.code == 0 and len(texts(reference)) > 16, "the model as it is", reference.errors)


def same(what, *args):
    r = lab.run(*ASK, *args)
    lab.check(r.code == 0 and texts(r) == texts(reference), what, r.errors)


# -- types -------------------------------------------------------------------------------------------------

for kind, option in (("tl1", tiles(64)), ("tl2", tiles(96)), ("f32", [])):
    path = retype(kind)
    same("%s in one process" % kind, "-m", path, *option)
    same("%s over two workers" % kind, "-m", path, "--local", 2, *option)
    if option:
        r = lab.run(*ASK, "-m", path)
        lab.check(refused(r, kind.upper(), "--tl-tiles"), "%s without its tiles: the option is named" % kind,
                  r.errors)
        r = lab.run(*ASK, "-m", path, "--tl-tiles", "256x256=32")
        lab.check(refused(r, "--tl-tiles", "256x256=32"), "tiles that are none", r.errors)

# -- split files -------------------------------------------------------------------------------------------

FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def read_gguf(data):
    """The metadata's bytes and count, and each tensor: name, dimensions, type, bytes."""
    at = 0

    def take(form):
        nonlocal at
        value = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value[0]

    def string():
        nonlocal at
        n = take("Q")
        at += n
        return data[at - n:at]

    def value(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            elem, n = take("I"), take("Q")
            for _ in range(n):
                value(elem)
        else:
            at += FIXED[kind]

    assert data[:4] == b"GGUF"
    at = 8
    n_tensors, n_kv = take("Q"), take("Q")
    begin = at
    for _ in range(n_kv):
        string()
        value(take("I"))
    metadata = data[begin:at]
    records = []
    for _ in range(n_tensors):
        name = string()
        dims = [take("Q") for _ in range(take("I"))]
        records.append((name, dims, take("I"), take("Q")))
    base = -(-at // 32) * 32
    ends = sorted([r[3] for r in records]) + [len(data) - base]
    tensors = [(n, d, t, data[base + o:base + ends[ends.index(o) + 1]]) for n, d, t, o in records]
    return n_kv, metadata, tensors


def part(n_kv, metadata, tensors, number, count, total):
    def key(name, kind, value):
        return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value

    metadata += key(b"split.no", 2, struct.pack("<H", number))
    metadata += key(b"split.count", 2, struct.pack("<H", count))
    metadata += key(b"split.tensors.count", 5, struct.pack("<i", total))
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), n_kv + 3) + metadata
    body = b""
    for name, dims, kind, data in tensors:
        out += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(dims))
        out += struct.pack("<%dQ" % len(dims), *dims) + struct.pack("<IQ", kind, len(body))
        body += data + bytes(-len(data) % 32)
    return out + bytes(-len(out) % 32) + body


with open(lab.model, "rb") as f:
    n_kv, metadata, tensors = read_gguf(f.read())
shares = [tensors[:3], tensors[3:40], tensors[40:]]
paths = [lab.write("whole-%05d-of-00003.gguf" % (i + 1),
                   part(n_kv if i == 0 else 0, metadata if i == 0 else b"", share, i, 3, len(tensors)))
         for i, share in enumerate(shares)]
same("a split file in one process", "-m", paths[0])
same("a split file over two workers", "-m", paths[0], "--local", 2)
r = lab.run("inspect", "-m", paths[0])
lab.check(r.code == 0 and "68 tensors" in r.text, "inspect sees the tensors of all parts", r.text + r.errors)
r = lab.run(*ASK, "-m", paths[1])
lab.check(refused(r, "part 2 of 3", "first"), "the second part: the first is asked for", r.errors)
os.rename(paths[2], paths[2] + ".away")
r = lab.run(*ASK, "-m", paths[0])
lab.check(refused(r, "whole-00003-of-00003.gguf"), "a part is missing: it is named", r.errors)
os.rename(paths[2] + ".away", paths[2])

# -- floats that are not ternary ---------------------------------------------------------------------------

with open(lab.path("f32.gguf"), "rb") as f:
    floats = bytearray(f.read())
changed = 0
for name, dims, kind, data in read_gguf(bytes(floats))[2]:
    if kind == 0 and len(dims) == 2 and name.startswith(b"blk."):
        start = floats.index(data)
        for i in range(start, start + len(data), 4 * 7): # every seventh weight a little larger: masters
            struct.pack_into("<f", floats, i, struct.unpack_from("<f", floats, i)[0] * 1.1)
        changed += 1
lab.check(changed == 6 * 7, "all matrices of the six layers are changed", changed)
masters = lab.write("masters.gguf", bytes(floats))
del floats
r = lab.run(*ASK, "-m", masters)
lab.check(refused(r, "not ternary", "--quantize", "blk.0."),
          "floats that are not ternary: --quantize is named", r.errors)
made = lab.path("made.gguf")
r = lab.run("convert", masters, "-o", made, "--quantize")
lab.check(r.code == 0, "convert makes them ternary", r.errors)
made = lab.run(*ASK, "-m", made)
lab.check(made.code == 0 and len(texts(made)) > 16 and texts(made) != texts(reference),
          "which is another model, of another scale", made.errors)
for what, *args in (("run", ), ("the workers that tern starts", "--local", 2)):
    r = lab.run(*ASK, "-m", masters, "--quantize", *args)
    lab.check(r.code == 0 and texts(r) == texts(made), "%s: --quantize is what convert does" % what, r.errors)
cluster = Cluster(lab, 2, tag="masters-", args=["--quantize"], model=[masters, masters])
r = lab.run(*ASK, "-m", masters, "--quantize", *cluster.args())
lab.check(r.code == 0 and texts(r) == texts(made), "workers elsewhere have the option too", r.errors)
r = lab.run(*ASK, "-m", masters, *cluster.args())
lab.check(r.code != 0 and soonest(r, 10) < 10, "a coordinator without --quantize has another model", r.errors)
cluster.stop()
for command in (["inspect", "--verify"], ["perplexity", "-f", TEXT, "--chunks", 1],
                ["embed", "-p", "a king", "--pooling", "mean"]):
    r = lab.run(*command, "-m", masters, "--quantize")
    lab.check(r.code == 0, "%s takes --quantize" % command[0], r.errors)

# -- metadata from the command line ------------------------------------------------------------------------

theta = ["--override-kv", "bitnet-b1.58.rope.freq_base=float:500"]
other = lab.run(*ASK, *theta)
lab.check(other.code == 0 and texts(other) != texts(reference), "another theta: another text", other.errors)
r = lab.run(*ASK, *theta, "--local", 2)
lab.check(r.code == 0 and texts(r) == texts(other), "workers that tern starts are told", r.errors)
cluster = Cluster(lab, 2, tag="told-", args=theta)
r = lab.run(*ASK, *theta, *cluster.args())
lab.check(r.code == 0 and texts(r) == texts(other), "workers elsewhere have the option too", r.errors)
r = lab.run(*ASK, *cluster.args())
lab.check(r.code != 0 and soonest(r, 10) < 10, "a coordinator without it has another model", r.errors)
cluster.stop()
for wrong in ("theta", "a=int:x", "a=u8:1", "=int:1", "a=bool:maybe"):
    r = lab.run(*ASK, "--override-kv", wrong)
    lab.check(refused(r, "--override-kv", wrong), "--override-kv %s: one sentence" % wrong, r.errors)
lab.end()
