# SPDX-License-Identifier: Apache-2.0
"""Goldens of the tiny models.  The format is little-endian and described by the code that writes it.  Needs
numpy."""
import json
import random
import struct

import numpy as np

from oracle_pass import SITES, Pass, Weights
from vocabulary import Vocabulary

N_IDS = 200     # teacher-forced
LOGITS_EVERY = 4  # logits are kept of every so many positions, the first choice and its margin of all
N_ROWS = 8      # of the layer by layer comparison
TEXTS = ["the king", "the youngest of them was the fairest in all the land", "an old woman sat mending a net"]


def ids_of(family):
    rng = random.Random("ids " + family.name)
    return np.array([rng.randrange(family.vocab) for _ in range(N_IDS)])


def spread(logits):
    """Of logits over the vocabulary, over all positions."""
    return float(np.sqrt(logits.var(axis=1).mean()))


def make(model, path):
    f = model.family
    weights = Weights.of_model(model)
    ids = ids_of(f)
    logits = Pass(weights).logits(ids)
    order = np.sort(logits, axis=1)
    seen = []
    rows = Pass(weights, trace=lambda *site: seen.append(site))
    x = [rows.embed(ids[:N_ROWS]).astype(np.float32)]
    for i in range(f.layers):  # each layer is fed what a float32 can hold
        x.append(rows.layer(i, x[-1].astype(np.float64)).astype(np.float32))
    out = struct.pack("<8s8I", b"TERNORA1", f.layers, f.embd, f.vocab, N_IDS, LOGITS_EVERY, N_ROWS,
                      len(seen) // f.layers, int(f.embedding))
    out += bytes.fromhex(model.digest())
    out += struct.pack("<f", spread(logits))
    out += ids.astype("<i4").tobytes()
    out += logits.argmax(axis=1).astype("<i4").tobytes()
    out += (order[:, -1] - order[:, -2]).astype("<f4").tobytes()
    out += logits[::LOGITS_EVERY].astype("<f2").tobytes()
    for state in x:  # in front of layer 0, between, and behind the last
        out += state.astype("<f4").tobytes()
    for layer, site, codes, scales in seen:  # [layer][site]
        out += struct.pack("<III", layer, SITES.index(site), codes.shape[1])
        out += scales.astype("<f4").tobytes() + codes.tobytes()
    with open(path, "wb") as file:
        file.write(out)


def make_vectors(model, path):
    """What some texts are embedded as: by the last position, and the second also in other ways."""
    found = []
    for i, pooling in ((0, "last"), (1, "last"), (2, "last"), (1, "mean"), (1, "cls")):
        ids = Vocabulary(model.family).encode(TEXTS[i])
        vector = Pass(Weights.of_model(model)).vector(np.array(ids), pooling)
        found.append({"text": TEXTS[i], "pooling": pooling, "ids": ids,
                      "vector": [round(float(v), 6) for v in vector]})
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"digest": model.digest(), "texts": found}, file)
        file.write("\n")
