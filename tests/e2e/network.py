# SPDX-License-Identifier: Apache-2.0
"""A cluster over several machines (network namespaces) with cables of 100 Mbit/s: the same text, and a
machine that goes off the network is named; and processes on a share of a CPU."""
import os
import subprocess
import sys
import time

from lab import Cluster, Lab, wait_until
from machines import Network, Quota, cpu_seconds

net = Network(3, mbit=100)  # before any thread
lab = Lab()
if net.why:
    lab.skip(net.why)
    lab.end()
here, workers = net.machines[0], net.machines[1:]
tern = here.program(lab, lab.tern, "tern")

# -- the cable -----------------------------------------------------------------------------------------------
BYTES = 4000000
sink = subprocess.Popen([workers[0].program(lab, "/usr/bin/env", "env"), "python3", "-c",
                         "import socket; s = socket.create_server(('', 7000)); print('up', flush=True)\n"
                         "c = s.accept()[0]\nwhile c.recv(65536): pass\nc.send(b'x')"],
                        stdout=subprocess.PIPE)
lab.children.append(sink)
sink.stdout.readline()
source = lab.run("python3", "-c", "import socket, time; c = socket.create_connection(('%s', 7000))\n"
                 "t = time.monotonic(); c.sendall(bytes(%d)); c.shutdown(socket.SHUT_WR); c.recv(1)\n"
                 "print(time.monotonic() - t)" % (workers[0].address, BYTES),
                 program=here.program(lab, "/usr/bin/env", "env"))
lab.check(source.code == 0 and 0.25 < float(source.text) < 5, "4 MB take 0.32 s at 100 Mbit/s or longer",
          source.text + source.errors)

# -- the same text -------------------------------------------------------------------------------------------
PROMPT = ["run", "-n", 40, "--temp", 0, "-q", "--ignore-eos", "-p", "Once upon a time there was a"]
alone = lab.run(*PROMPT)
cluster = Cluster(lab, 2, machines=workers, args=["--cpu", "ref", "--threads", "1"])
lab.check(all(w.endpoint.startswith("tcp://10.77.0.") for w in cluster.workers), "workers on other machines",
          [w.endpoint for w in cluster.workers])
r = lab.run(*PROMPT, *cluster.args(), program=tern)
lab.check(r.code == 0 and r.out == alone.out and len(r.out) > 40, "the same text over the network",
          r.errors + r.text)

# -- off the network -----------------------------------------------------------------------------------------
p = lab.start(*lab.long_run(30), *cluster.args(), program=tern)
lab.check(wait_until(lambda: cluster.workers[1].count("loaded ") == 2), "a long run begins",
          cluster.workers[1].log())
time.sleep(1)
workers[1].unplug()
start = time.monotonic()
try:
    err = p.communicate(timeout=60)[1].decode("utf-8", "replace")
except subprocess.TimeoutExpired:
    p.kill()
    err = "still runs: " + p.communicate()[1].decode("utf-8", "replace")
seconds = time.monotonic() - start
lab.check(p.returncode not in (0, None, -9) and "w2" in err and 2 < seconds < 15,
          "a machine without its cable is named after 3 s", "%.1f s: %s" % (seconds, err))
workers[1].plug()
cluster.stop()
net.close()

# -- a share of a CPU ----------------------------------------------------------------------------------------
quota = Quota(0.2)
if quota.why:
    lab.skip(quota.why)
else:
    p = lab.start("-c", "while True: pass", program=sys.executable)
    quota.add(p.pid)
    before, start = cpu_seconds(p.pid), time.monotonic()
    time.sleep(1.5)
    share = (cpu_seconds(p.pid) - before) / (time.monotonic() - start)
    p.kill()
    p.wait()
    quota.close()
    lab.check(0.02 < share < 0.3, "a process gets the share of a CPU that it may have", share)
    lab.check(not os.path.exists(quota.top), "and nothing of that is left behind", quota.top)
lab.end()
