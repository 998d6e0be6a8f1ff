# SPDX-License-Identifier: Apache-2.0
"""Workers whose file holds a slice of the model only: the same text as in one process, what they say they
have, what they refuse, and that a slice of another model is noticed."""
import json
import os
import re

from lab import Cluster, Lab, soonest

lab = Lab()
ASK = ["run", "-n", 24, "--temp", 0, "-p", "Once upon a time", "--logprobs", 3, "--json"]


def cut(span, source=None):
    path = lab.path("slice-%s%s.gguf" % (span, "-other" if source else ""))
    r = lab.run("--slice", span, source or lab.model, path,
                program=os.path.join(lab.build, "bin", "make_model"))
    if r.code != 0:
        raise SystemExit("make_model failed: " + r.errors)
    return path


def sliced(tag, files, layers=None):
    """Workers on a file each."""
    return Cluster(lab, len(files), tag=tag, layers=layers, model=files)


def texts(r):
    """What must not depend on where the layers are: tokens and their probabilities, not times."""
    return re.findall(r'"(?:text|id|logprob)": *("(?:[^"\\]|\\.)*"|[-0-9.e+]+)', r.text)


reference = lab.run(*ASK)
lab.check(reference.code == 0 and len(texts(reference)) > 24, "one process tells the story", reference.errors)
keys = json.loads(lab.run("inspect", "-m", lab.model, "--json").text)["metadata"]
last = next(k["value"] for k in keys if k["key"].endswith(".block_count")) - 1

# Each worker holds what it computes and nothing else.
cluster = sliced("exact-", [cut("0-1"), cut("2-%d" % last)], ["0-1", "2-%d" % last])
r = lab.run(*ASK, *cluster.args())
lab.check(r.code == 0 and texts(r) == texts(reference), "slices that fit exactly: the same text and figures",
          r.errors)

# The slice stays loaded for the next coordinator.
r = lab.run(*ASK, *cluster.args())
lab.check(r.code == 0 and texts(r) == texts(reference), "the same workers serve a second time", r.errors)
lab.check(cluster.workers[0].count(r"loads=1\b") == 2 and cluster.workers[0].count(r"loads=2") == 0,
          "the slice was loaded once", cluster.workers[0].log())

# Layers that the file of the second worker does not have.
wrong = cluster.describe(["0-0", "1-%d" % last], name="wrong-cluster")
r = lab.run(*ASK, "--cluster", wrong, "--key", cluster.key)
lab.check(r.code != 0 and cluster.names[1] in r.errors and "layers 2 to %d" % last in r.errors and
          soonest(r, 5) <= 5, "a layer that a slice lacks: the worker and its layers are named", r.errors)
lab.check(cluster.stop() == [0, 0], "workers on slices end cleanly")

# A slice with more than is asked of it, beside a whole file.
cluster = sliced("more-", [lab.model, cut("1-%d" % last)], ["0-2", "3-%d" % last])
r = lab.run(*ASK, *cluster.args())
lab.check(r.code == 0 and texts(r) == texts(reference), "a slice larger than its layers, beside a whole file",
          r.errors)
cluster.stop()

# The same hyper-parameters but other weights: one byte of one tensor.
good = cut("2-%d" % last)
with open(good, "rb") as f:
    data = bytearray(f.read())
data[len(data) - len(data) // 3] ^= 0x01
bad = lab.write("slice-damaged.gguf", bytes(data))
cluster = sliced("bad-", [cut("0-1"), bad], ["0-1", "2-%d" % last])
r = lab.run(*ASK, *cluster.args())
lab.check(r.code != 0 and cluster.names[1] in r.errors and re.search(r"tensor 'blk\.\d+\.\S+'", r.errors) and
          "differs" in r.errors and soonest(r, 5) <= 5,
          "another byte in a slice: the tensor is named", r.errors)
cluster.stop()

# A slice cannot be what the coordinator runs from: it has no embedding.
r = lab.run(*ASK, "-m", cut("0-1"))
lab.check(r.code in range(64, 79) and len(r.errors.strip().split("\n")) == 1,
          "a slice as the coordinator's model: one sentence", r.errors)
lab.end()
