# SPDX-License-Identifier: Apache-2.0
"""Model files that are cut or corrupted, and one that is cut while it is in use: one sentence, or a load
that is legitimate."""
import os
import random
import re

from lab import Lab

lab = Lab()
data = open(lab.model, "rb").read()
N_CUT, N_CORRUPT = 20, 40
rng = random.Random(1958)
HEAD = 120000  # header and metadata of the model; the data of tensors follows
VALID, REFUSED = 0, range(64, 79)


def try_file(what, content, must_fail):
    path = lab.write("hostile.gguf", content)
    r = lab.run("run", "-m", path, "-n", 2, "--temp", 0, "-p", "Once", timeout=60, env={"TERN_NO_CACHE": "1"})
    lines = [line for line in r.errors.strip().split("\n") if line]
    if r.code == VALID and not must_fail:
        return True
    return lab.check(r.code in REFUSED and "hostile.gguf" in r.errors and len(lines) >= 1,
                     "%s is refused with a sentence" % what, "code %s: %s" % (r.code, r.errors))


cuts = [0, 1, 3, 4, 8, 23, 24] + [rng.randrange(25, HEAD) for _ in range(N_CUT - 12)] + \
    [rng.randrange(HEAD, len(data)) for _ in range(4)] + [len(data) - 1]
for at in cuts:
    try_file("cut at byte %d" % at, data[:at], True)

valid = 0
for i in range(N_CORRUPT):
    at = rng.randrange(24 if i % 4 == 0 else HEAD) if i % 2 else rng.randrange(600)
    content = bytearray(data)
    content[at] ^= 1 << rng.randrange(8) if i % 3 else 0xff
    before = lab.failed
    if try_file("byte %d corrupted" % at, bytes(content), False) and lab.failed == before:
        valid += 1
lab.check(valid == N_CORRUPT, "%d corruptions: none crashed or hung" % N_CORRUPT, valid)

# Cut while it is in use: by the time of the cut tern has printed something and reads embeddings and head
# from the mapping.
for size in (0, 4096, len(data) // 4):
    path = lab.write("shrinks.gguf", data)
    p = lab.start("run", "-m", path, "-n", 250, "--temp", 0, "--ignore-eos", "-p", "Once upon a time",
                  "--cpu", "ref",
                  "-t", 1)
    os.read(p.stdout.fileno(), 1)
    os.truncate(path, size)
    out, err = p.communicate(timeout=60)
    err = err.decode()
    lab.check(p.returncode in REFUSED and "shrinks.gguf" in err and
              re.search("trunc|short|shr[iu]nk|changed|cut", err),
              "cut to %d bytes while in use: a sentence and an exit code (%s)" % (size, p.returncode), err)
    lab.check("Sanitizer" not in err, "cut while in use: no sanitizer report", err)

# Not a model at all.
for name, content in (("text", b"Once upon a time\n" * 100), ("zeros", bytes(65536)),
                      ("noise", rng.randbytes(65536)),
                      ("huge counts", b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16)):
    try_file(name, content, True)
r = lab.run("run", "-m", lab.dir, "-n", 1, "-p", "x")
lab.check(r.code in REFUSED, "a directory is refused with a sentence", r.errors)
fifo = lab.path("fifo.gguf")
os.mkfifo(fifo)
r = lab.run("run", "-m", fifo, "-n", 1, "-p", "x")
lab.check(r.code in REFUSED, "a pipe is refused at once", r.errors)
lab.end()
