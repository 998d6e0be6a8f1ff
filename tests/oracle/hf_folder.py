# SPDX-License-Identifier: Apache-2.0
"""Hugging Face folders of tiny models: config.json, safetensors, tokenizer files.  Standard library only."""
import json
import os
import struct

import layouts
from gguf_file import BF16, F16, F32, floats
from tiny import GELU, LLAMA31, RELU2, Matrix
from vocabulary import Vocabulary

PARTS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
         "attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm",
         "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
NORMS.update((n + "_norm_in", p + ".norm") for n, p in PARTS.items())
OLD_BITNET = {"attn_sub_norm": "self_attn.inner_attn_ln", "ffn_sub_norm": "mlp.ffn_layernorm"}
GEMMA = {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm"}
DTYPES = {"bf16": ("BF16", BF16, "bfloat16"), "f16": ("F16", F16, "float16"), "f32": ("F32", F32, "float32")}
CLASSES = {"b158": "BitNetForCausalLM", "bitnet": "BitnetForCausalLM", "llama": "LlamaForCausalLM",
           "qwen3": "Qwen3ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
MODEL_TYPES = {"bitnet-b1.58": "bitnet", "gemma3": "gemma3_text"}


def config(model, dtype, packed):
    f = model.family
    v = Vocabulary(f)
    c = {"architectures": [CLASSES[f.name if f.name == "b158" else f.arch]],
         "model_type": MODEL_TYPES.get(f.arch, f.arch), "hidden_size": f.embd, "intermediate_size": f.ffn,
         "num_hidden_layers": f.layers, "num_attention_heads": f.heads, "num_key_value_heads": f.kv_heads,
         "vocab_size": f.vocab, "max_position_embeddings": 1024, "rope_theta": f.theta, "rms_norm_eps": f.eps,
         "hidden_act": {RELU2: "relu2", GELU: "gelu_pytorch_tanh"}.get(f.activation, "silu"),
         "tie_word_embeddings": f.tied, "bos_token_id": v.bos, "eos_token_id": v.eos,
         "torch_dtype": DTYPES[dtype][2]}
    if f.window:
        kinds = ["sliding_attention" if i in f.slides else "full_attention" for i in range(f.layers)]
        c.update(sliding_window=f.window, layer_types=kinds, rope_local_base_freq=f.theta_swa)
    if f.head_dim * f.heads != f.embd or f.head_dim == 256:
        c["head_dim"] = f.head_dim
    if f.arch == "gemma3":
        del c["hidden_act"]
        c.update(hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=f.head_dim)
    if f.rope_freqs:
        c["rope_scaling"] = dict(LLAMA31, rope_type="llama3")
    if f.arch == "bitnet":
        c.update(input_bits=8, weight_bits=1, rope_scaling=None)
    elif f.arch == "bitnet-b1.58":
        c["quantization_config"] = {"quant_method": "bitnet", "linear_class": "autobitlinear",
                                    "quantization_mode": "offline" if packed else "online"}
    elif f.arch == "llama":
        c["quantization_config"] = {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}
        if not packed:
            c["quantization_config"].update(linear_class="autobitlinear", quantization_mode="online")
    return c


def tensors_of(model, dtype, packed):
    """(name, dtype, shape, bytes)."""
    f = model.family
    label, kind, _ = DTYPES[dtype]
    names = dict(NORMS, **(OLD_BITNET if f.arch == "bitnet" else GEMMA if f.arch == "gemma3" else {}))
    less = 1.0 if f.arch == "gemma3" else 0.0  # its own norms are stored as what they are more than 1

    def vector(name, w, less):
        return name, label, (len(w),), floats([v - less for v in w], kind)

    out = [("model.embed_tokens.weight", label, (f.vocab, f.embd), floats(model.embd, kind)),
           vector("model.norm.weight", model.output_norm, less)]
    if model.head:
        out.append(("lm_head.weight", label, (f.vocab, f.embd), floats(model.head, kind)))
    for i, layer in enumerate(model.layers):
        prefix = "model.layers.%d." % i
        for name, w in layer.items():
            if not isinstance(w, Matrix):
                out.append(vector(prefix + names[name] + ".weight", w,
                                  0.0 if name.endswith("_norm_in") else less))
                continue
            full = prefix + PARTS[name] + ".weight"
            if packed:
                out.append((full, "U8", (w.rows // 4, w.cols), layouts.hf_packed(w.codes, w.rows, w.cols)))
                multiply = f.arch == "bitnet-b1.58"
                exact = multiply or not f.exact_tq  # in bf16; else the reciprocal needs float32
                out.append((full + "_scale", "BF16" if exact else "F32", (1,),
                            floats([w.scale if multiply else w.weight_scale], BF16 if exact else F32)))
            else:
                table = [floats([v * w.unit], kind) for v in w.values]
                out.append((full, label, (w.rows, w.cols), b"".join(table[b] for b in w.raw)))
    return out


def write_safetensors(path, tensors):
    head, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, body in tensors:
        head[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(body)]}
        at += len(body)
    raw = json.dumps(head).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(raw)) + raw)
        for t in tensors:
            f.write(t[3])


def write_json(folder, name, value):
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=1)


def make(model, variant, folder):
    """Writes the folder of a variant "hf-TYPE" or "hf-packed", perhaps "-sharded", and returns its path."""
    path = os.path.join(folder, variant)
    packed = variant == "hf-packed"
    dtype = "bf16" if packed else variant.split("-")[1]
    write_json(path, "config.json", config(model, dtype, packed))
    tensors = tensors_of(model, dtype, packed)
    if variant.endswith("-sharded"):
        cut = len(tensors) // 2
        shards = {"model-%05d-of-00002.safetensors" % (i + 1): part
                  for i, part in enumerate((tensors[:cut], tensors[cut:]))}
        for name, part in shards.items():
            write_safetensors(os.path.join(path, name), part)
        total = sum(len(t[3]) for t in tensors)
        write_json(path, "model.safetensors.index.json", {
            "metadata": {"total_size": total},
            "weight_map": {t[0]: name for name, part in shards.items() for t in part}})
    else:
        write_safetensors(os.path.join(path, "model.safetensors"), tensors)
    v = Vocabulary(model.family)
    write_json(path, "tokenizer_config.json", v.tokenizer_config())
    if v.spm and not model.family.embedding:
        with open(os.path.join(path, "tokenizer.model"), "wb") as f:
            f.write(v.sentencepiece())
    else:
        write_json(path, "tokenizer.json", v.tokenizer_json())
    if model.family.embedding:
        write_json(path, "1_Pooling/config.json", {
            "word_embedding_dimension": model.family.embd, "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True})
    return path
