# SPDX-License-Identifier: Apache-2.0
"""`tern tokenize` with vocabularies made here: SentencePiece's and Llama-3's kind, there and back."""
import struct

from lab import Lab

lab = Lab()
USAGE = 64
NAMES = ["default", "falcon", "falcon3", "falcon3-upstream", "falcon_e", "gpt-2", "llama-bpe", "llama-v3",
         "llama3", "qwen2", "stablelm2"]


def string(s):
    return struct.pack("<Q", len(s)) + s


def strings(values):
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(string, values))


def numbers(kind, code, values):
    return struct.pack("<IIQ", 9, kind, len(values)) + struct.pack("<%d%s" % (len(values), code), *values)


def vocabulary(name, keys):
    path = lab.path(name)
    with open(path, "wb") as f:
        f.write(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(keys)))
        f.write(b"".join(string(k.encode()) + v for k, v in keys.items()))
    return path


def text(s):
    return struct.pack("<I", 8) + string(s)


# -- SentencePiece -------------------------------------------------------------------------------------------
MARK = "\u2581".encode()
pieces = [(b"<unk>", 2), (b"<s>", 3), (b"</s>", 3)] + [(b"<0x%02X>" % b, 6) for b in range(256)]
pieces += [(t, 1) for t in (MARK, b"a", b"b", b"ab", MARK + b"ab", b"<|im_end|>")] + [(b"[x]", 4)]
scored = vocabulary("scored.gguf", {
    "tokenizer.ggml.model": text(b"llama"),
    "tokenizer.ggml.tokens": strings([t for t, _ in pieces]),
    "tokenizer.ggml.token_type": numbers(5, "i", [k for _, k in pieces]),
    "tokenizer.ggml.scores": numbers(6, "f", [-float(i) for i in range(len(pieces))])})

r = lab.run("tokenize", "-m", scored, "-p", "ab ab[x]b\u00e9", "--ids")
lab.check(r.out == b"1 263 263 265 259 261 198 172\n", "scores merge, bytes fall back", r.text + r.errors)
for sample in (b"ab ab[x]b", " a  b\n\u00e9\U0001f600 [x] ab".encode(), b"<s>ab</s> ab", b"  "):
    path = lab.path("sample")
    with open(path, "wb") as f:
        f.write(sample)
    ids = lab.run("tokenize", "-m", scored, "-f", path, "--ids").text.strip()
    r = lab.run("tokenize", "-m", scored, "--decode", ids, "--no-bos")
    lab.check(r.out == sample, "%r comes back" % sample, repr(r.out) + r.errors)
r = lab.run("tokenize", "-m", scored, "-p", "ab", "--pre", "gpt-2")
lab.check(r.code == USAGE and "without a pre-tokenizer" in r.errors, "--pre is refused where there is none",
          r.errors)

# -- Llama-3's without a pre-tokenizer's name ----------------------------------------------------------------
tokens = [chr(c).encode() for c in range(0x21, 0x7f)] + ["\u0120".encode(), b"'m"]
tokens += [b"[%d]" % i for i in range(len(tokens), 128000)]
tokens += [b"<|begin_of_text|>", b"<|end_of_text|>"] + [b"<|%d|>" % i for i in range(128002, 128256)]
nameless = vocabulary("nameless.gguf", {
    "tokenizer.ggml.model": text(b"gpt2"),
    "tokenizer.ggml.tokens": strings(tokens),
    "tokenizer.ggml.token_type": numbers(5, "i", [1] * 128000 + [3] * 256),
    "tokenizer.ggml.merges": strings([b"' m"]),
    "tokenizer.ggml.bos_token_id": struct.pack("<II", 4, 128000),
    "tokenizer.ggml.eos_token_id": struct.pack("<II", 4, 128001)})
r = lab.run("tokenize", "-m", nameless, "-p", "I'm", "--ids")
lab.check(r.out == b"128000 40 95\n", "Llama-3's way of cutting is taken", r.text + r.errors)
lab.check(r.errors.count("llama-bpe") == 1, "and said, once", r.errors)
r = lab.run("tokenize", "-m", nameless, "-p", "I'm", "--ids", "--pre", "default")
lab.check(r.out == b"40 6 76\n" and "llama-bpe" not in r.errors, "unless --pre says otherwise",
          r.text + r.errors)

# -- what can be chosen --------------------------------------------------------------------------------------
for command in ("run", "tokenize", "inspect"):
    r = lab.run(command, "--help")
    listed = r.text.split("--pre NAME", 1)[1].split("      --", 1)[0].replace(",", " ").split()
    lab.check(all(n in listed for n in NAMES), "tern %s --help lists the pre-tokenizers" % command, listed)
r = lab.run("tokenize", "-m", nameless, "-p", "a", "--pre", "nonesuch")
lab.check(r.code == USAGE and all(n in r.errors for n in NAMES), "so does a wrong one", r.errors)
lab.end()
