# SPDX-License-Identifier: Apache-2.0
"""tern convert --synthetic: files that run, slices that fit them, little memory, nothing left behind."""
import json
import os
import resource
import signal
import subprocess

from lab import Cluster, Lab, soonest, wait_until

lab = Lab()
SMALL = ["--synthetic", "125m", "--embd-type", "q4_0", "-q"]


def convert(*args, **kwargs):
    return lab.run("convert", *args, timeout=240, **kwargs)


def inspect(path):
    return json.loads(lab.run("inspect", "-m", path, "--json").text)


def read(path):
    with open(path, "rb") as f:
        return f.read()


# -- a whole model -------------------------------------------------------------------------------------------
whole = lab.path("whole.gguf")
r = convert(*SMALL, "-o", whole, "-t", 2)
lab.check(r.code == 0 and not r.out and not r.err, "convert writes a file, quietly with -q", r.errors)
arch = inspect(whole)["architecture"]
lab.check([arch[k] for k in ("n_layers", "n_embd", "n_ffn", "n_heads", "n_vocab")] ==
          [11, 768, 3072, 12, 32002], "the shape of 125m", arch)
r = lab.run("run", "-m", whole, "-p", "the and", "-n", 6, "--temp", 0)
lab.check(r.code == 0 and len(r.out) > 6, "tern run works on it", r.errors)
text = r.out
again = lab.path("again.gguf")
r = convert(*SMALL, "-o", again, "-t", 1)
lab.check(r.code == 0 and read(again) == read(whole), "the same bytes with one thread", r.errors)
r = convert(*SMALL, "-o", again, "--seed", 2, "--force")
lab.check(r.code == 0 and read(again) != read(whole), "other weights with another seed", r.errors)

r = convert(*SMALL, "-o", again, "-c", 512, "--force")
lab.check(r.code == 0 and inspect(again)["architecture"]["n_ctx_train"] == 512, "a context of its own",
          r.errors)

# -- slices --------------------------------------------------------------------------------------------------
parts = [lab.path("front.gguf"), lab.path("back.gguf")]
for path, layers in zip(parts, ("0-4", "5-10")):
    r = convert(*SMALL, "-o", path, "--layers", layers)
    lab.check(r.code == 0 and os.path.getsize(path) < os.path.getsize(whole) * 0.7, "layers " + layers,
              r.errors)
cluster = Cluster(lab, 2, layers=["0-4", "5-10"], model=parts)
r = lab.run("run", "-m", whole, "-p", "the and", "-n", 6, "--temp", 0, *cluster.args())
lab.check(r.code == 0 and r.out == text, "workers with slices give the whole model's text", r.errors)

# A hundred billion weights: one layer of them within little memory.
limit = 160 << 20
big = lab.path("big.gguf")
sanitized = "asan" in subprocess.run(["ldd", lab.tern], stdout=subprocess.PIPE).stdout.decode()
if sanitized:
    lab.skip("a memory limit: the sanitizer takes terabytes of addresses")
else:
    p = subprocess.run([lab.tern, "convert", "--synthetic", "100b", "--layers", "0-0", "-o", big, "-t", "2"],
                       stderr=subprocess.PIPE, env=lab.env,
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    lab.check(p.returncode == 0 and os.path.getsize(big) > 340e6, "a layer of 100b in 160 MB of memory",
              p.stderr.decode())
    os.unlink(big)

# -- mistakes ------------------------------------------------------------------------------------------------
new = lab.path("new.gguf")
for args, words in ((["--synthetic", "5t", "-o", new], ["5t", "2b4t", "100b"]),
                    (["--synthetic", "2b4t"], ["-o"]), (["-o", new], ["--synthetic"]),
                    (SMALL + ["-o", whole], ["exists", "--force"]),
                    (SMALL + ["-o", lab.path("no/where")], ["No such file"]),
                    (SMALL + ["-o", lab.dir], ["regular file"]),
                    (SMALL + ["-o", new, "--layers", "11"], ["0 to 10"]),
                    (SMALL + ["-o", new, "--layers", "4-2"], ["4-2"]),
                    (SMALL + ["-o", new, "--layers", "x"], ["range"]),
                    (SMALL + ["-o", new, "-c", "0"], ["-c"]),
                    (SMALL + ["-o", new, "--type", "f16"], ["i2_s"]),
                    (SMALL + ["-o", new, "--embd-type", "tq1_0"], ["q6_k"]),
                    (["--synthetic", "3b", "-o", new, "--type", "tq2_0"], ["3200", "TQ2_0"]),
                    (SMALL + ["-o", new, "--seed", "-1"], ["--seed"]), (SMALL + ["-o", new, "x"], ["'x'"])):
    r = convert(*args)
    lab.check(r.code in range(64, 79) and all(w in r.errors for w in words) and not os.path.exists(new) and
              len(r.errors.strip().split("\n")) == 1 and soonest(r, 5) < 5,
              "refused: " + " ".join(a for a in args if a not in SMALL)[-60:],
              "code %s: %s" % (r.code, r.errors))
before = sorted(os.listdir(lab.dir))
p = subprocess.run([lab.tern, "convert"] + SMALL + ["-o", new], stderr=subprocess.PIPE, env=lab.env,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
lab.check(p.returncode in range(64, 79) and b"too large" in p.stderr and
          sorted(os.listdir(lab.dir)) == before,
          "a file that cannot grow: a sentence and nothing left", p.stderr.decode())
p = lab.start("convert", "--synthetic", "30b", "--layers", "0-9", "-o", new, "-t", 1)
lab.check(wait_until(lambda: any(n.startswith("new.gguf.") for n in os.listdir(lab.dir))),
          "it is written beside its place")
p.send_signal(signal.SIGINT)
out, err = p.communicate(timeout=60)
lab.check(p.returncode == 130 and sorted(os.listdir(lab.dir)) == before, "Ctrl-C leaves nothing behind", err)
lab.end()
