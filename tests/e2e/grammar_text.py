# SPDX-License-Identifier: Apache-2.0
"""Answers by a grammar: the same bits by every head, on workers and in company; JSON that is valid; sentences
for what is wrong."""
import json

from lab import SANITIZER, Lab

lab = Lab()
LIST = 'root ::= ("- " [a-z ]{3,20} "\\n"){3}'
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                           "age": {"type": "integer", "minimum": 3, "maximum": 99},
                                           "kind": {"enum": ["king", "queen"]}},
          "required": ["name", "kind"]}
PROMPT = "Once upon a time"


def run(*args, form=("--grammar", LIST), **kwargs):
    return lab.run("run", "-p", PROMPT, "-s", "7", "-n", "100", *form, *args, **kwargs)


def is_list(text):
    lines = text.split("\n")
    return len(lines) >= 4 and all(line.startswith("- ") and 5 <= len(line) <= 22 for line in lines[:3])


# -- the same bits -------------------------------------------------------------------------------------------
whole = run("--head", "full")
lab.check(whole.code == 0 and is_list(whole.text), "a list by its grammar", whole.text + whole.errors)
lab.check("(stop)" in whole.errors, "it ends where the grammar does", whole.errors)
for args in (["--head", "screened"], ["--local", "2"], ["--top-k", "0"], ["--temp", "0"]):
    again = run(*args)
    lab.check(again.code == 0 and is_list(again.text), "a list with " + " ".join(args), again.errors)
    if args[0] in ("--head", "--local"):
        lab.check(again.out == whole.out, "the same text with " + " ".join(args), again.text)
pair = run("-p", "The king", "--json")
alone = run("--json")
lab.check(json.loads(pair.text)[0]["text"] == json.loads(alone.text)["text"], "the same text in company",
          pair.text)

# -- JSON ----------------------------------------------------------------------------------------------------
schema = lab.write("schema", json.dumps(SCHEMA))
grammar = lab.write("grammar", LIST + "\n")
for form in (("--json-schema", json.dumps(SCHEMA)), ("--json-schema-file", schema)):
    r = run(form=form)
    try:
        v = json.loads(r.text)
    except ValueError:
        v = {}
    lab.check(len(v.get("name", "x" * 13)) <= 12 and v.get("kind") in SCHEMA["properties"]["kind"]["enum"] and
              3 <= v.get("age", 3) <= 99, form[0] + " gives what it describes", r.text + r.errors)
lab.check(run(form=("--grammar-file", grammar)).out == whole.out, "a grammar from a file")
short = run("-n", "5", "--json")
lab.check(json.loads(short.text)["tokens"] and "length" in short.text, "-n ends it all the same", short.text)

# -- sentences -----------------------------------------------------------------------------------------------
for form, what in (
        (("--grammar", 'root ::= "a" x'), "line 1, column 14: the rule 'x' is not defined"),
        (("--grammar", LIST, "--json-schema", "{}"), "one grammar or JSON schema at a time"),
        (("--json-schema", '{"properties": {"a": {"not": {}}}}'), "#/properties/a/not: this keyword"),
        (("--json-schema", '{"type": '), "--json-schema: line 1"),
        (("--json-schema-file", "/nonexistent"), "/nonexistent"),
        (("--grammar", "root ::= [^\\x00-\\U0010ffff]"), "no token of this vocabulary")):
    r = run(form=form)
    lab.check(r.code not in (0, None) and what in r.errors and not SANITIZER.search(r.errors),
              "a sentence for " + form[1], (r.code, r.errors))
lab.end()
