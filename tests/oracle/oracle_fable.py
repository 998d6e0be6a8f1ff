# SPDX-License-Identifier: Apache-2.0
"""oracle_fable.py FABLE: the oracle on the trained model.  FABLE is the folder with fable.gguf, hf/,
golden.json and validation.txt.

Prints how near golden.json it comes, that the master weights quantise to what the GGUF file has, and the
perplexity of validation.txt.  Needs numpy."""
import json
import os
import re
import struct
import sys

import numpy as np

from oracle_pass import Pass, Weights, absmean
from tiny import RELU2, Family

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
         "ffn_norm": "post_attention_layernorm", "attn_sub_norm": "self_attn.attn_sub_norm",
         "ffn_sub_norm": "mlp.ffn_sub_norm"}


class Gguf:
    """Just enough of a reader: numbers and tensors of F32, F16 and I2_S (layout A)."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 4
        _, n_tensors, n_keys = self.take("IQQ")
        self.keys = {}
        for _ in range(n_keys):
            name = self.string()
            self.keys[name] = self.value(*self.take("I"))
        self.tensors = {}
        for _ in range(n_tensors):
            name = self.string()
            ne = self.take("%dQ" % self.take("I")[0])
            self.tensors[name] = (ne[::-1],) + self.take("IQ")
        self.start = (self.at + 31) // 32 * 32

    def take(self, form):
        out = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return out

    def string(self):
        n, = self.take("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            own, n = self.take("IQ")
            return [self.value(own) for _ in range(n)]
        return self.take(self.SCALARS[kind])[0]

    def tensor(self, name):
        shape, kind, offset = self.tensors[name]
        n = int(np.prod(shape))
        at = self.start + offset
        if kind in (0, 1):
            return np.frombuffer(self.data, "<f4" if kind == 0 else "<f2", n, at).astype(float).reshape(shape)
        assert kind == 36, "type %d" % kind
        b = np.frombuffer(self.data, np.uint8, n // 4, at).reshape(-1, 1, 32)
        t = (b >> np.array([6, 4, 2, 0], np.uint8)[None, :, None] & 3).reshape(shape).astype(float) - 1
        return t, float(np.frombuffer(self.data, "<f4", 1, at + n // 4)[0])


def of_gguf(path):
    g = Gguf(path)
    k = lambda name: g.keys["bitnet-b1.58." + name]
    f = Family("fable", "bitnet-b1.58", k("embedding_length"), k("feed_forward_length"),
               k("attention.head_count"), k("attention.head_count_kv"), k("rope.dimension_count"),
               g.tensors["token_embd.weight"][0][0], layers=k("block_count"), theta=k("rope.freq_base"),
               eps=float("%.6g" % k("attention.layer_norm_rms_epsilon")), activation=RELU2, norms=("sub",),
               tied=True)
    layers = [{n: g.tensor("blk.%d.%s.weight" % (i, n)) for n in NAMES} for i in range(f.layers)]
    return Weights(f, g.tensor("token_embd.weight"), None, g.tensor("output_norm.weight"), layers)


def safetensors(path):
    """Name to float array, of bf16."""
    with open(path, "rb") as f:
        raw = f.read()
    n, = struct.unpack_from("<Q", raw)
    found = {}
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__":
            assert t["dtype"] == "BF16"
            a, b = t["data_offsets"]
            u = np.frombuffer(raw, "<u2", (b - a) // 2, 8 + n + a).astype(np.uint32) << 16
            found[name] = u.view(np.float32).reshape(t["shape"])
    return found


def compare_masters(weights, path):
    master = safetensors(path)
    equal, worst = True, 0.0
    for i, layer in enumerate(weights.layers):
        for name, w in layer.items():
            if isinstance(w, tuple):
                t, scale = absmean(master["model.layers.%d.%s.weight" % (i, NAMES[name])])
                equal = equal and np.array_equal(t, w[0])
                worst = max(worst, abs(scale / w[1] - 1))
    print("master weights: ternary values %s, scales within %.1e" %
          ("equal" if equal else "DIFFER", worst))
    return equal and worst < 1e-6


def compare_golden(weights, golden):
    n = same = 0
    off = []
    for p in golden["prompts"]:
        ids = np.array(p["ids"][:len(p["top5"])])
        logits = Pass(weights, exact=True).logits(ids)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for row, top in zip(logits, p["top5"]):
            n += 1
            same += int(row.argmax()) == top[0][0]
            off += [abs(row[i] - value) for i, value in top]
    print("golden: %d of %d first choices equal, log-probabilities at most %.5f off, median %.6f" %
          (same, n, max(off), float(np.median(off))))
    return same == n and max(off) < 1e-4


def encode(text, tokenizer):
    """Byte-level BPE; the pre-tokenizer's expression in the words of the standard library."""
    vocab = tokenizer["model"]["vocab"]
    merges = tokenizer["model"]["merges"]
    rank = {tuple(m.split(" ") if isinstance(m, str) else m): i for i, m in enumerate(merges)}
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {b: chr(b) for b in plain}
    letters.update((b, chr(0x100 + i)) for i, b in enumerate(b for b in range(256) if b not in plain))
    expression = (r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}|"
                  r" ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    ids, known = [], {}
    for piece in re.findall(expression, text):
        if piece not in known:
            s = [letters[b] for b in piece.encode()]
            whole = "".join(s)
            while len(s) > 1 and whole not in vocab:
                best, i = min((rank.get(p, 1 << 30), i) for i, p in enumerate(zip(s, s[1:])))
                if best == 1 << 30:
                    break
                s[i:i + 2] = [s[i] + s[i + 1]]
            known[piece] = [vocab[whole]] if whole in vocab else [vocab[c] for c in s]
        ids += known[piece]
    return ids


def perplexity(weights, ids, bos, n_ctx, exact):
    """The second half of each chunk predicts, from an empty cache that begins with BOS."""
    loss = []
    for at in range(0, len(ids) - n_ctx + 1, n_ctx):
        chunk = np.array([bos] + ids[at + 1:at + n_ctx])
        logits = Pass(weights, exact).logits(chunk)[n_ctx // 2:n_ctx - 1]
        top = logits.max(axis=1)
        norm = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        loss.append(norm - logits[np.arange(len(logits)), chunk[n_ctx // 2 + 1:]])
    loss = np.concatenate(loss)
    return float(np.exp(loss.mean())), len(loss)


def main():
    folder = sys.argv[1]
    weights = of_gguf(os.path.join(folder, "fable.gguf"))
    with open(os.path.join(folder, "golden.json"), encoding="utf-8") as f:
        golden = json.load(f)
    good = compare_masters(weights, os.path.join(folder, "hf", "model.safetensors"))
    good = compare_golden(weights, golden) and good
    with open(os.path.join(folder, "hf", "tokenizer.json"), encoding="utf-8") as f:
        tokenizer = json.load(f)
    with open(os.path.join(folder, "validation.txt"), encoding="utf-8", newline="") as f:
        ids = [golden["bos"]] + encode(f.read(), tokenizer)
    want = golden["perplexity"]
    print("tokens of validation.txt: %d, golden %d" % (len(ids), want["n_tokens"]))
    for exact in (True, False):
        ppl, n = perplexity(weights, ids, golden["bos"], want["n_ctx"], exact)
        print("perplexity, %s: %.5f of %d predictions; golden %.5f of %d" %
              ("exact" if exact else "float32 codes and f16 KV", ppl, n, want["ppl"], want["predictions"]))
        good = good and abs(ppl / want["ppl"] - 1) < 1e-3 and n == want["predictions"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
