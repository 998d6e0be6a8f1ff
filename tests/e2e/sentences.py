# SPDX-License-Identifier: Apache-2.0
"""Everyday mistakes in setting up a cluster: each gives, within 5 s, a sentence that says what to do, and a
fitting exit code."""
import os
import re
import socket
import threading

from lab import Cluster, Lab, free_port, soonest

lab = Lab()
ASK = ["run", "-n", 4, "--temp", 0, "-p", "Once upon a time"]
cluster = Cluster(lab, 2)
good = lab.run(*ASK, *cluster.args())
lab.check(good.code == 0, "the cluster works before anything is broken", good.errors)


# Five seconds for the program, and what this build on this machine needs for a text of four tokens.
LIMIT = 5 + 2 * good.seconds


def refused(what, r, *words, codes=range(64, 79)):
    """One sentence on stderr with these words, an exit code of sysexits.h, in time, nothing on stdout."""
    last = [line for line in r.errors.strip().split("\n") if line.strip()]
    detail = "code %s after %.2f s: %s" % (r.code, r.seconds, r.errors)
    lab.check(r.code in codes, "%s: exit code %s" % (what, r.code), detail)
    lab.check(soonest(r, LIMIT) <= LIMIT, "%s: after %.2f s" % (what, r.seconds), detail)
    lab.check(bool(last) and all(re.search(w, r.errors, re.I) for w in words), "%s: says %s" %
              (what, ", ".join(words)), detail)


def ternd(*args):
    return lab.run(*args, program=lab.ternd)


w1key, w1pub = cluster.keys[0]
allow = cluster.allow[0]
base = ["--listen", "127.0.0.1:0", "--allow", allow, "--model", lab.model]

# -- a worker that is not there ------------------------------------------------------------------------------
port = free_port()
text = open(cluster.file).read()
wrong = lab.write("wrong-port", text.replace(cluster.endpoints[1], "tcp://127.0.0.1:%d" % port))
refused("nobody listens at the address", lab.run(*ASK, "--cluster", wrong, "--key", cluster.key),
        cluster.names[1], str(port))

wrong = lab.write("no-host", text.replace(cluster.endpoints[1], "tcp://no-such-host.invalid:7000"))
refused("a host without address", lab.run(*ASK, "--cluster", wrong, "--key", cluster.key), "no-such-host")

with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    s.listen()
    wrong = lab.write("not-tern", text.replace(cluster.endpoints[0], "tcp://127.0.0.1:%d" %
                                               s.getsockname()[1]))
    refused("something else listens at the address", lab.run(*ASK, "--cluster", wrong, "--key", cluster.key),
            cluster.names[0])

# A worker started late (2 s after its coordinator) is waited for.
late = lab.key("late")
late_allow = lab.write("late.allow", "head coordinator %s\n" % cluster.public)
port = free_port()
late_file = lab.write("late.cluster", "late tcp://127.0.0.1:%d %s\n" % (port, late[1]))
timer = threading.Timer(2.0, lambda: lab.daemon("late", late[0], late_allow, listen="127.0.0.1:%d" % port,
                                                wait=0))
timer.start()
r = lab.run(*ASK, "--cluster", late_file, "--key", cluster.key)
timer.join()
lab.check(r.code == 0 and r.out == good.out, "a worker started 2 s late is waited for", r.errors)

# -- keys ----------------------------------------------------------------------------------------------------
stranger = lab.key("stranger")
refused("a coordinator the workers do not know", lab.run(*ASK, "--cluster", cluster.file, "--key",
                                                         stranger[0]),
        "key|allow")
other = lab.write("other-key", text.replace(cluster.keys[0][1], stranger[1]))
refused("a worker with another key than the cluster file says",
        lab.run(*ASK, "--cluster", other, "--key", cluster.key),
        cluster.names[0], "key")
gone = lab.path("gone.key")
refused("tern: a missing key", lab.run(*ASK, "--cluster", cluster.file, "--key", gone), "gone\\.key",
        "keygen|No such file")
refused("ternd: a missing key", ternd(*base, "--key", gone), "gone\\.key", "keygen|No such file")
loose = lab.write("loose.key", open(w1key).read(), 0o644)
refused("tern: a key others can read", lab.run(*ASK, "--cluster", cluster.file, "--key", loose),
        "loose\\.key", "600|chmod")
refused("ternd: a key others can read", ternd(*base, "--key", loose), "loose\\.key", "600|chmod")
refused("ternd: a key that is a directory", ternd(*base, "--key", lab.dir), "regular file|directory")
refused("ternd: a key that is garbage", ternd(*base, "--key", lab.write("junk.key", "hello\n")), "junk\\.key")
swapped = open(w1key).read().replace(w1pub, stranger[1])
refused("ternd: halves that do not belong together",
        ternd(*base, "--key", lab.write("swapped.key", swapped)), "swapped\\.key")
link = lab.path("link.key")
os.symlink(w1key, link)
refused("ternd: a key behind a symbolic link", ternd(*base, "--key", link), "link\\.key", "link")
if os.getuid() != 0:
    locked = lab.write("locked.key", open(w1key).read(), 0o000)
    refused("ternd: an unreadable key", ternd(*base, "--key", locked), "locked\\.key", "permission")
else:
    lab.skip("an unreadable key: root reads everything")
refused("keygen does not overwrite", lab.run("keygen", w1key), "exist")

# -- allow-lists and cluster files ---------------------------------------------------------------------------
nolist = ["--listen", "127.0.0.1:0", "--key", w1key, "--model", lab.model]
refused("ternd: a missing allow-list", ternd(*nolist, "--allow", lab.path("gone.allow")), "gone\\.allow")
refused("ternd: an allow-list with a bad line", ternd(*nolist, "--allow", lab.write("bad.allow",
        "# one\nhead king abc\n")),
        "bad\\.allow", "line 2|:2")
open_list = lab.write("open.allow", open(allow).read(), 0o666)
refused("ternd: an allow-list others can write", ternd(*nolist, "--allow", open_list), "open\\.allow",
        "writ|chmod")
for name, content, words in (
        ("empty", "# nobody\n", ["empty"]),
        ("short", "w1 tcp://127.0.0.1:1\n", ["line 1|:1"]),
        ("scheme", "w1 http://127.0.0.1:1 %s\n" % w1pub, ["line 1|:1", "tcp"]),
        ("twice", text + text.split("\n")[1] + "\n", ["twice|already|name"]),
        ("layers",
         "\n".join(line + " layers=0-2" if line.startswith("w") else line for line in text.split("\n")),
         ["layer"]),
        ("beyond", text.replace("\n", " layers=0-3\n", 2).replace("order layers=0-3",
                                                                  "order").rstrip() + " layers=4-9\n",
         ["layer"]),
):
    file = lab.write(name + ".cluster", content)
    refused("cluster file: " + name, lab.run(*ASK, "--cluster", file, "--key", cluster.key), *words)
refused("cluster file: missing", lab.run(*ASK, "--cluster", lab.path("gone.cluster"), "--key", cluster.key),
        "gone\\.cluster")
refused("a cluster without a key", lab.run(*ASK, "--cluster", cluster.file), "--key")

# -- ports and models ----------------------------------------------------------------------------------------
busy = cluster.endpoints[0].replace("tcp://", "")
rest = ["--key", w1key, "--allow", allow, "--model", lab.model]
refused("ternd: a busy port", ternd("--listen", busy, *rest), re.escape(busy.split(":")[1]), "in use|busy")
refused("ternd: no port", ternd("--listen", "127.0.0.1", *rest), "ADDR:PORT")
refused("ternd: a port out of range", ternd("--listen", "127.0.0.1:70000", *rest), "70000|port")
refused("ternd: an address that is not ours", ternd("--listen", "192.0.2.1:7000", *rest), "192\\.0\\.2\\.1")
refused("ternd: a missing model", ternd(*base[:4], "--key", w1key, "--model", lab.path("gone.gguf")),
        "gone\\.gguf")
refused("tern: a missing model", lab.run(*ASK, "-m", lab.path("gone.gguf")), "gone\\.gguf")

# A model that differs in one weight.
data = bytearray(open(lab.model, "rb").read())
data[len(data) * 4 // 5] ^= 0x01  # in a matrix of a layer
lab.write("one-bit.gguf", bytes(data))
twin = lab.key("twin")
d = lab.daemon("twin", twin[0], late_allow, model=lab.path("one-bit.gguf"))
file = lab.write("twin.cluster", "twin %s %s\n" % (d.endpoint, twin[1]))
refused("a worker whose model file differs in one bit",
        lab.run(*ASK, "--cluster", file, "--key", cluster.key), "twin",
        "differ|not the same|other", "blk\\.")
lab.check(d.process.poll() is None, "the worker whose model differs stays up", d.log())

# What a worker cannot do with its file reaches the coordinator, even if the file's name is no text at all.
broken = bytearray(open(lab.model, "rb").read())
for i in range(len(broken) * 3 // 4, len(broken) * 3 // 4 + 20000):
    broken[i] = 0xff  # codes that are no weights
for name in (b"plain.gguf", b"no \xe9\xff text.gguf", "\u00e9".encode() * 120 + b".gguf"):
    path = os.path.join(os.fsencode(lab.dir), name)
    with open(path, "wb") as f:
        f.write(broken)
    path = os.fsdecode(path)
    d = lab.daemon("codes", twin[0], late_allow, model=path)
    file = lab.write("codes.cluster", "codes %s %s\n" % (d.endpoint, twin[1]))
    refused("a worker that cannot load %r" % name[:20],
            lab.run(*ASK, "-m", path, "--cluster", file, "--key", cluster.key), "codes",
            "the file is damaged")
    d.stop()

# A worker that serves somebody else names the holder.
slow = Cluster(lab, 2, tag="slow-", args=["--cpu", "ref", "--threads", 1])
p = lab.start(*lab.long_run(20), *slow.args())
os.read(p.stdout.fileno(), 1)
r = lab.run(*ASK, *slow.args())
refused("a worker that is held by another coordinator", r, "held|busy|serves")
lab.check(p.poll() is None, "the holder outlasts the question")
out, err = p.communicate(timeout=240)
lab.check(p.returncode == 0, "the holder is not disturbed", err)
for w in cluster.workers + slow.workers:
    lab.check(w.process.poll() is None, "%s is still up" % w.name, w.log())
lab.end()
