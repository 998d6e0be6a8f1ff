# SPDX-License-Identifier: Apache-2.0
"""Every architecture: the same text and logit bits in one process and on workers, whole files and slices; and
a slice that lacks the model's RoPE factors is another model.
"""
import os

from lab import Cluster, Lab

PROMPT = "Once upon a time there was a king who had three daughters"
LAYERS = 4
# Shapes with the awkward dimensions of their family.
FAMILIES = {
    "large": "--arch bitnet --embd 192 --ffn 512 --heads 2 --kv-heads 2 --head-dim 96",
    "3b": "--arch bitnet --ffn 8640 --heads 2 --kv-heads 2 --head-dim 100 --scales",
    "llama3": "--arch llama --untied --rope-freqs",
    "falcon3": "--arch llama --untied --ffn 640 --heads 3 --kv-heads 1 --head-dim 256",
    "qwen3": "--arch qwen3 --no-input-norms --heads 2 --kv-heads 1 --head-dim 128",
    "gemma3": "--arch gemma3 --no-input-norms --kv-heads 1 --head-dim 256",
}

lab = Lab()


def make(name, *args):
    path = lab.path(name + ".gguf")
    r = lab.run(*args, path, program=os.path.join(lab.build, "bin", "make_model"))
    if r.code != 0:
        raise SystemExit("make_model failed: " + r.errors)
    return path


def run(model, *args):
    """The run, its text and the bits of its logits."""
    file = lab.path("logits")
    r = lab.run("run", "-m", model, "-p", PROMPT, "-n", 12, "--temp", 0, "--logits-out", file, *args)
    bits = b""
    if os.path.exists(file):
        with open(file, "rb") as f:
            bits = f.read()
        os.unlink(file)
    return r, (r.out, bits)


def make_shape(name, shape):
    return make(name, "--layers", LAYERS, "--varied-norms", "--tokenizer", lab.model, *shape.split())


for name, shape in FAMILIES.items():
    model = make_shape(name, shape)
    r, first = run(model)
    lab.check(r.code == 0 and len(first[1]) >= 12 * 4096 * 4, name + ": a text in one process", r.errors)
    for args in (["--local", 2], ["--local", 3, "--split", "1,1,2"], ["--cpu", "ref", "--chunk", 3]):
        r, other = run(model, *args)
        lab.check(r.code == 0 and other == first,
                  "%s: the same text and bits with %s" % (name, " ".join(map(str, args))), r.errors)

# Each worker has its slice and the factors, which every slice has.
model = lab.path("llama3.gguf")
slices = [make(span, "--slice", span, model) for span in ("0-1", "2-3")]
cluster = Cluster(lab, 2, tag="slices-", layers=["0-1", "2-3"], model=slices)
r, other = run(model, *cluster.args())
r, first = run(model)
lab.check(r.code == 0 and other == first, "RoPE factors: the same text and bits with slices", r.errors)
cluster.stop()
bare = make_shape("bare", "--arch llama --untied")
r, other = run(bare)
lab.check(r.code == 0 and other != first, "RoPE factors make a difference", r.errors)
slices[1] = make("bare-slice", "--slice", "2-3", bare)
cluster = Cluster(lab, 2, tag="bare-", layers=["0-1", "2-3"], model=slices)
r, other = run(model, *cluster.args())
lab.check(r.code != 0 and "hyper-parameters" in r.errors and cluster.names[1] in r.errors,
          "RoPE factors: the worker whose slice lacks them is named", r.errors)
cluster.stop()
lab.end()
