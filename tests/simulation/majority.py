"""Before the peace of all, in some seeds, that of a majority: the rest stays broken all the while.

    faults -> a majority is well, the others are broken for ever -> it must do all the work
           -> all is well

So many nodes are broken that each shard just keeps a majority of its voters. Where nodes came or
went, a calm comes first in which the list of nodes settles, or the phase is left out.

A client stays with a node whose beats say that it serves, and a node says so as long as it hears
a leader of shard 0. So clients do not reach a node that hears all and is heard by none; and next
to a bridge, on both sides of which shards may be led, only the node that hears all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.config import raft_id
from tests.simulation.network import FOR_EVER, between
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.simulation.client import SimClient
    from tests.simulation.scenario import Scenario

SHARE = 0.4
"""Of the seeds, how many have this phase, about."""
PROGRESS_MS = 30_000.0
"""What the majority gets. Beside one another: clients that try four silent nodes for 1.5 s each,
elections that fail four times at 2 s, sessions of nodes that are gone, noticed after 3 s and
closed 5 s later; what else is late comes on top."""
SETTLE_MS = 20_000.0
LOOK_MS = 500.0
CHANGES = ("join", "leave", "replace")

WAYS = (
    "crashed",
    "paused",
    "cut off",  # from all other nodes
    "deaf",  # is heard by them, hears none
    "mute",  # hears them, is heard by none, nor by clients
    "bridge",  # has a link with one of the majority alone, the only one that clients reach
)


class Majority:
    """The phase of one scenario. Its chance is a stream of its own."""

    def __init__(self, scene: Scenario) -> None:
        self._scene = scene
        self._chance = scene.world.chance("majority")
        self.wanted = self._chance.random() < SHARE
        self.broken: dict[str, str] = {}  #: node -> in which way
        self.took_ms = 0.0
        self._sent: dict[tuple[str, str], tuple[int, bytes]] = {}
        """(client, queue) -> the client's session that published, and the payload."""

    def run(self) -> None:
        """Heal a majority, break the rest. `Violation` when the work does not get done."""
        scene = self._scene
        if not self.wanted or not self._settles():
            return
        scene.heal()
        minority = self._minority()
        if not minority:
            return  # there are two nodes
        majority = [name for name in self._members() if name not in minority]
        self._chance.shuffle(majority)
        for name in minority:
            self._break(name, majority)
        scene.world.note(f"well: {', '.join(majority)}; broken: {self.broken}")
        start = scene.world.now
        while lacking := self._lacking():
            if scene.world.now >= start + PROGRESS_MS:
                text = f"{self.broken}, after {PROGRESS_MS:g} ms: {'; '.join(lacking)}"
                raise Violation("liveness of a majority", text)
            scene.until(scene.world.now + LOOK_MS)
        self.took_ms = scene.world.now - start

    # --- who is broken, and how -----------------------------------------------------------

    def _settles(self) -> bool:
        """Whether the list of nodes stands still; where nodes came or went, after a calm."""
        scene = self._scene
        if not any(scene.counts[kind] for kind in CHANGES):
            return True
        scene.heal()
        end = scene.world.now + SETTLE_MS
        while scene.operator.busy or not scene.operator.all_is_well():
            if scene.world.now >= end:
                return False
            scene.until(scene.world.now + LOOK_MS)
        return True

    def _members(self) -> list[str]:
        """Who belongs to the cluster, and is no learner."""
        zero = self._voters()[0]
        return [name for name in self._scene.nodes if raft_id(name) in zero]

    def _voters(self) -> dict[int, set[int]]:
        """Of each shard, as who has applied most of it knows them."""
        replicas = [
            shard
            for node in self._scene.nodes.values()
            if node.engine is not None
            for shard in node.engine.shards.values()
        ]
        replicas.sort(key=lambda shard: shard.applied)
        return {shard.number: {*shard.raft.membership.voters} for shard in replicas}

    def _minority(self) -> list[str]:
        """As many members as all shards can do without, at random."""
        members, left = self._members(), list(self._voters().values())
        names: list[str] = []
        for name in self._chance.sample(members, len(members)):
            ids = {raft_id(other) for other in [*names, name]}
            if all(2 * len(voters - ids) > len(voters) for voters in left):
                names.append(name)
        return names

    def _break(self, name: str, majority: list[str]) -> None:
        scene, chance = self._scene, self._chance
        node, way = scene.nodes[name], chance.choice(WAYS)
        others = [other for other in scene.nodes if other != name]
        self.broken[name] = way
        if way == "crashed":
            node.hold()
            node.crash()
            return
        if way == "paused":
            node.hold()
            node.pause()
            return
        known = majority[0] if way == "bridge" else ""
        to = [(name, other) for other in others if other != known and way != "deaf"]
        back = [(other, name) for other in others if other != known and way != "mute"]
        scene.network.block([*to, *back], FOR_EVER)
        if known:
            self.broken[name] += f" to {known}"
            away = [other for other in scene.nodes if other != known]
            scene.network.block(between(away, scene.clients), FOR_EVER)
        elif way == "mute" or chance.random() < 0.5:
            self.broken[name] += ", no clients"
            scene.network.block(between([name], scene.clients), FOR_EVER)

    # --- what is demanded -----------------------------------------------------------------

    def _lacking(self) -> list[str]:
        """What the majority still owes. Clients find its nodes by themselves."""
        scene = self._scene
        lacking = [
            f"shard {number} has no leader in service"
            for number in range(scene.setting.shards)
            if not self._is_led(number)
        ]
        for client in scene.clients.values():
            if not client.core.in_service or client.core.unanswered:
                lacking.append(f"{client.name} waits for {client.core.unanswered} answers")
            if client.publishing:
                lacking += [text for queue in scene.queues if (text := self._owes(client, queue))]
        return lacking

    def _is_led(self, number: int) -> bool:
        """Whether a node leads a shard that a majority of its voters can have elected."""
        return any(
            (shard := node.engine.shards.get(number)) is not None and shard.in_service
            for node in self._scene.nodes.values()
            if node.engine is not None
            and (node.name not in self.broken or self.broken[node.name].startswith("bridge"))
        )

    def _owes(self, client: SimClient, queue: str) -> str:
        """What becomes of a new message; it is sent once in each session of its client."""
        history = self._scene.history
        session, payload = self._sent.get((client.name, queue), (0, b""))
        if payload in history.confirmed:
            return "" if payload in history.delivered else f"{payload!r} is not delivered"
        if session != client.sessions and client.may_publish:
            payload = client.publish(queue, priority=9)
            self._sent[client.name, queue] = (client.sessions, payload)
        return f"{payload!r} of {client.name} for {queue} is not confirmed"
