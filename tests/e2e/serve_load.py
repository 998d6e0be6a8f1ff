# SPDX-License-Identifier: Apache-2.0
"""A server with two workers under clients of all manners for some seconds: every request is answered or
refused with a status, and afterwards nothing runs, nothing is held and nothing leaks."""
from lab import Lab, descriptors, resident_bytes, wait_until
from serving import Server
from soak import Soak

SECONDS, CLIENTS = 8, 16

lab = Lab()
server = Server(lab, "--local", 2, "-t", 1, "--parallel", 6, "-c", 512, "--max-queue", 12, "--pooling",
                "mean")
Soak(server, 4, 1.5, seed=7).run()  # buffers find their size
soak = Soak(server, CLIENTS, SECONDS)
lab.check(soak.settle(), "idle before")
before = {name: (resident_bytes(pid), descriptors(pid)) for name, pid in soak.pids.items()}
soak.run()
print(soak.table(), flush=True)
lab.check(not soak.wrong, "every request is answered or refused with a status", "\n".join(soak.wrong[:10]))
lab.check(soak.total() > 40 and len(soak.tally) == len(soak.kinds), "of all kinds, %d" % soak.total(),
          soak.tally)
lab.check(soak.settle(), "afterwards nothing runs and every page is free or kept for prefixes",
          server.get("/tern/cluster").body[:2000] if server.alive() else server.daemon.log())
c = server.cluster()
lab.check(c["totals"]["cancelled"] > 0 and c["totals"]["ended"] > 0, "some ended, some were cancelled",
          c["totals"])
with open(lab.tern, "rb") as f:
    most = 400 if b"__asan_init" in f.read() else 64  # freed memory is kept to find uses of it
for name, pid in soak.pids.items():
    memory, files = before[name]
    lab.check(wait_until(lambda: descriptors(pid) <= files + 2), "%s has no more descriptors open" % name,
              "%d before, %d now" % (files, descriptors(pid)))
    grown = (resident_bytes(pid) - memory) / 1e6
    lab.check(grown < most, "%s has not grown much" % name, "%.1f MB" % grown)
server.check_stop()
lab.end()
