# SPDX-License-Identifier: Apache-2.0
"""Memory of a worker with half of the layers of a model of more than 500 MB: what `tern inspect` predicts,
within 5 %.

The KV cache and the scratch memory become resident as they are used, so the prompt fills a whole chunk and
the text the whole context, and the largest figure counts.

For release builds: sanitizers keep memory of their own.
"""
import json
import os
import re
import shutil
import time

from lab import Cluster, Lab, wait_until

lab = Lab()
LAYERS, NEED = 30, 1200 << 20
if shutil.disk_usage(lab.dir).free < NEED:
    lab.skip("less than %d MiB free in %s" % (NEED >> 20, lab.dir))
    lab.end()
with open("/proc/meminfo") as f:
    available = int(re.search(r"MemAvailable:\s+(\d+) kB", f.read()).group(1)) << 10
if available < 2 * NEED:
    lab.skip("less than %d MiB of memory available" % (2 * NEED >> 20))
    lab.end()

big = lab.path("big.gguf")
r = lab.run("--layers", LAYERS, "--embd", 2560, "--ffn", 6912, "--heads", 20, "--kv-heads", 5, "--head-dim",
            128,
            "--ctx", 512, "--tokenizer", lab.model, "--type", "i2_s", big,
            program=os.path.join(lab.build, "bin", "make_model"), timeout=200)
lab.check(r.code == 0 and os.path.getsize(big) >= 500 << 20, "a model of %d MB" %
          (os.path.getsize(big) / 1e6), r.errors)


def mapped(pid, path=None):
    """PSS in bytes of a process, or the resident bytes of one file in it."""
    name = "smaps" if path else "smaps_rollup"
    total, inside = 0, path is None
    with open("/proc/%d/%s" % (pid, name)) as f:
        for line in f:
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)", line)
            if head:
                inside = path is None or head.group(1) == path
            elif inside and line.startswith("Rss:" if path else "Pss:"):
                total += int(line.split()[1]) << 10
    return total


def numbers(value, found, prefix=""):
    if isinstance(value, dict):
        for k, v in value.items():
            numbers(v, found, prefix + k + ".")
    elif isinstance(value, list):
        for i, v in enumerate(value):
            numbers(v, found, prefix + "%d." % i)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found[prefix[:-1]] = value
    return found


# What is predicted of layers 0 to 14 in one worker.
CONTEXT, THREADS = 512, 1
r = lab.run("inspect", "-m", big, "--json", "--layers", "0-14", "-c", CONTEXT, "-t", THREADS)
lab.check(r.code == 0, "tern inspect predicts", r.errors)
prediction = json.loads(r.text)["memory"]
half = prediction["total_bytes"]
ternary = prediction["tiles_bytes"]
lab.check(abs(ternary - 2084 * 1e6 / 8) < 0.05 * 2084 * 1e6 / 8,
          "half of the ternary bytes are predicted: %.1f MB" % (ternary / 1e6))

cluster = Cluster(lab, 2, model=big, args=["--threads", THREADS])
p = lab.start("run", "-m", big, "-n", 60, "--temp", 0, "-c", CONTEXT, "-p", "Once upon a time " * 95,
              "--chunk", 256, "--ignore-eos", *cluster.args())
lab.check(os.read(p.stdout.fileno(), 1) != b"", "the first token")
peaks = [0, 0]
while p.poll() is None:
    for i, w in enumerate(cluster.workers):
        peaks[i] = max(peaks[i], mapped(w.process.pid))
    time.sleep(0.1)
for w, pss in zip(cluster.workers, peaks):
    wait_until(lambda: mapped(w.process.pid, big) < 8 << 20)
    file = mapped(w.process.pid, big)
    lab.check(abs(pss - half) <= 0.05 * half, "%s: PSS %.1f MB, predicted %.1f MB (%+.1f %%)" %
              (w.name, pss / 1e6, half / 1e6, 100 * (pss - half) / half))
    lab.check(file <= 8 << 20, "%s: %.1f MB of the file are resident in it" % (w.name, file / 1e6))
p.communicate(timeout=60)
lab.check(cluster.stop() == [0, 0], "the workers end cleanly")

# All in one process: what is predicted of a worker and of a coordinator, the program but once.
r = lab.run("inspect", "-m", big, "--json", "-c", CONTEXT, "-t", THREADS)
memory = json.loads(r.text)["memory"]
need = memory["total_bytes"] + memory["coordinator"]["total_bytes"] - memory["fixed_bytes"]
p = lab.start("run", "-m", big, "-n", 60, "--temp", 0, "-c", CONTEXT, "-p", "Once upon a time " * 95, "-t",
              THREADS, "--chunk", 256, "--ignore-eos")
peak = 0
while p.poll() is None:
    try:
        peak = max(peak, mapped(p.pid))
    except OSError:
        pass  # it has just ended
    time.sleep(0.1)
p.communicate(timeout=60)
lab.check(p.returncode == 0 and 0.9 * need < peak <= 1.1 * need,
          "in one process: %.1f MB resident at the most, predicted %.1f MB (%+.1f %%)" %
          (peak / 1e6, need / 1e6, 100 * (peak - need) / need))
lab.end()
