"""A site whose nodes are child processes of the test."""

import contextlib
import os
import subprocess
from pathlib import Path

from testsite import Site, alive, wait_for


class ProcessSite(Site):
    """A site whose nodes are our own child processes: how they end is known, and they can be told a point at which they die."""

    def __init__(self, binary, **options):
        self.children = {}
        super().__init__(binary, **options)

    def start(self, number, points=None):
        environment = {**os.environ, **({"FAILPOINTS": points} if points else {})}
        command = [str(self.binary), "run", "--config", str(self.dir / f"node-{number}.toml")]
        with open(self.dir / f"node-{number}.log", "ab") as log:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        self.children[number] = child
        self.node(number)["pid"] = child.pid
        self.pids.add(child.pid)

    def is_dead(self, number):
        child = self.children.get(number)
        return child.poll() is not None if child else not alive(self.node(number)["pid"])

    def end(self, number, kind):
        """Ends a node, in order or not."""
        if not self.is_dead(number):
            os.kill(self.node(number)["pid"], kind)
            wait_for(f"the end of node {number}", lambda: self.is_dead(number), 30, 0.01)

    def is_serving(self, number):
        with contextlib.suppress(Exception):
            with self.imap(number, 1, timeout=5) as client:
                client.logout()
                return True

    def wait_serving(self, number, timeout=60):
        def serves():
            assert not self.is_dead(number), f"node {number} ended by itself: {self.children[number].poll()}"
            return self.is_serving(number)

        wait_for(f"node {number} to serve", serves, timeout, 0.1)

    def deaths(self, number):
        """The points at which a node died, as it wrote them down itself."""
        path = Path(self.node(number)["dir"] + ".killed")
        return path.read_text().splitlines() if path.exists() else []

    def log_size(self, number):
        return (self.dir / f"node-{number}.log").stat().st_size

    def log_since(self, number, offset):
        """What a node wrote about itself after its log had this size."""
        return (self.dir / f"node-{number}.log").read_bytes()[offset:].decode(errors="replace")
