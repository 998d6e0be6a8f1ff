#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a Hugging Face folder of bf16 master weights in the shape of a published model, for measuring
`tern convert` and loading: random weights (a block of normal deviates repeated from changing offsets), two
shards with an index, a byte-level tokenizer without merges.

usage: hf_masters.py FOLDER [--layers N]      2b4t's shape: 4.8 GB with all 30 layers
"""
import argparse
import array
import json
import os
import random
import struct

EMBD, FFN, HEADS, KV, HEAD_DIM, VOCAB = 2560, 6912, 20, 5, 128, 128256


def bf16(x):
    return struct.unpack("<I", struct.pack("<f", x))[0] + 0x8000 >> 16


def block(n):
    r = random.Random(7)
    return array.array("H", (bf16(r.gauss(0, 0.02)) for _ in range(n))).tobytes()


def tensors(layers):
    yield "model.embed_tokens.weight", (VOCAB, EMBD)
    for i in range(layers):
        p = f"model.layers.{i}."
        yield p + "input_layernorm.weight", (EMBD,)
        yield p + "post_attention_layernorm.weight", (EMBD,)
        yield p + "self_attn.attn_sub_norm.weight", (HEADS * HEAD_DIM,)
        yield p + "mlp.ffn_sub_norm.weight", (FFN,)
        yield p + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, EMBD)
        yield p + "self_attn.k_proj.weight", (KV * HEAD_DIM, EMBD)
        yield p + "self_attn.v_proj.weight", (KV * HEAD_DIM, EMBD)
        yield p + "self_attn.o_proj.weight", (EMBD, HEADS * HEAD_DIM)
        yield p + "mlp.gate_proj.weight", (FFN, EMBD)
        yield p + "mlp.up_proj.weight", (FFN, EMBD)
        yield p + "mlp.down_proj.weight", (EMBD, FFN)
    yield "model.norm.weight", (EMBD,)


def write_shard(path, part, weights, start):
    header, at = {}, 0
    for name, shape in part:
        n = 2
        for d in shape:
            n *= d
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    ones = struct.pack("<H", 0x3F80)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in part:
            n = header[name]["data_offsets"]
            left = n[1] - n[0]
            if len(shape) == 1:
                f.write(ones * (left // 2))
                continue
            start = (start + 2 * 77777) % len(weights)
            while left:
                piece = weights[start : start + left]
                f.write(piece)
                left -= len(piece)
                start = (start + len(piece)) % len(weights)
    return at, start


def byte_tokens():
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in keep]
    text = {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(rest)}
    return {text[b]: b for b in range(256)}


def main():
    a = argparse.ArgumentParser(usage=__doc__)
    a.add_argument("folder")
    a.add_argument("--layers", type=int, default=30)
    o = a.parse_args()
    os.makedirs(o.folder, exist_ok=True)
    save = lambda name, obj: open(os.path.join(o.folder, name), "w").write(json.dumps(obj))
    save("config.json", {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "hidden_size": EMBD, "intermediate_size": FFN, "num_hidden_layers": o.layers,
        "num_attention_heads": HEADS, "num_key_value_heads": KV, "vocab_size": VOCAB,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                "quantization_mode": "online"}})
    save("tokenizer.json", {
        "version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": byte_tokens(), "merges": []}})
    save("tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    every = list(tensors(o.layers))
    weights, start, total, where = block(1 << 20), 0, 0, {}
    parts = [every[: len(every) // 2], every[len(every) // 2 :]]
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        n, start = write_shard(os.path.join(o.folder, name), part, weights, start)
        total += n
        where |= {t: name for t, _ in part}
    save("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    print(f"{o.folder}: {total / 1e9:.2f} GB")


main()
