"""An operator in the simulation: adds, promotes, removes and replaces nodes, one after the other.

    join      add -> start the new node -> promote, asked again until it is so
    leave     remove
    replace   a disk is lost; the node comes back empty under its old name, for nobody to
              believe; it is removed, and a new one joins

What is asked goes to a node that lives, as `raftmq cluster` does it; a refusal is an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.changes import OK, Verdict
from broker.config import Config, Peer
from broker.errors import Code
from broker.machines.members import Members, NodeState
from tests.simulation.node import SimNode

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

ASK_MS = 100.0
ANSWER_MS = 10_000.0
PROMOTE_AGAIN_MS = 500.0
NODES_MAX = 6
TRIES_MAX = 10


class Operator:
    """Does one thing at a time; `busy` says what."""

    def __init__(self, scene: Scenario) -> None:
        self.busy = ""
        self._scene = scene
        self._count = len(scene.nodes)
        self._tries = 0

    # --- what there is to do --------------------------------------------------------------

    def join(self) -> bool:
        """A new node; False when there is no time for it."""
        members = self._members()
        if self.busy or members is None or len(members.present) >= NODES_MAX:
            return False
        self._count += 1
        name = f"n{self._count}"
        self.busy = f"{name} joins"
        self._ask("add", name, lambda code: self._added(name, code))
        return True

    def leave(self, place: int) -> bool:
        """One of the members goes; which one is counted from the oldest on."""
        name = self._one_of_members(place)
        if self.busy or name is None:
            return False
        self.busy = f"{name} leaves"
        self._ask("remove", name, lambda code: self._done())
        return True

    def replace(self, place: int) -> bool:
        """A member's disk is lost, when all the others have what was on it."""
        name = self._one_of_members(place)
        if self.busy or name is None or not self.all_is_well():
            return False
        self.busy = f"{name} is replaced"
        node = self._scene.nodes[name]
        node.lose_disk()
        self._scene.world.after(PROMOTE_AGAIN_MS, node.restart)
        self._scene.world.after(4 * PROMOTE_AGAIN_MS, lambda: self._remove(name))
        return True

    # --- steps ----------------------------------------------------------------------------

    def _added(self, name: str, code: int | None) -> None:
        if code == Code.PRECONDITION_FAILED and self._tries < TRIES_MAX:
            self._tries += 1  # another change runs, as far as that node knows
            again = lambda: self._ask("add", name, lambda code: self._added(name, code))  # noqa: E731
            self._scene.world.after(PROMOTE_AGAIN_MS, again)
            return
        self._tries = 0
        if code != OK:
            self._done()  # refused, or nobody could say: it may be listed, and never come
            return
        scene = self._scene
        node = scene.nodes[name] = SimNode(
            scene.world, scene.network, self._config(name), scene.nodes, founding=self._founding()
        )
        node.on_turn = scene.checker.turned
        node.start()
        self._promote(name)

    def _promote(self, name: str) -> None:
        self._ask("promote", name, lambda code: self._promoted(name, code))

    def _promoted(self, name: str, code: int | None) -> None:
        members = self._members()
        record = members.get(name) if members is not None else None
        if code == OK or (record is not None and record.state is not NodeState.JOINING):
            self._done()
        else:
            self._scene.world.after(PROMOTE_AGAIN_MS, lambda: self._promote(name))

    def _remove(self, name: str) -> None:
        def removed(code: int | None) -> None:
            if code == OK:
                self.busy = ""
                self.join()
            else:
                self._scene.world.after(PROMOTE_AGAIN_MS, lambda: self._remove(name))

        self._ask("remove", name, removed)

    def _done(self) -> None:
        self.busy = ""

    # --- asking ---------------------------------------------------------------------------

    def _ask(self, kind: str, name: str, then: Callable[[int | None], None]) -> None:
        """Ask a node that lives, again and again; `then` gets the code, or None for no answer."""
        world = self._scene.world
        node = self._some_node()
        if node is None or node.engine is None:
            world.after(ASK_MS, lambda: self._ask(kind, name, then))
            return
        engine, end = node.engine, world.now + ANSWER_MS
        number = engine.changes.begin(kind, name, "sim", int(name[1:]))
        answers: list[Verdict | None] = []

        def look() -> None:
            if node.engine is not engine or world.now > end:
                then(None)
                return
            answer = answers[-1] if answers else None
            if answer is not None:
                world.note(f"operator: {kind} {name}: {answer.code} {answer.text}")
                engine.changes.end(number)
                then(answer.code)
                return
            # In a turn of the node, when it has one: a node that stands still answers nothing.
            node.take(lambda engine: answers.append(engine.changes.answer(number)))
            world.after(ASK_MS, look)

        look()

    # --- looking --------------------------------------------------------------------------

    def _some_node(self) -> SimNode | None:
        nodes = [node for node in self._scene.nodes.values() if self._is_well(node)]
        return self._scene.world.chance("operator").choice(nodes) if nodes else None

    @staticmethod
    def _is_well(node: SimNode) -> bool:
        return node.engine is not None and not node.paused and not node.wiped

    def _members(self) -> Members | None:
        """The newest list that any node has."""
        lists = [
            node.engine.shards[0].machine.members
            for node in self._scene.nodes.values()
            if node.engine is not None
        ]
        return max(lists, key=lambda members: members.version, default=None)

    def _one_of_members(self, place: int) -> str | None:
        members = self._members()
        if members is None:
            return None
        names = [node.name for node in members.in_state(NodeState.MEMBER)]
        names = [name for name in names if name in self._scene.nodes]
        return names[place % len(names)] if len(names) >= 3 else None

    def all_is_well(self) -> bool:
        """No change runs, and every member's disk is registered on every node that lives."""
        lists = [
            node.engine.shards[0].machine.members
            for node in self._scene.nodes.values()
            if node.engine is not None
        ]
        nodes = [node for node in self._scene.nodes.values() if not node.gone]
        return (
            all(node.engine is not None and not node.wiped for node in nodes)
            and len({members.version for members in lists}) == 1
            and all(members.is_settled() for members in lists)
            and all(record.disk for members in lists for record in members.present)
        )

    def _founding(self) -> Config:
        return next(iter(self._scene.nodes.values())).config

    def _config(self, name: str) -> Config:
        """What a node that joins is told: the list as it is."""
        members = self._members()
        assert members is not None
        own = Peer(name, "sim", int(name[1:]))
        peers = [Peer(node.name, node.host, node.port) for node in members.present]
        return self._scene.setting.config_of(own, (*[p for p in peers if p != own], own))
