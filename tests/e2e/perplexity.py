# SPDX-License-Identifier: Apache-2.0
"""tern perplexity: the method, recomputed from the values of its tokens; what is counted; the same bits on
workers; texts that are too short."""
import json
import math

from lab import Lab

lab = Lab()
text = lab.path("text")
with open(lab.source + "/tests/golden/fable_validation.txt", encoding="utf-8") as f:
    sample = f.read()[:4500]
lab.write("text", sample)


def measure(*args, **kwargs):
    r = lab.run("perplexity", "-f", text, *args, **kwargs)
    return r, json.loads(r.text) if r.code == 0 and "--json" in args else None


r, j = measure("-c", 64, "--json", "--nll", "-q")
ids = json.loads(lab.run("tokenize", "-f", text, "--json").text)
n_tokens = len(ids["tokens"] if isinstance(ids, dict) else ids)
lab.check(j["n_tokens"] == n_tokens and j["n_chunks"] == n_tokens // 64 and not r.err,
          "all tokens, BOS among them; whole chunks", (j["n_tokens"], n_tokens, r.errors))
lab.check(all(len(c["nll"]) == 31 for c in j["chunks"]), "of 64 positions 32 to 62 predict")
values = [v for c in j["chunks"] for v in c["nll"]]
n = len(values)
mean = sum(values) / n
variance = sum(v * v for v in values) / n - mean * mean
ppl = math.exp(mean)
lab.check(abs(ppl / j["ppl"] - 1) < 1e-8, "exp of the mean", (ppl, j["ppl"]))
lab.check(abs(ppl * math.sqrt(variance / (n - 1)) / j["error"] - 1) < 1e-6, "the standard error", j["error"])
first = [v for c in j["chunks"][:3] for v in c["nll"]]
lab.check(abs(math.exp(sum(first) / len(first)) / j["chunks"][2]["running_ppl"] - 1) < 1e-8,
          "running values")
some = measure("-c", 64, "--json", "--nll", "-q", "--chunks", 3)[1]
lab.check([c["nll"] for c in some["chunks"]] == [c["nll"] for c in j["chunks"][:3]],
          "chunks do not see each other")
odd = measure("-c", 33, "--json", "--nll", "-q", "--chunks", 2)[1]
lab.check(len(odd["chunks"][0]["nll"]) == 33 - 16 - 1, "an odd length: positions 16 to 31 predict")
for args in (["--local", 2], ["--local", 3, "--chunk", 5]):
    other = measure("-c", 64, "--json", "--nll", "-q", *args)[1]
    lab.check(other["chunks"] == j["chunks"], "the same bits with %s" % " ".join(map(str, args)))
r = measure("-c", 64, "-q")[0]
lab.check(r.text == "Final estimate: PPL = %.4f +/- %.5f\n" % (j["ppl"], j["error"]), "the line", r.text)
r = measure("-c", n_tokens // 2 + 1)[0]
lab.check(r.code in range(64, 79) and str(n_tokens) in r.errors and not r.out,
          "a text of less than two chunks is refused", r.errors)
r = measure("-c", n_tokens // 2, "--json", "-q")[0]
lab.check(r.code == 0, "and of two chunks not", r.errors)
lab.end()
