# SPDX-License-Identifier: Apache-2.0
"""tern inspect --verify: what it counts, what it finds broken, what it finds doubtful, and how it tells the
layouts of I2_S apart."""
import json
import os
import struct

from lab import Lab

lab = Lab()
MAKE = os.path.join(lab.build, "bin", "make_model")
MATRIX = "blk.2.ffn_up.weight"


def verify(path, *args):
    r = lab.run("inspect", "-m", path, "--verify", "--json", *args)
    try:
        return r, json.loads(r.text)["verification"]
    except (ValueError, KeyError):
        return r, {"findings": [], "matrices": [], "i2s_layout": {}}


def check(path, what, broken=None, doubtful=None, args=()):
    """Exactly one finding, with these words; or none."""
    r, v = verify(path, *args)
    found = v["findings"]
    words = broken or doubtful or []
    ok = (r.code == (65 if broken else 0) and len(found) == (1 if words else 0) and
          all(w in found[0]["text"] for w in words) and all(f["broken"] == bool(broken) for f in found))
    lab.check(ok, what, "code %s: %s\n%s" % (r.code, found, r.errors))
    return v


def read(path):
    with open(path, "rb") as f:
        return f.read()


# -- a GGUF taken apart and put together --------------------------------------------------------------------
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def skip(data, at, kind):
    if kind == 8:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind != 9:
        return at + SIZES[kind]
    elem, n = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(n):
        at = skip(data, at, elem)
    return at


def string(text):
    return struct.pack("<Q", len(text)) + text


def parse(path):
    """Keys with the bytes of their values, then the bytes of the directory and of the data."""
    data = read(path)
    _, _, n_tensors, n_kv = struct.unpack_from("<4sIQQ", data, 0)
    at, kv = 24, {}
    for _ in range(n_kv):
        n = struct.unpack_from("<Q", data, at)[0]
        key = data[at + 8:at + 8 + n]
        kind = struct.unpack_from("<I", data, at + 8 + n)[0]
        end = skip(data, at + 12 + n, kind)
        kv[key.decode()] = data[at + 8 + n:end]
        at = end
    begin = at
    for _ in range(n_tensors):
        at = skip(data, at, 8)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 12
    return kv, data[begin:at], data[-(-at // 32) * 32:], n_tensors


def rebuilt(name, change):
    kv, directory, data, n = parse(lab.model)
    change(kv)
    head = struct.pack("<4sIQQ", b"GGUF", 3, n, len(kv))
    head += b"".join(string(k.encode()) + v for k, v in kv.items()) + directory
    return lab.write(name, head + b"\0" * (-len(head) % 32) + data)


# -- what is right -------------------------------------------------------------------------------------------
v = check(lab.model, "the fable model: nothing wrong")
lab.check(len(v["matrices"]) == 42 and
          all(abs(m["minus"] + m["zero"] + m["plus"] - 1) < 1e-9 and 0.2 < m["zero"] < 0.6 and m["scale"] > 0
              for m in v["matrices"]), "shares of -1, 0 and +1 and a scale for each matrix",
          v["matrices"][:3])
text = lab.run("inspect", "-m", lab.model, "--verify").text
lab.check(MATRIX in text and "%" in text and "nothing wrong" in text, "the same as a table", text[-500:])
whole = lab.path("whole.gguf")
lab.run("convert", lab.model, "-o", whole, "-q")
v = check(whole, "what tern convert wrote: nothing wrong")
lab.check(v["hashes_compared"], "and its hashes were compared")
tq = lab.path("tq.gguf")
lab.run("convert", lab.model, "-o", tq, "-q", "--type", "tq1_0")
v = check(tq, "TQ1_0: nothing wrong")
lab.check(v["i2s_layout"]["pairs"] == 0, "and no layout to tell")

# -- layouts of I2_S -----------------------------------------------------------------------------------------
for written in "ABC":
    path = lab.path("layout-%s.gguf" % written)
    lab.run("--retype", "i2_s", "--layout", written, lab.model, path, program=MAKE)
    for asked in "ABC":
        v = check(path, "layout %s read as %s" % (written, asked), args=["--i2s-layout", asked],
                  broken=None if asked == written else ["layout " + asked, "--i2s-layout " + written])
        lab.check(v["i2s_layout"]["likely"] == written, "is told to be " + written, v["i2s_layout"])
r = lab.run("convert", lab.path("layout-B.gguf"), "-o", lab.path("new.gguf"), "-q")
lab.check(r.code == 0 and "looks like layout B" in r.errors, "tern convert warns of a wrong layout", r.errors)
r = lab.run("convert", lab.path("layout-C.gguf"), "-o", lab.path("new.gguf"), "-q", "--i2s-layout", "C",
            "--force")
lab.check(r.code == 0 and not r.err and read(lab.path("new.gguf")) == read(whole),
          "and the right one gives the file that layout A gives", r.errors)
r = lab.run("convert", lab.path("layout-B.gguf"), "-o", lab.path("slice.gguf"), "-q", "--layers", "3-4",
            "--type", "i2_s", "--i2s-layout", "B")
v = check(lab.path("slice.gguf"), "a slice: nothing wrong")
lab.check(v["i2s_layout"]["likely"] == "A", "and two layers tell their layout", v["i2s_layout"])
path = lab.path("random.gguf")
lab.run("--seed", "7", path, program=MAKE)
v = check(path, "random weights: nothing wrong")
lab.check(v["i2s_layout"]["pairs"] > 0 and v["i2s_layout"]["likely"] is None, "and no layout is claimed")


# -- what is broken ------------------------------------------------------------------------------------------
def place(path, wanted):
    at = os.path.getsize(path)
    tensors = json.loads(lab.run("inspect", "-m", path, "--json", "--tensors").text)["tensors"]["list"]
    for t in reversed(tensors):
        at -= -(-t["bytes"] // 32) * 32
        if t["name"] == wanted:
            return at, t["bytes"]
    raise KeyError(wanted)


def damaged(source, name, at, value):
    data = bytearray(read(source))
    data[at:at + len(value)] = value
    return lab.write(name, bytes(data))


at, size = place(lab.model, MATRIX)
tq_plain = lab.path("tq-plain.gguf")
lab.run("--retype", "tq2_0", lab.model, tq_plain, program=MAKE)
tq_at, tq_size = place(tq_plain, MATRIX)
norm_at, _ = place(lab.model, "blk.3.attn_norm.weight")
embd_at, _ = place(lab.model, "token_embd.weight")
NAN = struct.pack("<f", float("nan"))
check(damaged(lab.model, "code.gguf", at + 100, b"\xff"), "a code that is none", [MATRIX, "codes"])
check(damaged(lab.model, "scale.gguf", at + size - 32, NAN), "a scale that is no number", [MATRIX, "scale"])
check(damaged(lab.model, "zero.gguf", at + size - 32, b"\0\0\0\0"), "a scale of zero",
      [MATRIX, "a scale that is not a positive number"])
check(damaged(tq_plain, "block.gguf", tq_at + tq_size - 2, b"\x00\x3c"), "blocks of two scales",
      [MATRIX, "scales"])
check(damaged(lab.model, "norm.gguf", norm_at + 8, NAN), "a norm that is no number",
      ["blk.3.attn_norm.weight", "finite"])
check(damaged(lab.model, "embd.gguf", embd_at + 5 * 512 + 2, b"\x00\x7c"), "an infinite embedding",
      ["token_embd.weight", "row 5", "finite"])
at, size = place(whole, MATRIX)
flipped = bytes([read(whole)[at] ^ (0x01 if read(whole)[at] & 3 != 2 else 0x02)])
check(damaged(whole, "bit.gguf", at, flipped), "another weight than tern convert wrote",
      [MATRIX, "not what was written"])
r = lab.run("inspect", "-m", lab.path("norm.gguf"), "--verify")
lab.check(r.code == 65 and "BROKEN" in r.text and "broken" in r.errors and
          len(r.errors.strip().split("\n")) == 1, "the table says so, and one sentence", r.errors)


# -- what is doubtful ----------------------------------------------------------------------------------------
def no_pre(kv):
    del kv["tokenizer.ggml.pre"]


def placeholder(kv):
    kv["tokenizer.chat_template"] = struct.pack("<I", 8) + string(
        b"{% for m in messages %}{% if m['role'] == 'user' %}{{ 'Human: ' + m['content'] + '\\n\\n"
        b"BITNETAssistant: ' + eos_token }}{% endif %}{% endfor %}")


def glued(kv):
    """BOS's text in front of every special token's, as a converter did it."""
    types = struct.unpack("<%di" % 4096, kv["tokenizer.ggml.token_type"][16:])
    old, at, new = kv["tokenizer.ggml.tokens"], 16, b""
    bos = b"<|begin_of_text|>"
    for kind in types:
        n = struct.unpack_from("<Q", old, at)[0]
        text = old[at + 8:at + 8 + n]
        at += 8 + n
        new += string(bos + text if kind == 3 else text)
    kv["tokenizer.ggml.tokens"] = old[:16] + new


check(rebuilt("same.gguf", lambda kv: None), "taken apart and put together: nothing wrong")
check(rebuilt("no-pre.gguf", no_pre), "no pre-tokenizer",
      doubtful=["tokenizer.ggml.pre", "missing", "default"])
check(rebuilt("template.gguf", placeholder), "a placeholder template", doubtful=["template", "placeholder"])
check(rebuilt("glued.gguf", glued), "damaged special tokens", doubtful=["special tokens", "mended"])
r = lab.run("convert", lab.path("no-pre.gguf"), "-o", lab.path("new.gguf"), "-q", "--force")
check(lab.path("new.gguf"), "tern convert writes the missing pre-tokenizer")
for source, wanted in ("same", 0), ("template", 1):
    r = lab.run("convert", lab.path(source + ".gguf"), "-o", lab.path("new.gguf"), "-q", "--force")
    check(lab.path("new.gguf"), "what tern convert makes of %s: nothing wrong" % source)
    found = [k["value"] for k in json.loads(lab.run("inspect", "-m", lab.path("new.gguf"), "--json").text)
             ["metadata"] if k["key"] == "tokenizer.chat_template"]
    lab.check(len(found) == wanted and all("messages" in t and "BITNET" not in t for t in found),
              "a true template in place of a placeholder, none where nothing shows a format", found)
lab.end()
