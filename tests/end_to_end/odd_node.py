"""`raftmq node` with a machine that goes wrong: from the message b"odd" on it forgets one message.

Stands for whatever may make a replica differ: memory that lies, a bug that shows on one node.
"""

from __future__ import annotations

import broker.groups
from broker.cli import main
from broker.machines.commands import AnyCommand, Enqueue
from broker.machines.effects import Effect
from broker.machines.machine import Machine


class OddMachine(Machine):
    """Takes no notice of enqueuing a body that contains b"odd"."""

    def apply(self, index: int, now_ms: int, commands: list[AnyCommand]) -> list[Effect]:
        heard = [c for c in commands if not (isinstance(c, Enqueue) and b"odd" in c.payload)]
        return super().apply(index, now_ms, heard)


if __name__ == "__main__":
    broker.groups.Machine = OddMachine  # type: ignore[misc,attr-defined]
    main()
