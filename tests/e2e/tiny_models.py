# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every family from outside: every file and folder of a model gives the same logits to the
bit, in one process and over two and three workers, with any number of threads and at any CPU level, and
when it is converted; embedding models give the oracle's vectors.  A folder of floats that nothing calls
ternary is made so when its user says so.
"""
import filecmp
import json
import os
import platform
import shutil

from lab import Lab

PROMPT = "the king had three daughters and the youngest of them was the fairest in all the land"
TOKENS = 6

lab = Lab()
models = os.path.join(lab.build, "oracle")
goldens = os.path.join(lab.source, "tests", "golden", "oracle")
if not os.path.exists(os.path.join(models, "manifest.json")):
    print("skipped: tests/oracle/make.py has not made the models")
    lab.end()
with open(os.path.join(models, "manifest.json"), encoding="utf-8") as f:
    manifest = json.load(f)["models"]


def opening(file):
    """Arguments that open a file."""
    args = ["-m", file["path"]]
    if file["i2s_layout"] != "A":
        args += ["--i2s-layout", file["i2s_layout"]]
    if file["tiles"]:
        args += ["--tl-tiles", ":".join("%dx%d=%d,%d,%d" % tuple(t) for t in file["tiles"])]
    return args


def run(file, args=()):
    """The run, and the bits of its logits."""
    path = lab.path("logits")
    r = lab.run("run", *opening(file), "--wire", "f32", "-c", 256, "-p", PROMPT, "-n", TOKENS, "--temp", 0,
                "--ignore-eos", "--head", "full", "--logits-out", path, *args)
    bits = b""
    if os.path.exists(path):
        with open(path, "rb") as f:
            bits = f.read()
        os.unlink(path)
    return r, bits


def levels():
    """The CPU levels this machine has."""
    found = []
    for level in ["ref"] + (["neon", "dotprod", "i8mm"] if platform.machine() == "aarch64" else
                            ["avx2", "avxvnni", "avx512", "avx512vbmi"]):
        if run(manifest[0]["files"][0], ["--cpu", level])[0].code == 0:
            found.append(level)
    return found


def check_vectors(model, file):
    """Against the oracle's: codes that part move a vector by some hundredths of its length."""
    with open(os.path.join(goldens, model["name"] + ".json"), encoding="utf-8") as f:
        golden = json.load(f)
    assert golden["digest"] == model["digest"]
    for pooling, args in (("last", []), ("last", ["--local", 3]), ("mean", ["--pooling", "mean"]),
                          ("cls", ["--pooling", "cls"])):
        texts = [t for t in golden["texts"] if t["pooling"] == pooling]
        lines = lab.write("lines", "".join(t["text"] + "\n" for t in texts))
        r = lab.run("embed", *opening(file), "--wire", "f32", "--json", "-f", lines, *args)
        got = json.loads(r.text)["embeddings"] if r.code == 0 else []
        off = [sum((a - b)**2 for a, b in zip(v, t["vector"]))**0.5 for v, t in zip(got, texts)]
        lengths = [sum(a * a for a in v)**0.5 for v in got]
        lab.check(texts and len(off) == len(texts) and max(off) < 0.1 and
                  max(abs(n - 1) for n in lengths) < 1e-5,
                  "%s %s: the oracle's vectors, at most %.3f off %s" %
                  (model["name"], file["name"], max(off, default=9), args), r.errors)


def check_conversion(model, file, bits):
    """A folder becomes a file that means the same, whichever of its files is named; never one of these."""
    path, again = lab.path("converted.gguf"), lab.path("again.gguf")
    r = lab.run("convert", file["path"], "-o", path, "--type", "i2_s", "--force", "-q")
    same = run({"path": path, "i2s_layout": "A", "tiles": []})[1] == bits if r.code == 0 else False
    lab.check(same, "%s %s: the same bits converted to I2_S" % (model["name"], file["name"]), r.errors)
    config = os.path.join(file["path"], "config.json")
    r = lab.run("convert", config, "-o", again, "--type", "i2_s", "--force", "-q")
    lab.check(r.code == 0 and filecmp.cmp(path, again, shallow=False),
              "%s %s: and the same file by its config.json" % (model["name"], file["name"]), r.errors)
    weights = sorted(n for n in os.listdir(file["path"]) if n.endswith(".safetensors"))[-1]
    weights = os.path.join(file["path"], weights)
    before = os.stat(weights).st_ino
    r = lab.run("convert", config, "-o", weights, "--force", "-q")
    lab.check(r.code in range(64, 79) and "itself" in r.errors and os.stat(weights).st_ino == before,
              "%s %s: not onto its own weights" % (model["name"], file["name"]), r.errors)


def check_masters(model, file, bits):
    """A folder of master weights without a word about their quantisation, named by a file in it."""
    folder = lab.path(model["name"] + "-masters")
    shutil.copytree(file["path"], folder)
    config = os.path.join(folder, "config.json")
    with open(config, encoding="utf-8") as f:
        said = json.load(f)
    del said["quantization_config"]
    with open(config, "w", encoding="utf-8") as f:
        json.dump(said, f)
    for name in ("model.safetensors", "config.json", ""):
        plain = dict(file, path=os.path.join(folder, name))
        r, none = run(plain)
        lab.check(r.code in range(64, 79) and not none and "not ternary" in r.errors and
                  "--quantize" in r.errors and len(r.errors.strip().split("\n")) == 1,
                  "%s: plain floats (%s): --quantize is named" % (model["name"], name), r.errors)
        for way in ([], ["--local", 2]):
            r, other = run(plain, ["--quantize"] + way)
            lab.check(r.code == 0 and other == bits,
                      "%s: plain floats (%s): the same bits with --quantize %s" %
                      (model["name"], name, " ".join(map(str, way))), r.errors)


levels_here = levels()
assert "ref" in levels_here
rest = [["--local", 2], ["--local", 3], ["-t", 3, "--chunk", 5]]
n_masters = 0
for model in manifest:
    basis = None
    for i, file in enumerate(model["files"]):
        title = "%s %s: " % (model["name"], file["name"])
        r, bits = run(file, ["-t", 1])
        good = r.code == 0 and len(bits) > 0 and len(bits) % (4 * TOKENS) == 0
        lab.check(good, title + "logits in one process", r.errors)
        if not good:
            continue
        is_folder = os.path.isdir(file["path"])
        ways = rest if is_folder else [rest[i % len(rest)]]
        if basis is None:
            basis = bits
            ways = rest + [["-t", 2, "--layout", "1.6bit"]] + [["--cpu", level] for level in levels_here]
        elif file["exact"]:
            lab.check(bits == basis, title + "the bits of " + model["files"][0]["name"])
        for way in ways:
            r, other = run(file, way)
            lab.check(r.code == 0 and other == bits, title + "the same bits with " + " ".join(map(str, way)),
                      r.errors)
        if model["embedding"]:
            check_vectors(model, file)
        if is_folder:
            check_conversion(model, file, bits)
        if model["name"] == "falcon-e" and file["name"] == "hf-bf16":
            check_masters(model, file, bits)
            n_masters += 1
lab.check(n_masters == 1, "a folder of plain floats was among them", n_masters)
lab.end()
