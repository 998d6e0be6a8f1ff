# SPDX-License-Identifier: Apache-2.0
"""Small vocabularies in the manner of each family's: byte-level BPE, and pieces with scores and bytes to fall
back on.  Standard library only."""
import collections
import struct

TEXT = """the king had three daughters and the youngest of them was the fairest in all the land
one winter morning she went down to the river where an old woman sat mending a net of silver thread
take this thread said the woman and tie it to the gate and when the wind turns you will hear the sea
so the girl took it home and tied it there and waited for the wind and in the night the wind turned"""

SPECIALS = {
    "llama-bpe": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                  "<|eot_id|>"],
    "falcon3": ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>"],
    "falcon_e": ["<|begin_of_text|>", "<|end_of_text|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
}
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
SPACE = "\u2581"

SPLITS = {  # as tokenizer.json writes them
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                 r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
             r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "falcon_e": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
                r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def byte_alphabet():
    """The character that stands for each byte, of GPT-2."""
    plain = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    others = [b for b in range(256) if b not in plain]
    table = {b: chr(b) for b in plain}
    table.update((b, chr(0x100 + i)) for i, b in enumerate(others))
    return table, plain + others


def train(words, n):
    """The first n merges: the most frequent pair of neighbours, of equal ones the first in the alphabet."""
    words = [list(w) for w in words]
    merges, have = [], {c for w in words for c in w}
    while len(merges) < n:
        pairs = collections.Counter(p for w in words for p in zip(w, w[1:]))
        left, right = max(sorted(p for p in pairs if p[0] + p[1] not in have), key=lambda p: pairs[p])
        merges.append((left, right))
        have.add(left + right)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == (left, right):
                    w[i:i + 2] = [left + right]
                i += 1
    return merges


class Vocabulary:
    """tokens, types, scores or merges, bos and eos; of a family."""

    def __init__(self, family):
        self.kind, n = family.tokenizer, family.vocab
        self.spm = self.kind == "spm"
        self.merges, self.scores = [], []
        (self.pieces if self.spm else self.bytes_and_merges)(n)
        assert len(self.tokens) == n == len(self.types) and len(set(self.tokens)) == n
        self.add_bos = self.kind in ("llama-bpe", "spm") and not family.embedding
        self.add_eos = family.embedding
        self.space_prefix = self.spm and not family.embedding

    def bytes_and_merges(self, n):
        table, order = byte_alphabet()
        specials = SPECIALS[self.kind]
        words = (" " + TEXT.replace("\n", " ")).replace(" ", " \u0120").split(" ")[1:]
        self.merges = train(words, n - 256 - len(specials))
        self.tokens = [table[b] for b in order] + [a + b for a, b in self.merges] + specials
        self.types = [NORMAL] * (n - len(specials)) + [CONTROL] * len(specials)
        self.bos = n - len(specials)
        self.eos = self.bos + (1 if specials[1] == "<|end_of_text|>" else 0)

    def pieces(self, n):
        letters = [SPACE] + sorted(set(TEXT) - set(" \n"))
        words = [SPACE + w for w in TEXT.split()]
        self.merges = train(words, n - 259 - len(letters))
        self.tokens = (["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)] +
                       [a + b for a, b in self.merges] + letters)
        self.types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (n - 259)
        self.scores = [0.0] * 259 + [float(-i) for i in range(n - 259)]
        self.bos, self.eos = 1, 2

    def gguf_keys(self):
        keys = [("tokenizer.ggml.model", "llama" if self.spm else "gpt2")]
        if not self.spm:
            keys.append(("tokenizer.ggml.pre", self.kind))
        keys.append(("tokenizer.ggml.tokens", self.tokens))
        if self.spm:
            keys.append(("tokenizer.ggml.scores", self.scores))
        keys.append(("tokenizer.ggml.token_type", self.types))
        if not self.spm:
            keys.append(("tokenizer.ggml.merges", [a + " " + b for a, b in self.merges]))
        keys += [("tokenizer.ggml.bos_token_id", self.bos), ("tokenizer.ggml.eos_token_id", self.eos),
                 ("tokenizer.ggml.add_bos_token", self.add_bos),
                 ("tokenizer.ggml.add_eos_token", self.add_eos)]
        if self.spm:
            keys += [("tokenizer.ggml.unknown_token_id", 0),
                     ("tokenizer.ggml.add_space_prefix", self.space_prefix)]
        return keys

    def encode(self, text):
        """Ids of words of TEXT with single spaces in between, with what the model wants around them."""
        space = SPACE if self.spm else "\u0120"
        rank = {pair: i for i, pair in enumerate(self.merges)}
        ids = [self.bos] if self.add_bos else []
        for i, word in enumerate(text.split(" ")):
            s = list((space if i or self.space_prefix else "") + word)
            while True:
                best = min(zip(s, s[1:]), key=lambda p: rank.get(p, len(rank)), default=None)
                if best not in rank:
                    break
                at = list(zip(s, s[1:])).index(best)
                s[at:at + 2] = [s[at] + s[at + 1]]
            ids += map(self.tokens.index, s)
        return ids + ([self.eos] if self.add_eos else [])

    # -- Hugging Face's files --------------------------------------------------------------------------------

    def tokenizer_json(self):
        special = [i for i, t in enumerate(self.types) if t in (CONTROL, UNKNOWN)]
        added = [{"id": i, "content": self.tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
                  "normalized": False, "special": True} for i in special]
        model = {"type": "BPE", "dropout": None, "unk_token": "<unk>" if self.spm else None,
                 "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": self.spm,
                 "byte_fallback": self.spm, "ignore_merges": self.kind == "llama-bpe",
                 "vocab": {t: i for i, t in enumerate(self.tokens) if self.spm or i not in special},
                 "merges": [a + " " + b for a, b in self.merges]}
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                "normalizer": self.normalizer(), "pre_tokenizer": self.pre_tokenizer(),
                "post_processor": self.post_processor(), "decoder": self.decoder(), "model": model}

    def normalizer(self):
        if not self.spm:
            return None
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
        if not self.space_prefix:
            return replace
        return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]}

    def pre_tokenizer(self):
        if self.spm:
            return None
        bytes_only = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                      "use_regex": self.kind not in SPLITS}
        of_falcon = self.kind.startswith("falcon")
        first = [{"type": "Punctuation", "behavior": "Contiguous"}] if of_falcon else []
        if self.kind in SPLITS:
            first.append({"type": "Split", "pattern": {"Regex": SPLITS[self.kind]}, "behavior": "Isolated",
                          "invert": False})
        last = [{"type": "Digits", "individual_digits": True}] if of_falcon else []
        return {"type": "Sequence", "pretokenizers": first + [bytes_only] + last}

    def decoder(self):
        if not self.spm:
            return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        return {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}] + ([{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
                                 if self.space_prefix else [])}

    def post_processor(self):
        bos, eos = self.tokens[self.bos], self.tokens[self.eos]
        single = [{"Sequence": {"id": "A", "type_id": 0}}]
        used = []
        if self.add_bos:
            single.insert(0, {"SpecialToken": {"id": bos, "type_id": 0}})
            used.append((bos, self.bos))
        if self.add_eos:
            single.append({"SpecialToken": {"id": eos, "type_id": 0}})
            used.append((eos, self.eos))
        if not used:
            return None
        return {"type": "TemplateProcessing", "single": single,
                "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in used}}

    def tokenizer_config(self):
        return {"tokenizer_class": "LlamaTokenizer" if self.spm else "PreTrainedTokenizerFast",
                "bos_token": self.tokens[self.bos], "eos_token": self.tokens[self.eos],
                "add_bos_token": self.add_bos, "add_eos_token": self.add_eos,
                "model_max_length": 1024, "clean_up_tokenization_spaces": False}

    def sentencepiece(self):
        """tokenizer.model: the protobuf message that SentencePiece keeps."""
        out = b""
        for token, score, kind in zip(self.tokens, self.scores, self.types):
            text = token.encode()
            piece = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", score)
            out += b"\x0a" + message(piece + b"\x18" + varint(kind))
        trainer = (b"\x18\x02" + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2) +
                   field(43, 2**64 - 1))  # BPE; bytes to fall back on; unk, bos, eos; no pad
        normalizer = b"\x0a" + message(b"identity") + field(3, int(self.space_prefix)) + field(4, 0)
        return out + b"\x12" + message(trainer) + b"\x1a" + message(normalizer + field(5, 1))


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def field(number, value):
    return varint(number << 3) + varint(value)


def message(data):
    return varint(len(data)) + data
