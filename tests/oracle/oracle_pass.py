# SPDX-License-Identifier: Apache-2.0
"""The oracle: every architecture once more, in double precision and numpy, written from the description of
the formats and from nothing else.

Unless `exact` is asked for, two things are not double, because every engine does them so: the scale of a
row's codes and the products that are rounded to them are float32, as the description of bitnet.cpp's
quantiser has them, and K after RoPE and V are rounded to float16, as the cache keeps them.  Integer sums are
exact.
"""
import numpy as np

# Where rows are quantised in a layer; one number where q, k and v, or gate and up, have the same input.
SITES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class Weights:
    """A model as arrays: ternary matrices as float64 of -1, 0, 1 with a scale each, vectors as float64."""

    def __init__(self, family, embd, head, output_norm, layers):
        self.family = family
        self.embd, self.output_norm, self.layers = embd, output_norm, layers
        self.head = embd if head is None else head

    @classmethod
    def of_model(cls, model):
        f = model.family
        layers = []
        for layer in model.layers:
            own = {}
            for name, w in layer.items():
                if hasattr(w, "codes"):
                    t = np.frombuffer(w.codes, np.uint8).reshape(w.rows, w.cols).astype(np.float64) - 1
                    own[name] = (t, w.scale)
                else:
                    own[name] = np.array(w)
            layers.append(own)
        square = lambda v: np.array(v).reshape(f.vocab, f.embd)
        return cls(f, square(model.embd), square(model.head) if model.head else None,
                   np.array(model.output_norm), layers)


def absmean(master):
    """Master weights [m][k] to (ternary, scale) as Hugging Face's online quantisation does: s of a mean in
    float32, halves to even."""
    w = master.astype(np.float32)
    s = np.float32(1) / np.maximum(np.float32(np.abs(w).mean(dtype=np.float64)), np.float32(1e-5))
    t = np.clip(np.rint(w * s), -1, 1).astype(np.float64)
    return t, float(np.float32(1) / s)


def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * w


def quantize(x, exact=False):
    """Rows [n][k] to codes [n][k] and the scale of each row [n], both of float32 arithmetic, or exact."""
    if exact:
        s = 127.0 / np.maximum(np.abs(x).max(axis=-1), 1e-5)
        return np.rint(x * s[:, None]), s
    x = x.astype(np.float32)
    largest = np.maximum(np.abs(x).max(axis=-1).astype(np.float64), 1e-5)
    s = (127.0 / largest).astype(np.float32)
    return np.clip(np.rint(x * s[:, None]), -128, 127).astype(np.int8), s


def activation(kind, x):
    if kind == "relu2":
        return np.maximum(x, 0)**2
    if kind == "gelu":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * x * (1 + 0.044715 * x * x)))
    return x / (1 + np.exp(-x))


def rope(x, positions, family, theta):
    """x [n][heads][d].  The matrices here are never interleaved, so the pairs are j and j + d / 2 for all
    families; files of llama have their rows reordered and turn 2j and 2j + 1, which is the same."""
    d = x.shape[-1]
    j = np.arange(d // 2)
    angle = positions[:, None] * theta**(-2.0 * j / d)
    if family.rope_freqs:
        angle = angle / np.array(family.rope_freqs)
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., :d // 2], x[..., d // 2:]
    return np.concatenate([a * c - b * s, a * s + b * c], axis=-1)


class Pass:
    """A sequence from its first position on.  trace, when given, is called with (layer, site, codes, scales)
    at every quantisation, and returns None or other codes and scales to go on with."""

    def __init__(self, weights, exact=False, trace=None):
        self.w, self.f, self.exact, self.trace = weights, weights.family, exact, trace

    def linear(self, layer, site, x, names):
        """x through the matrices `names`, which share its codes."""
        codes, s = quantize(x, self.exact)
        if self.trace:
            other = self.trace(layer, site, codes, s)
            codes, s = (codes, s) if other is None else other
        out = []
        for name in names:
            t, scale = self.w.layers[layer][name]
            out.append((codes.astype(np.float64) @ t.T) / s.astype(np.float64)[:, None] * scale)
        return out

    def inputs(self, layer, x, names):
        """x through several matrices: with their own norms and codes when the family has such norms."""
        if "input" in self.f.norms:
            return [self.linear(layer, n, rms_norm(x, self.w.layers[layer][n + "_norm_in"], self.f.eps),
                                [n])[0] for n in names]
        return self.linear(layer, names[0], x, names)

    def attention(self, q, k, v, window):
        """Causal, over the last `window` positions if it is not 0; each of the KV heads serves neighbouring
        query heads: [n][heads * d]."""
        f, n = self.f, len(q)
        if not self.exact:
            k, v = (a.astype(np.float32).astype(np.float16).astype(np.float64) for a in (k, v))
        share = f.heads // f.kv_heads
        out = np.empty_like(q)
        mask = np.triu(np.full((n, n), -np.inf), 1)
        if window:
            mask += np.tril(np.full((n, n), -np.inf), -window)
        for h in range(f.heads):
            score = q[:, h] @ k[:, h // share].T / np.sqrt(f.head_dim) + mask
            p = np.exp(score - score.max(axis=-1, keepdims=True))
            out[:, h] = p / p.sum(axis=-1, keepdims=True) @ v[:, h // share]
        return out.reshape(n, -1)

    def layer(self, i, x):
        """x [n][embd], positions 0 .. n - 1."""
        f, w = self.f, self.w.layers[i]
        n = len(x)
        q, k, v = self.inputs(i, rms_norm(x, w["attn_norm"], f.eps), ["attn_q", "attn_k", "attn_v"])
        q = q.reshape(n, f.heads, f.head_dim)
        k = k.reshape(n, f.kv_heads, f.head_dim)
        v = v.reshape(n, f.kv_heads, f.head_dim)
        if "qk" in f.norms:
            q, k = rms_norm(q, w["attn_q_norm"], f.eps), rms_norm(k, w["attn_k_norm"], f.eps)
        positions = np.arange(n, dtype=np.float64)
        theta, window = (f.theta_swa, f.window) if i in f.slides else (f.theta, 0)
        a = self.attention(rope(q, positions, f, theta), rope(k, positions, f, theta), v, window)
        if "sub" in f.norms:
            a = rms_norm(a, w["attn_sub_norm"], f.eps)
        o, = self.inputs(i, a, ["attn_output"])
        x = x + (rms_norm(o, w["post_attention_norm"], f.eps) if "post" in f.norms else o)
        gate, up = self.inputs(i, rms_norm(x, w["ffn_norm"], f.eps), ["ffn_gate", "ffn_up"])
        h = activation(f.activation, gate) * up
        if "sub" in f.norms:
            h = rms_norm(h, w["ffn_sub_norm"], f.eps)
        down, = self.inputs(i, h, ["ffn_down"])
        return x + (rms_norm(down, w["post_ffw_norm"], f.eps) if "post" in f.norms else down)

    def embed(self, ids):
        return self.w.embd[ids] * self.f.embd_scale

    def hidden(self, ids):
        """Behind the output norm."""
        x = self.embed(ids)
        for i in range(len(self.w.layers)):
            x = self.layer(i, x)
        return rms_norm(x, self.w.output_norm, self.f.eps)

    def logits(self, ids):
        """[n][vocab]: of position i what comes after ids 0 .. i."""
        return self.hidden(ids) @ self.w.head.T

    def vector(self, ids, pooling="last"):
        """What a text is embedded as, of length 1."""
        h = self.hidden(ids)
        v = {"last": h[-1], "cls": h[0], "mean": h.mean(axis=0)}[pooling]
        return v / np.sqrt(v @ v)
