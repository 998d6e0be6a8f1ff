# SPDX-License-Identifier: Apache-2.0
"""The official openai client for JavaScript, unmodified, against tern serve: in one process and with three
workers, each answer as recorded in openai_client/golden.json (openai_client.py BUILD --record writes it).

Needs node and npm, and the package from npm's registry or its cache; skips without."""
import os
import shutil
import subprocess
import sys

from lab import Lab
from serving import Server

lab = Lab()
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openai_client")
KEY = "a-key-for-this-test"
FILES = ("package.json", "package-lock.json", "run.mjs", "calls.mjs")


def installed():
    """The folder with the client, or None."""
    where = os.path.join(lab.build, "openai_client")
    if not shutil.which("node") or not shutil.which("npm"):
        lab.skip("node or npm is missing")
        return None
    major = subprocess.run(["node", "-p", "process.versions.node"], capture_output=True, text=True).stdout
    if int(major.split(".")[0] or 0) < 20:
        lab.skip("node is older than 20: " + major.strip())
        return None
    os.makedirs(where, exist_ok=True)
    lock = os.path.join(where, "package-lock.json")
    with open(os.path.join(HERE, "package-lock.json"), "rb") as f:
        wanted = f.read()
    have = os.path.exists(lock) and open(lock, "rb").read() == wanted
    for name in FILES:
        shutil.copy(os.path.join(HERE, name), where)
    if have and os.path.isdir(os.path.join(where, "node_modules", "openai")):
        return where
    try:
        r = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"],
                           cwd=where, capture_output=True, text=True, timeout=120)
        why = r.stderr.strip()[-300:] if r.returncode else None
    except subprocess.TimeoutExpired:
        why = "it takes more than two minutes"
    if why is not None:
        os.remove(lock)
        lab.skip("npm cannot install the client (no registry?): " + why)
        return None
    return where


def calls(where, what, server, golden, *more):
    r = subprocess.run(["node", "run.mjs", server.url, KEY, golden] + list(more), cwd=where,
                       capture_output=True, text=True, timeout=240)
    lines = r.stdout.strip().splitlines()
    bad = "\n".join(line for line in lines if not line.startswith("ok: "))
    lab.check(r.returncode == 0 and lines and lines[-1].endswith("0 failed"), "the client, " + what,
              bad + r.stderr)
    print("  " + (lines[-1] if lines else "no calls"), flush=True)


def main():
    where = installed()
    if not where:
        lab.end()
    golden = os.path.join(HERE, "golden.json")
    for what, args in (("in one process", []), ("with three workers", ["--local", 3])):
        # Answers without an end do not end, however fast the machine is: their context is shifted.
        server = Server(lab, "--parallel", 4, "--context-shift", *args, key=KEY)
        record = "--record" in sys.argv and not args
        calls(where, what, server, golden, *(["--record"] if record else []))
        server.check_stop()
    lab.end()


main()
