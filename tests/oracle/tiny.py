# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every family with the family's awkward dimensions, made of a seed.  Standard library only.

A model is one set of ternary matrices, norms and embeddings; files of every kind are made of it, and all of
them mean exactly the same numbers, so that their logits are equal to the bit:

- Master weights are whole numbers times a power of two, of at most eight significant bits: exact as bf16, f16
  and f32.  The sum of their magnitudes is a multiple of their count, and small enough for any order of
  additions in float32 to be exact, so the absmean scale is a number of six bits, exact as f16.
- Norms and embeddings have at most eight significant bits too.
- The falcon3 model is the exception: its scales are reciprocals of bf16 numbers, as its publisher's are, and
  so the f16 scales of TQ files are rounded (exact_tq is false).
"""
import hashlib
import math
import random
import struct

RELU2, SILU, GELU = "relu2", "silu", "gelu"


class Family:
    """Hyper-parameters.  norms: sub, qk, post, input."""

    def __init__(self, name, arch, embd, ffn, heads, kv_heads, head_dim, vocab, **more):
        self.name, self.arch = name, arch
        self.embd, self.ffn, self.heads, self.kv_heads, self.head_dim = embd, ffn, heads, kv_heads, head_dim
        self.vocab, self.layers = vocab, 3
        self.theta, self.eps, self.activation = 10000.0, 1e-5, SILU
        self.norms, self.tied, self.neox = (), False, True
        self.window = 0  # positions a row sees in layers of `slides`, its own included
        self.slides, self.theta_swa = (), 10000.0
        self.rope_freqs = None  # divisors of the angles, head_dim / 2 of them
        self.embd_scale = 1.0
        self.embedding = False  # answers with one vector: the last position's, of length 1
        self.tokenizer = "llama-bpe"
        self.exact_tq = True
        self.files = ("i2_s",)
        self.folders = ()
        self.__dict__.update(more)

    def matrices(self):
        """(GGUF name, rows, columns) of the seven matrices of a layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [("attn_q", q, self.embd), ("attn_k", kv, self.embd), ("attn_v", kv, self.embd),
                ("attn_output", self.embd, q), ("ffn_gate", self.ffn, self.embd),
                ("ffn_up", self.ffn, self.embd), ("ffn_down", self.embd, self.ffn)]

    def vectors(self):
        """(GGUF name, elements) of the norms of a layer."""
        q = self.heads * self.head_dim
        found = [("attn_norm", self.embd), ("ffn_norm", self.embd)]
        if "sub" in self.norms:
            found += [("attn_sub_norm", q), ("ffn_sub_norm", self.ffn)]
        if "qk" in self.norms:
            found += [("attn_q_norm", self.head_dim), ("attn_k_norm", self.head_dim)]
        if "post" in self.norms:
            found += [("post_attention_norm", self.embd), ("post_ffw_norm", self.embd)]
        if "input" in self.norms:
            found += [("attn_q_norm_in", self.embd), ("attn_k_norm_in", self.embd),
                      ("attn_v_norm_in", self.embd), ("attn_output_norm_in", q),
                      ("ffn_gate_norm_in", self.embd), ("ffn_up_norm_in", self.embd),
                      ("ffn_down_norm_in", self.ffn)]
        return found


def f32(x):
    """x rounded to float32."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


LLAMA31 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}


def llama31_factors(theta, d, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings):
    """What the angle of each pair is divided by: waves that go round more often than high_freq_factor times
    in the original context keep their frequency, those that do less than low_freq_factor times are stretched
    by factor, and in between it goes smoothly from one to the other."""
    found = []
    for j in range(d // 2):
        turns = original_max_position_embeddings / (2 * math.pi * theta**(2 * j / d))
        smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
        smooth = min(1.0, max(0.0, smooth))
        found.append(f32(1 / ((1 - smooth) / factor + smooth)))
    return found


ALL = ("i2_s", "tq1_0", "tq2_0", "tl1", "tl2", "f16")
FAMILIES = [
    # BitNet-b1.58-2B-4T: four query heads to a KV head, tied.
    Family("b158", "bitnet-b1.58", 256, 512, 4, 1, 64, 320, theta=500000.0, activation=RELU2, norms=("sub",),
           tied=True, files=ALL + ("i2_s-b", "i2_s-c", "f32", "bf16", "split"),
           folders=("hf-bf16", "hf-packed")),
    # bitnet_b1_58-3B: heads of 100, an ffn that is no multiple of 128.
    Family("bitnet-3b", "bitnet", 400, 544, 4, 4, 100, 331, norms=("sub",), tied=True, tokenizer="spm",
           files=("i2_s", "tl1", "f16", "scale"), folders=("hf-f16-sharded",)),
    # bitnet_b1_58-large, in dimensions that every type can have.
    Family("bitnet-large", "bitnet", 256, 512, 8, 8, 32, 331, norms=("sub",), tied=True, tokenizer="spm",
           files=ALL + ("scale", "i2_s-q8"), folders=("hf-f32",)),
    Family("llama3", "llama", 256, 768, 4, 1, 64, 320, theta=500000.0, neox=False, files=ALL,
           folders=("hf-packed",)),
    # Frequency factors as of Llama 3.1: a tensor in GGUF files, four numbers in config.json.
    Family("llama31", "llama", 256, 512, 4, 2, 64, 320, theta=500000.0, neox=False,
           rope_freqs=llama31_factors(500000.0, 64, **LLAMA31), folders=("hf-packed",)),
    Family("falcon3", "llama", 512, 512, 2, 1, 256, 330, theta=1000042.0, eps=1e-6, neox=False,
           tokenizer="falcon3", exact_tq=False, files=ALL[:5], folders=("hf-packed",)),
    Family("falcon-e", "llama", 256, 768, 8, 1, 32, 320, neox=False, tokenizer="falcon_e", files=ALL,
           folders=("hf-packed", "hf-bf16")),
    # bitnet-embedding-0.6b: more in the heads than in the stream.
    Family("qwen3", "qwen3", 256, 768, 4, 2, 128, 320, theta=1e6, eps=1e-6, norms=("qk", "input"), tied=True,
           tokenizer="qwen2", embedding=True, files=ALL[:3], folders=("hf-bf16",)),
    # bitnet-embedding-270m: hidden size no multiple of 256, so no TQ types.
    Family("gemma3", "gemma3", 320, 512, 2, 1, 256, 330, eps=1e-6, activation=GELU,
           norms=("qk", "post", "input"), tied=True, tokenizer="spm", embedding=True, embd_scale=320**0.5,
           files=("i2_s",), folders=("hf-bf16",)),
    # Gemma's two kinds of layers: most see a window and turn faster.
    Family("gemma3-window", "gemma3", 256, 256, 2, 1, 64, 331, theta=1e6, eps=1e-6, activation=GELU,
           norms=("qk", "post", "input"), tied=True, tokenizer="spm", embd_scale=16.0, window=5,
           slides=(0, 2), files=("i2_s",), folders=("hf-bf16",)),
]


def bf16_bits(x):
    """The upper half of float32, rounded to nearest even."""
    u = struct.unpack("<I", struct.pack("<f", x))[0]
    return (u + 0x7FFF + (u >> 16 & 1)) >> 16


def bf16(x):
    return struct.unpack("<f", struct.pack("<I", bf16_bits(x) << 16))[0]


class Matrix:
    """rows x cols.  codes: one byte a weight, its ternary value plus 1; scale: what 1 stands for.  raw and
    values: the master weight of element i is values[raw[i]] * unit."""

    def __init__(self, rng, rows, cols, reciprocal):
        self.rows, self.cols = rows, cols
        n = rows * cols
        unit, mean = self.choose(rng, cols)
        # Magnitudes evenly from 0 to twice the mean; the lowest bit is the sign.
        self.values = [((b >> 1) * 4 * mean + 127) // 254 * (1 - 2 * (b & 1)) for b in range(256)]
        size = bytes(abs(v) for v in self.values)
        raw = bytearray(rng.randbytes(n))
        self.settle(raw, size, n * mean - sum(raw.translate(size)))
        self.raw, self.unit = bytes(raw), unit
        assert sum(self.raw.translate(size)) == n * mean and n * mean < 1 << 24
        self.codes = self.raw.translate(bytes(2 if 2 * v > mean else 0 if 2 * v < -mean else 1
                                              for v in self.values))
        self.scale = mean * unit
        self.weight_scale = f32(1 / self.scale)  # as publishers divide by it
        if reciprocal:
            self.weight_scale = bf16(self.weight_scale)
            self.scale = f32(1 / self.weight_scale)
        assert f32(1 / self.weight_scale) == self.scale

    @staticmethod
    def choose(rng, cols):
        """A power of two and an odd number whose product keeps activations near 1, and is what the
        reciprocal of its reciprocal is in float32."""
        want = (0.75 * cols)**-0.5
        unit = 1.0
        while unit * 64 > want:
            unit /= 2
        unit *= 2 if want / unit > 57 else 1
        while True:
            mean = rng.randrange(41, 64, 2)
            if f32(1 / f32(1 / (mean * unit))) == mean * unit:
                return unit, mean

    @staticmethod
    def settle(raw, size, missing):
        """Changes elements until the sum of magnitudes is what is missing larger."""
        top = max(size)
        level = {v: b for b, v in enumerate(size)}
        i = 0
        while missing:
            have = size[raw[i]]
            want = max(0, min(top, have + missing))
            raw[i] = level[want] & 0xFE | raw[i] & 1
            missing -= want - have
            i += 7
        assert i < len(raw)


class Model:
    def __init__(self, family):
        self.family = family
        self.rng = random.Random("tern " + family.name)
        step = 1.0 / (4096 if family.embd_scale != 1.0 else 512)
        self.embd = self.grid(family.vocab * family.embd, step)
        self.head = None if family.tied else self.grid(family.vocab * family.embd, step)
        self.output_norm = self.norm(family.embd)
        self.layers = []
        for _ in range(family.layers):
            layer = {name: Matrix(self.rng, rows, cols, not family.exact_tq)
                     for name, rows, cols in family.matrices()}
            layer.update((name, self.norm(n)) for name, n in family.vectors())
            self.layers.append(layer)

    def grid(self, n, step):
        """n numbers i * step with i in -127 .. 127."""
        table = [(max(b, 1) - 128) * step for b in range(256)]
        return [table[b] for b in self.rng.randbytes(n)]

    def norm(self, n):
        """0.5 .. 1.5 in steps of 1 / 128: one less has eight bits as well."""
        return [0.5 + (b >> 1) / 128 for b in self.rng.randbytes(n)]

    def digest(self):
        """Of all weights: goldens name the model they were computed of by it."""
        h = hashlib.sha256()
        pack = lambda v: struct.pack("<%df" % len(v), *v)
        h.update(pack(self.embd) + pack(self.head or []) + pack(self.output_norm))
        for layer in self.layers:
            for name in sorted(layer):
                w = layer[name]
                h.update(w.codes + struct.pack("<f", w.scale) if isinstance(w, Matrix) else pack(w))
        return h.hexdigest()
