# SPDX-License-Identifier: Apache-2.0
"""tern convert MODEL: there and back between all types without loss, the same results, slices that workers
accept, hashes, refusals, and nothing left behind."""
import json
import os
import re
import resource
import signal
import struct
import subprocess

from lab import Cluster, Lab, wait_until

lab = Lab()
with open(lab.tern, "rb") as f:
    SANITIZED = b"__asan_init" in f.read()  # ten times as slow
TERNARY = ["i2_s", "tq1_0", "tq2_0", "f16", "f32"]
TEXT = os.path.join(lab.source, "tests", "golden", "fable_validation.txt")


def convert(source, name, *args, **kwargs):
    path = lab.path(name)
    r = lab.run("convert", source, "-o", path, "-q", "--force", *args, timeout=240, **kwargs)
    return path, r


def made(source, name, *args):
    path, r = convert(source, name, *args)
    lab.check(r.code == 0 and not r.out and not r.err, "convert to %s %s" % (name, " ".join(args)), r.errors)
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


def inspect(path, *args):
    return json.loads(lab.run("inspect", "-m", path, "--json", *args).text)


def keys(path):
    return {k["key"]: k["value"] for k in inspect(path)["metadata"]}


def said(path, *args):
    """Tokens and probabilities of a run."""
    r = lab.run("run", "-m", path, "-p", "Once upon a time", "-n", 24, "--temp", 0, "--logprobs", 5, "--json",
                *args)
    return re.findall(r'"(?:text|id|logprob)": *("(?:[^"\\]|\\.)*"|[-0-9.e+]+)', r.text) or r.errors


def perplexity(path):
    r = lab.run("perplexity", "-m", path, "-f", TEXT, "--chunks", 2 if SANITIZED else 8, timeout=240)
    found = re.search(r"PPL = ([0-9.]+)", r.text)
    return float(found.group(1)) if found else float("nan")


MATRIX = "blk.2.ffn_up.weight"


def tensor_at(path, wanted):
    """Offset and bytes of a tensor's data: the directory says neither, so they are added up."""
    at = os.path.getsize(path)
    for t in reversed(inspect(path, "--tensors")["tensors"]["list"]):
        at -= -(-t["bytes"] // 32) * 32
        if t["name"] == wanted:
            return at, t["bytes"]
    raise KeyError(wanted)


# -- the fable model -----------------------------------------------------------------------------------------
exact = made(made(lab.model, "first.gguf"), "fable-i2_s.gguf") # with all that convert adds, in its order
reference = said(lab.model)
lab.check(len(reference) > 100 and said(exact) == reference,
          "I2_S: the same tokens and probabilities, bit by bit")
base = perplexity(lab.model)
for kind in ("tq1_0", "tq2_0"):
    path = made(lab.model, "fable-%s.gguf" % kind, "--type", kind)
    lab.check(said(path) == reference, kind + ": the same, by the scales noted beside the rounded ones")
    ppl = perplexity(path)
    lab.check(ppl == base, "%s: perplexity %.4f of %.4f" % (kind, ppl, base))
    back = made(path, "back.gguf")
    lab.check(read(back) == read(exact), kind + " and back: the same bytes")
    plain = lab.path("plain-%s.gguf" % kind)
    lab.run("--retype", kind, lab.model, plain, program=os.path.join(lab.build, "bin", "make_model"))
    ppl = perplexity(plain)
    lab.check(ppl != base and abs(ppl / base - 1) < 2e-3,
              "without the notes: perplexity %.4f of %.4f" % (ppl, base))

before, after = keys(lab.model), keys(exact)
lab.check(all(after[k] == v for k, v in before.items()), "metadata is kept",
          [k for k, v in before.items() if after.get(k) != v])
lab.check(keys(lab.path("fable-tq2_0.gguf"))["general.file_type"] == 37, "general.file_type follows the type")
lab.check(after["tern.tensors.blake2b_256"]["n"] == 32 * inspect(exact)["tensors"]["n"],
          "a hash for each tensor")

# -- every pair, there and back ------------------------------------------------------------------------------
models = {}
for kind in TERNARY:
    models[kind] = made(exact, "a-%s.gguf" % kind, "--type", kind, "-t", str(1 + TERNARY.index(kind) % 3))
for a in TERNARY:
    for b in TERNARY:
        path, r = convert(models[a], "b.gguf", "--type", b)
        lab.check(r.code == 0 and read(path) == read(models[b]), "%s to %s: the file that %s is" % (a, b, b),
                  r.errors)
for kind in TERNARY:
    lab.check(said(models[kind]) == reference, "%s: the same tokens and probabilities" % kind)

# -- floats that are not ternary ----------------------------------------------------------------------------
def matrices(path, *args):
    r = lab.run("inspect", "-m", path, "--verify", "--json", *args)
    return json.loads(r.text)["verification"]["matrices"]


data = bytearray(read(models["f32"]))
start, size = tensor_at(models["f32"], MATRIX)
for i in range(start, start + size, 4 * 7): # every seventh weight a little larger: master weights
    struct.pack_into("<f", data, i, struct.unpack_from("<f", data, i)[0] * 1.1)
master = lab.write("master.gguf", bytes(data))
path, r = convert(master, "none.gguf")
lab.check(r.code in range(64, 79) and MATRIX in r.errors and "--quantize" in r.errors and
          not os.path.exists(path), "floats that are not ternary are refused, with a way out", r.errors)
path = made(master, "quantized.gguf", "--quantize")
was, now = matrices(models["i2_s"]), matrices(path)
at = [m["name"] for m in was].index(MATRIX)
lab.check(all(now[at][k] == was[at][k] for k in ("minus", "zero", "plus")) and
          0.5 < now[at]["scale"] / was[at]["scale"] < 0.9,
          "--quantize: the same signs, the mean magnitude as the scale", (was[at], now[at]))
lab.check(now[:at] == was[:at] and now[at + 1:] == was[at + 1:],
          "and matrices that are ternary stay as they are")

# -- a folder of Hugging Face -------------------------------------------------------------------------------
FOLDER = os.path.join(os.environ.get("TERN_SHARED") or os.path.join(lab.source, "..", "shared"), "models",
                      "fable", "hf")
if not os.path.isdir(FOLDER):
    lab.skip("%s is not there: no folder to convert" % FOLDER)
else:
    path = made(FOLDER, "folder.gguf")
    was, now = [sorted(matrices(p), key=lambda m: m["name"]) for p in (lab.model, path)]
    lab.check(len(was) == len(now) and
              all(a["name"] == b["name"] and abs(a["zero"] - b["zero"]) < 1e-9 and
                  abs(a["plus"] - b["plus"]) < 1e-9 and abs(a["scale"] / b["scale"] - 1) < 1e-6
                  for a, b in zip(was, now)),
              "a folder of master weights becomes the published file's matrices", now[:2])
    types = {t["name"]: t["type"] for t in inspect(path, "--tensors")["tensors"]["list"]}
    lab.check(types["token_embd.weight"] == "F16" and types["blk.0.attn_norm.weight"] == "F32",
              "its BF16 embedding becomes F16, its norms F32", types)
    ppl = perplexity(path)
    lab.check(abs(ppl / base - 1) < 2e-3, "and as good a model: perplexity %.4f of %.4f" % (ppl, base))

# -- rows that share a byte's block: 8640 columns, and 3200, which TQ types cannot have ----------------------
odd = lab.path("odd.gguf")
r = lab.run("convert", "--synthetic", "3b", "--layers", "0-0", "-o", odd, "-q")
again = made(odd, "odd-2.gguf", "-t", "3")
lab.check(r.code == 0 and read(again)[-10000000:] == read(odd)[-10000000:], "I2_S rows of 8640 columns")
path, r = convert(odd, "odd-3.gguf", "--type", "tq2_0")
lab.check(r.code == 64 and "3200" in r.errors and "i2_s" in r.errors and not os.path.exists(path),
          "TQ2_0 of 3200 columns is refused, with a way out", r.errors)
os.unlink(odd)
os.unlink(again)

# -- embedding and head --------------------------------------------------------------------------------------
for kind in ("f32", "bf16", "q8_0", "q6_k", "q4_0", "q4_k", "tq2_0"):
    path = made(lab.model, "head.gguf", "--head", kind)
    table = [t for t in inspect(path, "--tensors")["tensors"]["list"] if t["name"] == "token_embd.weight"][0]
    lab.check(table["type"].lower() == kind and len(said(path)) > 100, "--head " + kind, table)
path = made(made(lab.model, "head.gguf", "--head", "f32"), "head-2.gguf", "--head", "f16")
lab.check(read(path) == read(exact), "F16 to F32 and back: the same bytes")

# -- slices --------------------------------------------------------------------------------------------------
# A coordinator with a file as its publisher wrote it, bytes without meaning included, and slices of it.
last = before["bitnet-b1.58.block_count"] - 1
foreign = bytearray(read(lab.model))
at, size = tensor_at(lab.model, MATRIX)
foreign[at + size - 28:at + size] = b"\xa5" * 28
foreign = lab.write("foreign.gguf", bytes(foreign))
for name, whole in (("foreign", foreign), ("tq", lab.path("plain-tq2_0.gguf")),
                    ("noted", lab.path("fable-tq1_0.gguf"))):
    parts = [made(whole, name + "-front.gguf", "--layers", "0-1"),
             made(whole, name + "-back.gguf", "--layers", "2-%d" % last)]
    cluster = Cluster(lab, 2, tag=name + "-", layers=["0-1", "2-%d" % last], model=parts)
    lab.check(said(whole, *cluster.args()) == said(whole), "slices of %s fit the whole of it" % name)
    cluster.stop()
keep = made(foreign, "keep.gguf", "--type", "keep", "--head", "q8_0")
at, size = tensor_at(keep, MATRIX)
lab.check(read(keep)[at + size - 28:at + size] == b"\xa5" * 28 and keys(keep)["general.file_type"] == 40,
          "--type keep: layers stay byte for byte")

parts = [made(lab.model, "front.gguf", "--layers", "0-2"),
         made(lab.model, "back.gguf", "--layers", "3-%d" % last, "--type", "i2_s")]
cluster = Cluster(lab, 2, layers=["0-2", "3-%d" % last], model=parts)
lab.check(said(lab.model, *cluster.args()) == reference, "workers with slices give the whole model's text")
lab.check(cluster.stop() == [0, 0], "and end cleanly")
path, r = convert(parts[0], "deeper.gguf", "--layers", "2-2")
lab.check(r.code == 0 and os.path.getsize(path) < os.path.getsize(parts[0]), "a slice of a slice", r.errors)
path, r = convert(parts[0], "none.gguf", "--layers", "2-3")
lab.check(r.code == 64 and "layer 3" in r.errors and not os.path.exists(path),
          "layers a slice lacks", r.errors)


# -- what a file must not be ---------------------------------------------------------------------------------
def damaged(name, change, source=exact):
    data = bytearray(read(source))
    change(data)
    return lab.write(name, bytes(data))


at, size = tensor_at(exact, MATRIX)
tq_at, tq_size = tensor_at(lab.path("fable-tq2_0.gguf"), MATRIX)


def put(where, value):
    def change(data):
        data[where:where + len(value)] = value
    return change


bad = [(damaged("code.gguf", put(at, b"\xff")), [MATRIX, "codes"]),
       (damaged("scale.gguf", put(at + size - 32, struct.pack("<f", float("nan")))), [MATRIX, "scale"]),
       (damaged("minus.gguf", put(at + size - 32, struct.pack("<f", -1.0))), [MATRIX, "scale"]),
       (damaged("zero.gguf", put(at + size - 32, struct.pack("<f", 0.0))), [MATRIX, "scale"]),
       (damaged("blocks.gguf", put(tq_at + tq_size - 2, b"\x00\x3c"), lab.path("fable-tq2_0.gguf")),
        [MATRIX, "scale"])]
left = sorted(os.listdir(lab.dir)) + ["new.gguf"]
for path, words in bad:
    out, r = convert(path, "new.gguf")
    lab.check(r.code in range(64, 79) and all(w in r.errors for w in words) and not os.path.exists(out) and
              len(r.errors.strip().split("\n")) == 1, "refused: " + os.path.basename(path), r.errors)
tiny = damaged("tiny.gguf", put(at + size - 32, struct.pack("<f", 1e-9)))
out, r = convert(tiny, "new.gguf", "--type", "tq2_0")
lab.check(r.code in range(64, 79) and "i2_s" in r.errors and not os.path.exists(out),
          "a scale that f16 cannot hold is refused", r.errors)
out, r = convert(tiny, "new.gguf", "--type", "f32")
lab.check(r.code == 0, "and f32 holds it", r.errors)
os.unlink(out)
at_embd, _ = tensor_at(exact, "token_embd.weight")
wide = made(lab.model, "wide.gguf", "--head", "f32")
wide = damaged("wide-2.gguf", put(tensor_at(wide, "token_embd.weight")[0], struct.pack("<f", 1e6)), wide)
out, r = convert(wide, "new.gguf", "--head", "f16")
lab.check(r.code in range(64, 79) and "row 0" in r.errors and "f32" in r.errors,
          "an embedding that F16 cannot hold is refused", r.errors)

# -- mistakes ------------------------------------------------------------------------------------------------
new = lab.path("new.gguf")
for args, words in (([lab.model], ["-o"]), ([lab.model, exact, "-o", new], ["one model too many"]),
                    ([lab.model, "-o", new, "--type", "q8_0"], ["tq2_0", "f32"]),
                    ([lab.model, "-o", new, "--head", "i2_s"], ["--head", "q6_k"]),
                    ([lab.model, "-o", new, "--seed", "1"], ["--seed", "synthetic"]),
                    ([lab.model, "-o", new, "--layers", "6"], ["0 to 5"]),
                    ([lab.model, "-o", new, "--pre", "nonsense"], ["nonsense"]),
                    ([lab.path("nothing.gguf"), "-o", new], ["nothing.gguf"]),
                    ([TEXT, "-o", new], ["fable_validation"]),
                    ([exact, "-o", exact, "--force"], ["itself"]),
                    (["--synthetic", "125m", "-o", new, "--quantize"], ["--quantize"]),
                    ([lab.model, "--synthetic", "125m", "-o", new], ["one at a time"]),
                    ([lab.model, "-o", exact], ["exists", "--force"])):
    r = lab.run("convert", *args)
    lab.check(r.code in range(64, 79) and all(w in r.errors for w in words) and not os.path.exists(new) and
              len(r.errors.strip().split("\n")) == 1, "refused: " + " ".join(args)[-60:],
              "code %s: %s" % (r.code, r.errors))

# -- nothing left behind -------------------------------------------------------------------------------------
before = sorted(os.listdir(lab.dir))
p = subprocess.run([lab.tern, "convert", lab.model, "-o", new, "-q"], stderr=subprocess.PIPE, env=lab.env,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
lab.check(p.returncode in range(64, 79) and b"too large" in p.stderr and
          sorted(os.listdir(lab.dir)) == before, "a file that cannot grow: a sentence and nothing left",
          p.stderr.decode())
big = lab.path("big.gguf")
r = lab.run("convert", "--synthetic", "7b", "--layers", "0-0" if SANITIZED else "0-7", "-o", big, "-q",
            timeout=240)
before = sorted(os.listdir(lab.dir))
p = lab.start("convert", big, "-o", new, "--type", "f32", "-t", 1)
lab.check(wait_until(lambda: any(n.startswith("new.gguf.") for n in os.listdir(lab.dir)), 60),
          "it is written beside its place")
p.send_signal(signal.SIGINT)
out, err = p.communicate(timeout=60)
lab.check(p.returncode == 130 and sorted(os.listdir(lab.dir)) == before, "Ctrl-C leaves nothing behind", err)
lab.end()
