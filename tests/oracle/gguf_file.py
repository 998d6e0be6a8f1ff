# SPDX-License-Identifier: Apache-2.0
"""GGUF files of tiny models, written by hand.  Standard library only."""
import os
import struct

import layouts
from tiny import Matrix, bf16_bits
from vocabulary import Vocabulary

F32, F16, Q8_0, TQ1_0, TQ2_0, I2_S, TL1, TL2, BF16 = 0, 1, 8, 34, 35, 36, 38, 39, 30
U16, U32, I32, FLOAT, BOOL, STRING, ARRAY = 2, 4, 5, 6, 7, 8, 9
FILE_TYPES = {I2_S: 40, TQ1_0: 36, TQ2_0: 37, TL1: 38, TL2: 39, F16: 1, F32: 0, BF16: 32}
ALIGN = 32


def text(s):
    data = s.encode()
    return struct.pack("<Q", len(data)) + data


def key(name, value):
    """One record; the type follows from the value: ints are u32, lists what their first element is."""
    if isinstance(value, tuple):  # (type, format, value)
        return text(name) + struct.pack("<I" + value[1], value[0], value[2])
    if isinstance(value, bool):
        return text(name) + struct.pack("<IB", BOOL, value)
    if isinstance(value, int):
        return text(name) + struct.pack("<II", U32, value)
    if isinstance(value, float):
        return text(name) + struct.pack("<If", FLOAT, value)
    if isinstance(value, str):
        return text(name) + struct.pack("<I", STRING) + text(value)
    kind = {str: STRING, int: I32, float: FLOAT}[type(value[0])]
    body = b"".join(map(text, value)) if kind == STRING else struct.pack(
        "<%d%s" % (len(value), "i" if kind == I32 else "f"), *value)
    return text(name) + struct.pack("<IIQ", ARRAY, kind, len(value)) + body


def write(path, keys, tensors):
    """tensors: (name, ne, type, bytes)."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)) + b"".join(key(*k) for k in keys)
    offset, data = 0, bytearray()
    for name, ne, kind, body in tensors:
        head += text(name) + struct.pack("<I%dQIQ" % len(ne), len(ne), *ne, kind, offset)
        data += body + bytes(-len(body) % ALIGN)
        offset = len(data)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGN) + data)


def floats(values, kind):
    if kind == BF16:
        return struct.pack("<%dH" % len(values), *map(bf16_bits, values))
    return struct.pack("<%d%s" % (len(values), {F32: "f", F16: "e"}[kind]), *values)


def q8_0(values):
    """Of numbers that are whole multiples of one power of two, at most 127 of it: nothing is lost."""
    step = min(abs(v) for v in values if v)
    out = bytearray()
    for i in range(0, len(values), 32):
        out += struct.pack("<e32b", step, *(int(v / step) for v in values[i:i + 32]))
    return bytes(out)


def interleaved(w, heads):
    """The codes of q or k, the rows of each head in the order GGUF's llama has: 0, d/2, 1, d/2 + 1, ..."""
    d = w.rows // heads
    rows = [h * d + j + half for h in range(heads) for j in range(d // 2) for half in (0, d // 2)]
    return b"".join(w.codes[r * w.cols:(r + 1) * w.cols] for r in rows)


def matrix_bytes(codes, w, kind, scale, i2s_layout):
    m, k = w.rows, w.cols
    if kind == I2_S:
        return layouts.i2s(codes, m, k, scale, i2s_layout)
    if kind in (TQ1_0, TQ2_0):
        return (layouts.tq1_0 if kind == TQ1_0 else layouts.tq2_0)(codes, m, k, scale)
    if kind == TL1:
        return layouts.tl1(codes, m, k, scale, layouts.tl1_tiles(m, k))
    if kind == TL2:
        return layouts.tl2(codes, m, k, scale, layouts.tl2_tiles(m, k))
    three = [floats([(c - 1) * scale], kind) for c in range(3)]
    return b"".join(three[c] for c in codes)


def metadata(model, kind):
    f = model.family
    a = f.arch
    keys = [("general.architecture", a), ("general.name", "tiny " + f.name),
            (a + ".vocab_size", f.vocab), (a + ".context_length", 1024), (a + ".embedding_length", f.embd),
            (a + ".block_count", f.layers), (a + ".feed_forward_length", f.ffn),
            (a + ".rope.dimension_count", f.head_dim), (a + ".attention.head_count", f.heads),
            (a + ".attention.head_count_kv", f.kv_heads),
            (a + ".attention.layer_norm_rms_epsilon", f.eps), (a + ".rope.freq_base", f.theta),
            ("general.file_type", FILE_TYPES[kind]), ("general.quantization_version", 2)]
    if a == "bitnet":
        keys += [(a + ".rope.scaling.type", "linear"), (a + ".rope.scaling.factor", 1.0)]
    if f.window:
        full = [i + 1 for i in range(f.layers) if i not in f.slides]
        keys += [(a + ".attention.sliding_window", f.window), (a + ".rope.freq_base_swa", f.theta_swa),
                 (a + ".attention.sliding_window_pattern", full[0])]
        assert full == list(range(full[0], f.layers + 1, full[0]))  # every full[0]-th sees all
    if f.embedding:
        keys += [(a + ".attention.key_length", f.head_dim), (a + ".attention.value_length", f.head_dim),
                 (a + ".pooling_type", 3)]
    return keys + Vocabulary(f).gguf_keys()


def tensors_of(model, kind, i2s_layout, scale_tensors, embd_kind):
    f = model.family
    norm_kind = F16 if f.embedding else F32
    embd = q8_0(model.embd) if embd_kind == Q8_0 else floats(model.embd, embd_kind)
    out = [("token_embd.weight", (f.embd, f.vocab), embd_kind, embd),
           ("output_norm.weight", (f.embd,), norm_kind, floats(model.output_norm, norm_kind))]
    if model.head:
        out.append(("output.weight", (f.embd, f.vocab), F16, floats(model.head, F16)))
    if f.rope_freqs:
        out.append(("rope_freqs.weight", (f.head_dim // 2,), F32, floats(f.rope_freqs, F32)))
    for i, layer in enumerate(model.layers):
        for name, w in layer.items():
            full = "blk.%d.%s.weight" % (i, name)
            if not isinstance(w, Matrix):
                out.append((full, (len(w),), norm_kind, floats(w, norm_kind)))
                continue
            heads = {"attn_q": f.heads, "attn_k": f.kv_heads}.get(name) if f.arch == "llama" else None
            codes = interleaved(w, heads) if heads else w.codes
            body = matrix_bytes(codes, w, kind, 1.0 if scale_tensors else w.scale, i2s_layout)
            out.append((full, (w.cols, w.rows), kind, body))
            if scale_tensors:
                out.append(("blk.%d.%s.scale" % (i, name), (1,), F32, floats([w.scale], F32)))
    return out


KINDS = {"i2_s": I2_S, "tq1_0": TQ1_0, "tq2_0": TQ2_0, "tl1": TL1, "tl2": TL2, "f16": F16, "f32": F32,
         "bf16": BF16, "i2_s-b": I2_S, "i2_s-c": I2_S, "i2_s-q8": I2_S, "scale": I2_S, "split": I2_S}


def make(model, variant, folder):
    """Writes the file and returns its path and the tiles it needs to be read: (m, k, bm, by, strip)."""
    kind = KINDS[variant]
    path = os.path.join(folder, variant + ".gguf")
    keys = metadata(model, kind)
    tensors = tensors_of(model, kind, variant[5:] if variant in ("i2_s-b", "i2_s-c") else "a",
                         variant == "scale", Q8_0 if variant == "i2_s-q8" else F16)
    if variant == "split":
        cut = len(tensors) * 2 // 5
        path = os.path.join(folder, "split-%05d-of-00002.gguf")
        for no, part in enumerate((tensors[:cut], tensors[cut:])):
            own = [("split.no", (U16, "H", no)), ("split.count", (U16, "H", 2)),
                   ("split.tensors.count", (I32, "i", len(tensors)))]
            write(path % (no + 1), (keys if no == 0 else []) + own, part)
        return path % 1, []
    write(path, keys, tensors)
    tiles = []
    if kind in (TL1, TL2):
        choose = layouts.tl1_tiles if kind == TL1 else layouts.tl2_tiles
        shapes = sorted({(m, k) for _, m, k in model.family.matrices()})
        tiles = [list(s + choose(*s)) for s in shapes]
    return path, tiles
