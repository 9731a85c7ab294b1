"""Where the nodes' time goes: the cluster with each node under a profiler.

With py-spy on the PATH the nodes run as always and are sampled; without it they run under
cProfile, which makes small functions look dearer than they are: read its shares, not its sums.
"""

from __future__ import annotations

import collections
import io
import pstats
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import Cluster, ClusterNode

LINES = 25
RATE_HZ = 250
STOP_S = 10.0


class ProfiledCluster(Cluster):
    """Nodes that leave a profile beside their data when they end."""

    def arguments(self, node: ClusterNode) -> list[str]:
        interpreter, *words = super().arguments(node)
        return [interpreter, "-m", "cProfile", "-o", str(node.directory / "profile"), *words]


class Sampler:
    """py-spy on every node of a running cluster, from construction to `stop`."""

    def __init__(self, cluster: Cluster) -> None:
        self._raw = {node.id: node.directory / "stacks" for node in cluster.nodes}
        self._processes = [
            subprocess.Popen(
                ["py-spy", "record", "--nonblocking", "--rate", str(RATE_HZ), "--format", "raw",
                 "--output", str(self._raw[node.id]), "--pid", str(node.process.pid)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for node in cluster.nodes
            if node.process is not None
        ]  # fmt: skip

    def stop(self) -> str:
        """The functions that were running most often, of all nodes together."""
        for process in self._processes:
            process.send_signal(2)
        for process in self._processes:
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return describe_stacks(path.read_text() for path in self._raw.values() if path.exists())


def can_sample() -> bool:
    """Whether py-spy is there."""
    return shutil.which("py-spy") is not None


def describe_stacks(texts: collections.abc.Iterable[str]) -> str:
    """Shares by the innermost frame, and by every frame on the stack."""
    inner: collections.Counter[str] = collections.Counter()
    anywhere: collections.Counter[str] = collections.Counter()
    for text in texts:
        for line in text.splitlines():
            stack, _, count = line.rpartition(" ")
            frames = stack.split(";")
            inner[frames[-1]] += int(count)
            for frame in set(frames):
                anywhere[frame] += int(count)
    total = max(1, inner.total())
    lines = [f"{total} samples of all nodes", "share  itself"]
    lines += [f"{100 * n / total:5.1f}  {frame}" for frame, n in inner.most_common(LINES)]
    lines += ["share  with what it calls"]
    lines += [f"{100 * n / total:5.1f}  {frame}" for frame, n in anywhere.most_common(LINES)]
    return "\n".join(lines)


def describe_profiles(directory: Path) -> str:
    """The dearest functions by their own time, of all nodes below `directory` together."""
    profiles = sorted(str(path) for path in directory.glob("*/profile"))
    if not profiles:
        return f"no node left a profile below {directory}"
    text = io.StringIO()
    stats = pstats.Stats(*profiles, stream=text)
    stats.strip_dirs().sort_stats("tottime").print_stats(LINES)
    return text.getvalue()


if __name__ == "__main__":
    print(describe_profiles(Path(sys.argv[1])))
