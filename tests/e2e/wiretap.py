# SPDX-License-Identifier: Apache-2.0
"""What passes between the processes is not readable: a TCP relay of our own in front of each worker records
every byte.

The record must hold neither the prompt (as text, as ids) nor any activation; the same search must find all
of it in a dump of what was handed to the links before encryption (the positive control).
"""
import json
import math
import os
import socket
import struct
import threading
import zlib

from lab import Cluster, Lab

PROMPT = "The princess whispered Rumpelstiltskin to the golden nightingale in the crystal garden"


class Relay(threading.Thread):
    """Listens on a port of its own, passes everything on to another, and keeps a copy of both directions."""

    def __init__(self, target):
        super().__init__(daemon=True)
        host, port = target.replace("tcp://", "").rsplit(":", 1)
        self.target = (host, int(port))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = "tcp://127.0.0.1:%d" % self.socket.getsockname()[1]
        self.record, self.lock, self.connections, self.pumps = bytearray(), threading.Lock(), 0, []
        self.start()

    def run(self):
        while True:
            near, _ = self.socket.accept()
            far = socket.create_connection(self.target)
            self.connections += 1
            for a, b in ((near, far), (far, near)):
                a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.pumps.append(threading.Thread(target=self.pump, args=(a, b), daemon=True))
                self.pumps[-1].start()

    def pump(self, a, b):
        stream = bytearray()
        try:
            while True:
                data = a.recv(65536)
                if not data:
                    break
                stream += data
                b.sendall(data)
        except OSError:
            pass
        with self.lock:
            self.record += stream
        for s in (a, b):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def needles(ids):
    """What must not be seen of the prompt: its words in three encodings, its ids in two, each by a name."""
    found = {}
    for word in [PROMPT] + [w for w in PROMPT.split() if len(w) > 5]:
        for encoding in ("utf-8", "utf-16-le", "utf-32-le"):
            found["%r in %s" % (word, encoding)] = word.encode(encoding)
    for i in range(0, len(ids) - 2):
        found["ids %d.. as int32" % i] = struct.pack("<3i", *ids[i:i + 3])
        found["ids %d.. as int64" % i] = struct.pack("<3q", *ids[i:i + 3])
    return found


def rows_of(dump):
    """Pieces of 32 bytes from all over the payloads, none of them monotonous."""
    pieces = [bytes(dump[i:i + 32]) for i in range(0, len(dump) - 32, 997)]
    return [p for p in pieces if len(set(p)) > 12]


def entropy(data):
    """Bits per byte."""
    counts = [0] * 256
    for b in data:
        counts[b] += 1
    return -sum(c / len(data) * math.log2(c / len(data)) for c in counts if c)


lab = Lab()
r = lab.run("tokenize", "-p", PROMPT, "--json")
parsed = json.loads(r.text)
ids = parsed["ids"] if isinstance(parsed, dict) else parsed
ids = [i["id"] if isinstance(i, dict) else i for i in ids]
lab.check(len(ids) > 10, "the prompt has %d ids" % len(ids))

for wire in ("f32", "int8"):
    relays = []

    def via(i, endpoint):
        relays.append(Relay(endpoint))
        return relays[-1].endpoint

    cluster = Cluster(lab, 2, tag=wire + "-", via=via)
    dump_file = lab.path(wire + ".dump")
    r = lab.run("run", "--wire", wire, "-n", 48, "--temp", 0, "-p", PROMPT, "--dump-steps", dump_file,
                *cluster.args())
    lab.check(r.code == 0, "%s: a run through the relays" % wire, r.errors)
    plain = lab.run("run", "--wire", wire, "-n", 48, "--temp", 0, "-p", PROMPT)
    lab.check(r.out == plain.out, "%s: the relays change nothing" % wire)
    cluster.stop()
    for relay in relays:
        for pump in list(relay.pumps):  # the connections are closed: what went through is on record
            pump.join(60)
        relay.socket.close()
    with open(dump_file, "rb") as f:
        dump = f.read()
    os.unlink(dump_file)
    texts, pieces = needles(ids), rows_of(dump)
    lab.check(len(pieces) >= 20, "%s: the dump has activations to look for (%d pieces)" % (wire, len(pieces)))

    # Positive control: the search finds everything that it looks for in the dump.
    lab.check(PROMPT.encode() in dump and any(name.startswith("ids") and n in dump for name,
                                              n in texts.items()),
              "%s: control: the prompt and its ids are found in the dump" % wire)
    lab.check(all(p in dump for p in pieces), "%s: control: every piece is found in the dump" % wire)
    lab.check(len(zlib.compress(dump, 1)) < 0.97 * len(dump), "%s: control: the dump is not noise" % wire)

    # On the wire: coordinator to 1, coordinator to 2 and 1 to 2.
    lab.check(relays[0].connections >= 1 and relays[1].connections >= 2,
              "%s: the relays saw the coordinator twice and worker 1 once (%d, %d)" %
              (wire, relays[0].connections, relays[1].connections))
    for i, relay in enumerate(relays):
        record = bytes(relay.record)
        lab.check(len(record) > len(dump) / 4, "%s: relay %d recorded %d bytes" % (wire, i + 1, len(record)))
        seen = [name for name, n in texts.items() if n in record]
        lab.check(not seen, "%s: relay %d: nothing of the prompt" % (wire, i + 1), seen)
        seen = [p.hex() for p in pieces if p in record]
        lab.check(not seen, "%s: relay %d: none of %d pieces of activations" % (wire, i + 1, len(pieces)),
                  seen)
        # Frames and nonces are regular and many here, messages short: so not quite 8.
        lab.check(entropy(record) > 7.75 > entropy(dump), "%s: relay %d: %.3f bits a byte, %.3f in the dump" %
                  (wire, i + 1, entropy(record), entropy(dump)))
lab.end()
