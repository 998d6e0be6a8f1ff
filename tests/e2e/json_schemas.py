#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random JSON schemas of the documented subset, and random words of their grammars: every word parses and is
valid, by a validator that knows nothing of grammars.  Without any model: grammar_words draws the tokens."""
import json
import os
import random
import re
import subprocess
import sys
import tempfile

BUILD = sys.argv[1]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORDS = os.path.join(BUILD, "bin", "grammar_words")
MODEL = os.path.join(ROOT, "deploy", "models", "fable.gguf")
N_SCHEMAS = 500
N_WORDS = 4
SEED = 20261122


# -- a validator -------------------------------------------------------------------------------------------

FORMATS = {
    "date": r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
    "time": r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "ipv4": r"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.|$)){4}",
    "email": r"[^@ ]+@[A-Za-z0-9-]+(\.[A-Za-z0-9]+)+",
}
FORMATS["date-time"] = FORMATS["date"] + "T" + FORMATS["time"]


def is_type(v, t):
    number = isinstance(v, (int, float)) and not isinstance(v, bool)
    return {"object": isinstance(v, dict), "array": isinstance(v, list), "string": isinstance(v, str),
            "number": number, "integer": number and v == int(v), "boolean": isinstance(v, bool),
            "null": v is None}[t]


def same(a, b):
    return type(a) is type(b) and a == b


def problems(v, s, root):
    """Why v is not valid by s, one after the other."""
    if s is True:
        return
    if "$ref" in s:
        to = root
        for step in s["$ref"].split("/")[1:]:
            to = to[step]
        yield from problems(v, to, root)
        return
    if v is None and s.get("nullable"):
        return
    types = s.get("type", [])
    types = types if isinstance(types, list) else [types]
    if types and not any(is_type(v, t) for t in types):
        yield "%r is not %s" % (v, types)
    if "enum" in s and not any(same(v, e) for e in s["enum"]):
        yield "%r is none of %r" % (v, s["enum"])
    if "const" in s and not same(v, s["const"]):
        yield "%r is not %r" % (v, s["const"])
    for key in ("anyOf", "oneOf"):
        if key in s and not any(not list(problems(v, one, root)) for one in s[key]):
            yield "%r is by none of %s" % (v, key)
    for one in s.get("allOf", []):
        yield from problems(v, one, root)
    if isinstance(v, dict):
        yield from object_problems(v, s, root)
    elif isinstance(v, list):
        yield from array_problems(v, s, root)
    elif isinstance(v, str):
        if not s.get("minLength", 0) <= len(v) <= s.get("maxLength", 1 << 30):
            yield "%d characters" % len(v)
        if "pattern" in s and not re.search(s["pattern"], v):
            yield "%r does not match %s" % (v, s["pattern"])
        if "format" in s and not re.fullmatch(FORMATS[s["format"]], v):
            yield "%r is no %s" % (v, s["format"])
    elif isinstance(v, (int, float)) and not isinstance(v, bool):
        if v < s.get("minimum", v) or v > s.get("maximum", v):
            yield "%r is out of bounds" % v
        if ("exclusiveMinimum" in s and v <= s["exclusiveMinimum"] or
                "exclusiveMaximum" in s and v >= s["exclusiveMaximum"]):
            yield "%r is out of open bounds" % v


def object_problems(v, s, root):
    for name in s.get("required", []):
        if name not in v:
            yield "%s is missing" % name
    for name, value in v.items():
        if name in s.get("properties", {}):
            yield from problems(value, s["properties"][name], root)
        elif s.get("additionalProperties", True) is False:
            yield "%s is too much" % name
        else:
            yield from problems(value, s.get("additionalProperties", True), root)


def array_problems(v, s, root):
    if not s.get("minItems", 0) <= len(v) <= s.get("maxItems", 1 << 30):
        yield "%d items" % len(v)
    first = s.get("prefixItems", [])
    for i, item in enumerate(v):
        if i < len(first):
            yield from problems(item, first[i], root)
        elif s.get("items", True) is False:
            yield "too many items"
        else:
            yield from problems(item, s.get("items", True), root)


# -- random schemas ----------------------------------------------------------------------------------------

NAMES = ["a", "b", "ab", "abc", "name", "na", "age", "q\"uote", "back\\slash", "new\nline", "\u00e9t\u00e9",
         "\u65e5", "", " ", "x y", "[0]", "^", "]", "-", "item", "items", "color"]
PATTERNS = [r"^[a-z]{2,5}$", r"^(foo|ba[rz])+$", r"^\d{3}-\d{4}$", r"^[^abc]{1,4}$", r"x", r"^a", r"b$",
            r"^[A-Z][a-z]*( [A-Z][a-z]*)?$", r"^\"\\\\$", r"^\w+@\w+\.com$", r"^a|b$", r"^(?:x|y){2,3}?$",
            r"^.{0,3}$", r"^[\d\-_.]+$", r"^\S{1,3}$", r"^$", r"^[\u00e0-\u00ff\u65e5]{1,2}$", r"^\{.*\}$",
            "^[\"'\\\\\\[\\]]{1,3}$", r"^[^\n\w]{2}$", r"^\D\W\t$"]


def value(r):
    return r.choice([r.randint(-5, 5), r.random() * 10, True, False, None, "", "text", "q\"\\\n", "\u00e9",
                     [], [1, [2]], {}, {"k": "v", "n": {"x": None}}, 12345678901])


def integer(r):
    s = {"type": "integer"}
    a, b = sorted(r.choice([0, 1, -1, 9, 10, 99, 100, 12345, 10 ** 9, 987654321987, r.randint(-2000, 2000)])
                  * r.choice([1, 1, -1]) for _ in range(2))
    if r.random() < .6:
        s[r.choice(["minimum", "exclusiveMinimum"])] = a if r.random() < .8 else a - .5
    if r.random() < .6:
        s[r.choice(["maximum", "exclusiveMaximum"])] = b + 2
    return s


def number(r):
    s = {"type": "number"}
    a = r.choice([0, 0, 1, -1, 10, -100, r.randint(-10 ** 6, 10 ** 6)])
    if r.random() < .6:
        s[r.choice(["minimum", "exclusiveMinimum"])] = a
    if r.random() < .6:
        s[r.choice(["maximum", "exclusiveMaximum"])] = a + r.choice([1, 2, 100, 12345])
    return s


def string(r):
    s = {"type": "string"}
    kind = r.random()
    if kind < .2:
        s["pattern"] = r.choice(PATTERNS)
    elif kind < .35:
        s["format"] = r.choice(sorted(FORMATS))
    elif kind < .7:
        s["minLength"] = r.randint(0, 5)
        s["maxLength"] = s["minLength"] + r.randint(0, 9)
    elif kind < .8:
        s["minLength"] = r.randint(1, 5)
    return s


def object_(r, depth):
    names = r.sample(NAMES, r.randint(0, 5))
    s = {"type": "object", "properties": {n: schema(r, depth - 1) for n in names},
         "required": [n for n in names if r.random() < .5]}
    extra = r.random()
    if extra < .25:
        s["additionalProperties"] = False
    elif extra < .4:
        s["additionalProperties"] = True
    elif extra < .5:
        s["additionalProperties"] = schema(r, depth - 1)
        if r.random() < .3:
            s["required"].append("extra")
    elif extra < .6:
        del s["properties"]
        s["required"] = [n for n in NAMES[:3] if r.random() < .2]
    return s


def array(r, depth):
    s = {"type": "array"}
    if r.random() < .8:
        s["items"] = schema(r, depth - 1)
    if r.random() < .25:
        s["prefixItems"] = [schema(r, depth - 1) for _ in range(r.randint(1, 3))]
        if r.random() < .4:
            s["items"] = False
    elif r.random() < .6:
        s["minItems"] = r.randint(0, 3)
        if r.random() < .7:
            s["maxItems"] = s["minItems"] + r.randint(0, 3)
    return s


def all_of(r, depth):
    half = len(NAMES) // 2
    parts = []
    for names in (NAMES[:half], NAMES[half:]):
        names = r.sample(names, r.randint(1, 3))
        parts.append({"type": "object", "properties": {n: schema(r, depth - 1) for n in names},
                      "required": names[:1]})
    return {"allOf": parts}


def schema(r, depth):
    kind = r.random()
    if depth <= 0 or kind < .35:
        s = r.choice([integer, number, string, lambda r: {"type": "boolean"}, lambda r: {"type": "null"},
                      lambda r: {"enum": [value(r) for _ in range(r.randint(1, 4))]},
                      lambda r: {"const": value(r)},
                      lambda r: {"type": "string", "enum": ["x", "\u65e5\u672c", "a\"b", 1, None]}])(r)
        if "type" in s and "enum" not in s and r.random() < .1:
            s["nullable"] = True
    elif kind < .6:
        s = object_(r, depth)
    elif kind < .75:
        s = array(r, depth)
    elif kind < .85:
        s = {r.choice(["anyOf", "oneOf"]): [schema(r, depth - 1) for _ in range(r.randint(1, 3))]}
    elif kind < .9:
        s = {"type": r.sample(["string", "number", "integer", "boolean", "null", "array", "object"], 2),
             "maxLength": 5, "minimum": 0}
    elif kind < .94:
        s = all_of(r, depth)
    elif kind < .97:
        s = {"$ref": r.choice(["#/$defs/leaf", "#/$defs/tree"])}
    else:
        s = r.choice([True, {}])
    if isinstance(s, dict) and r.random() < .2:
        s.update({"title": "T", "description": "a \"text\"", "examples": [1], "x-unknown": {"minimum": 3}})
    return s


DEFS = {"leaf": {"type": "integer", "minimum": 0, "maximum": 12},
        "tree": {"type": "object", "properties": {"value": {"$ref": "#/$defs/leaf"},
                                                  "next": {"anyOf": [{"$ref": "#/$defs/tree"},
                                                                     {"type": "null"}]}},
                 "required": ["value", "next"], "additionalProperties": False}}


def random_schema(r):
    s = schema(r, 3)
    return dict(s, **{"$defs": DEFS}) if isinstance(s, dict) else {"anyOf": [s], "$defs": DEFS}


# -- the test ----------------------------------------------------------------------------------------------

def main():
    r = random.Random(SEED)
    schemas = [random_schema(r) for _ in range(N_SCHEMAS)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(schemas, f)
        f.flush()
        out = subprocess.run([WORDS, MODEL, "schemas", f.name, str(SEED), str(N_WORDS)], check=True,
                             stdout=subprocess.PIPE).stdout.decode().splitlines()
    assert len(out) == N_SCHEMAS, "%d lines" % len(out)
    n_valid = n_open = failed = 0
    for s, line in zip(schemas, out):
        words = json.loads(line)
        if isinstance(words, str):
            print("refused: %s\n  %s" % (words, json.dumps(s)))
            failed += 1
            continue
        for word in words:
            if word is None: # not whole after very many tokens
                n_open += 1
                continue
            try:
                why = next(problems(json.loads(word), s, s), None)
            except ValueError as e:
                why = str(e)
            if why:
                print("%s\n  %s\n  %s" % (why, word, json.dumps(s)))
                failed += 1
            n_valid += not why
    print("%d schemas, %d words parse and are valid, %d did not end" % (N_SCHEMAS, n_valid, n_open))
    assert not failed, "%d failures" % failed
    assert n_valid >= 0.98 * N_SCHEMAS * N_WORDS, "too few words"


main()
