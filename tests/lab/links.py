# SPDX-License-Identifier: Apache-2.0
"""Links for tests and measurements: the delay proxy in front of ports, or of all workers of a cluster."""
import os
import select
import signal
import subprocess


class Proxy:
    """A delay_proxy with one link to each of the target ports on 127.0.0.1; `options` has the arguments that
    stand in front of each link."""

    def __init__(self, lab, targets, options):
        self.program = os.path.join(lab.build, "bin", "delay_proxy")
        ready, theirs = os.pipe()
        command = [self.program, "--ready-fd", str(theirs)]
        for port, more in zip(targets, options):
            command += [str(x) for x in more]
            command += ["--listen", "127.0.0.1:0", "--to", "127.0.0.1:%d" % port]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, pass_fds=[theirs])
        lab.children.append(self.process)
        os.close(theirs)
        text = b""
        while text.count(b"\n") < len(targets) and select.select([ready], [], [], 20)[0]:
            data = os.read(ready, 4096)
            if not data:
                break
            text += data
        os.close(ready)
        self.ports = [int(x) for x in text.split()]
        if len(self.ports) != len(targets):
            raise RuntimeError("delay_proxy does not say where it listens: " + self.stop())

    def stop(self):
        """What it said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=20)[1].decode("utf-8", "replace")


def delayed(lab, spec, proxies):
    """For Cluster(via=...): puts a proxy with this SPEC, both ways, in front of each worker, and into the
    list."""
    def via(_, endpoint):
        proxies.append(Proxy(lab, [int(endpoint.rsplit(":", 1)[1])], [["--both", spec]]))
        return "tcp://127.0.0.1:%d" % proxies[-1].ports[0]
    return via
