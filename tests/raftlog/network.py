"""A group in a bad network, from one seed, with its invariants checked at every step.

Messages are lost, doubled and overtake each other; links break in one direction; nodes crash
between any two steps of a turn and lose what was not written; they take snapshots, compact,
change members, hand over leadership and answer reads. `run` ends with a time in which all is
well, and demands progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from random import Random

from raftlog.config import Config
from raftlog.errors import RaftError
from raftlog.membership import Change, Step, StepKind, Transition, members
from raftlog.messages import (
    Membership,
    Message,
    SnapshotRequest,
    decode_message,
    encode_message,
)
from raftlog.node import Role
from tests.raftlog.checker import Checker
from tests.raftlog.host import Host
from tests.raftlog.trials import all_trials
from tests.simulation.violation import Violation, noticed

POOL_MAX = 300
HEALING_ROUNDS = 1000


class Network:
    """The group, its messages and its troubles."""

    def __init__(self, seed: int, *, swarm: bool = True) -> None:
        self.rng = Random(seed)
        factors = Random(f"{seed}/troubles")
        self.weights = [
            weight * factors.choice(FACTORS) if swarm and action in RARE else weight
            for action, weight in zip(ACTIONS, WEIGHTS, strict=True)
        ]
        rng = self.rng
        count = rng.choice([3, 3, 5])
        self.founders = tuple(range(1, count + 1))
        self.options = {
            "pre_vote": rng.random() < 0.8,
            "check_quorum": rng.random() < 0.8,
            "eager_commit": rng.random() < 0.7,
            "max_inflight_messages": rng.choice([1, 3, 256]),
            "max_entry_bytes_per_message": rng.choice([1, 50, 1 << 20]),
            "max_committed_bytes_per_ready": rng.choice([1, 50, 1 << 20]),
            "max_cached_bytes": rng.choice([0, 300, 1 << 20]),
            "max_uncommitted_bytes": rng.choice([100, 1 << 20]),
            "snapshot_tick": rng.choice([20, 100]),
            "step_down_on_removal": rng.random() < 0.9,
        }
        self.loss = rng.choice([0.0, 0.05, 0.3])
        self.changes = rng.random() < 0.5
        self.hosts = {id: self._host(id, Membership(voters=self.founders)) for id in self.founders}
        self.checker = Checker(self.hosts, Membership(voters=self.founders))
        self.pool: list[Message] = []
        self.broken: set[tuple[int, int]] = set()
        self.reads: dict[bytes, int] = {}  # name -> what was committed when it was asked
        self.answered = 0
        self.number = 0
        self.trace: deque[str] = deque(maxlen=60)

    def _host(self, id: int, membership: Membership) -> Host:
        config = Config(id=id, rng=self.rng, **self.options)  # type: ignore[arg-type]
        return Host(config, membership)

    # --- one step ------------------------------------------------------------------------

    def step(self) -> None:
        """Something happens to somebody."""
        action = self.rng.choices(ACTIONS, self.weights)[0]
        host = self.rng.choice(list(self.hosts.values()))
        self.trace.append(f"{action.__name__} {host.node.id}")
        action(self, host)
        self.checker.looked_at(host)

    def tick(self, host: Host) -> None:
        host.node.tick()

    def deliver(self, host: Host) -> None:
        if not self.pool:
            return
        place = self.rng.randrange(len(self.pool))
        message = self.pool[place]
        if self.rng.random() >= 0.1:  # otherwise it will come once more
            self.pool[place] = self.pool[-1]
            self.pool.pop()
        if self.rng.random() >= self.loss:
            self.arrive(message)

    def arrive(self, message: Message) -> None:
        if (message.sender, message.target) in self.broken or message.target not in self.hosts:
            return
        self.checker.step(self.hosts[message.target], decode_message(encode_message(message)))

    def turn(self, host: Host) -> None:
        """The next part of a turn; a crash may come between any two."""
        if host.ready is None:
            if host.node.has_ready():
                self.send(host, host.begin())
        else:
            self.complete(host)

    def complete(self, host: Host, crash: float = 0.01) -> None:
        assert host.ready is not None
        ready = host.ready
        after = host.write()
        if ready.must_sync:
            self.checker.written(host, ready.entries)
        if self.rng.random() < crash:
            host.start()  # written, but nobody hears of it
            return
        self.send(host, after)
        self.checker.applied(ready.committed)
        host.finish()
        self._check_reads(host)
        self.checker.looked_at(host)  # before its membership changes once more

    def send(self, host: Host, messages: list[Message]) -> None:
        for message in messages:
            self.checker.sent(host, message)
            if isinstance(message, SnapshotRequest) and self.rng.random() < 0.3:
                host.node.report_snapshot(message.target, ok=False)
            else:
                self.pool.append(message)
        while len(self.pool) > POOL_MAX:
            self.pool.pop(self.rng.randrange(len(self.pool)))

    def _check_reads(self, host: Host) -> None:
        for read in host.reads:
            assert isinstance(read.context, bytes)
            asked = self.reads.pop(read.context)
            if read.index < asked:
                raise Violation("reads are not stale", f"{read}, asked at {asked}")
            self.answered += 1
        host.reads.clear()

    def propose(self, host: Host) -> None:
        for leader in self._leaders():
            self.number += 1
            transferee = leader.node.status().transferee
            if self._try(partial(leader.node.propose, b"%d" % self.number)) and transferee:
                text = f"{leader.node.id} to {transferee}"
                raise Violation("transfers refuse proposals", text)

    def read(self, host: Host) -> None:
        self.number += 1
        name = b"r%d" % self.number
        self.reads[name] = len(self.checker.committed) - 1
        self._try(partial(host.node.read_index, name))

    def crash(self, host: Host) -> None:
        host.start()
        if self.rng.random() < 0.5:
            for other in self.hosts.values():
                other.node.peer_lost(host.node.id)

    def snapshot(self, host: Host) -> None:
        if host.ready is None and host.machine.index > host.storage.snapshot().index:
            host.take_snapshot()
            limit = host.storage.snapshot().index
            if self.rng.random() < 0.7:
                limit = min(limit, host.node.compactable_to())
                self._check_compaction(host, limit)
            if limit >= host.storage.first_index():
                host.storage.compact(limit)

    def _check_compaction(self, host: Host, limit: int) -> None:
        """Nobody who answers is cut off, except where a snapshot is on its way."""
        for member, progress in host.node.status().progress.items():
            near = max(progress.match, progress.pending_snapshot)
            if progress.recent_active and near < limit:
                text = f"{host.node.id} up to {limit}, {member} needs {near + 1}"
                raise Violation("compaction spares who follows", text)

    def transfer(self, host: Host) -> None:
        for leader in self._leaders():
            leader.node.transfer_leader(host.node.id)

    def campaign(self, host: Host) -> None:
        host.node.campaign()

    def partition(self, host: Host) -> None:
        ids = list(self.hosts)
        kind = self.rng.randrange(4)
        if kind == 0:
            self.broken = set()
        elif kind == 1:
            self.broken = {(a, b) for a in ids for b in ids if self.rng.random() < 0.3}
        elif kind == 2:
            side = set(self.rng.sample(ids, len(ids) // 2))
            self.broken = {(a, b) for a in ids for b in ids if (a in side) != (b in side)}
        else:  # a bridge: all hear `host`, and it them; the rest is in two halves
            bridge = host.node.id
            side = set(self.rng.sample(ids, len(ids) // 2))
            self.broken = {
                (a, b)
                for a in ids
                for b in ids
                if (a in side) != (b in side) and bridge not in (a, b)
            }

    def change(self, host: Host) -> None:
        if not self.changes:
            return
        for leader in self._leaders():
            change = self._some_change(leader)
            self._try(partial(leader.node.propose_conf_change, change))

    def _some_change(self, leader: Host) -> Change:
        if leader.node.membership.outgoing:
            return Change()
        rng = self.rng
        nodes = rng.sample(range(1, 7), rng.choice([1, 1, 2, 3]))
        steps = tuple(Step(rng.choice(list(StepKind)), node) for node in nodes)
        for node in nodes:
            if node not in self.hosts:
                self.hosts[node] = self._host(node, Membership())
        return Change(steps, rng.choice(list(Transition)))

    def _try(self, event: Callable[[], object]) -> bool:
        try:
            event()
        except RaftError as refusal:
            self.trace.append(f"refused: {refusal}")
            return False
        return True

    def _leaders(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.node.role is Role.LEADER]

    # --- in the end ----------------------------------------------------------------------

    def heal(self) -> None:
        """All is well from now on: within a bounded time all members apply a new entry."""
        self.broken, self.loss, wanted = set(), 0.0, b"at last"
        for host in self.hosts.values():
            if host.ready is not None:
                self.complete(host)
        for round in range(HEALING_ROUNDS):
            self._round()
            if round > 50 and round % 20 == 0:
                self._propose_at_the_top(wanted)
            if self._all_have(wanted):
                return
        raise Violation("liveness", f"no progress: {self.states()}")

    def rounds(self, count: int, still: Collection[int] = ()) -> None:
        """Time passes, not for those in `still`, and what was sent arrives where it can."""
        for _ in range(count):
            self._round(still)

    def _round(self, still: Collection[int] = ()) -> None:
        for host in self.hosts.values():
            if host.node.id not in still:
                host.node.tick()
                self.checker.looked_at(host)
            while host.node.has_ready():
                self.send(host, host.begin())
                self.complete(host, crash=0.0)
            self.checker.looked_at(host)
        waiting, self.pool = self.pool, []
        for message in waiting:
            self.arrive(message)

    def cut_off(self, id: int) -> None:
        """Break every link of a node."""
        self.broken |= {link for other in self.hosts for link in ((id, other), (other, id))}

    def top(self) -> Host | None:
        """The leader of the highest term, if somebody leads."""
        return max(self._leaders(), key=lambda host: host.node.term, default=None)

    def states(self) -> list[object]:
        """What all nodes are, for a text."""
        return [host.node.status() for host in self.hosts.values()]

    def _propose_at_the_top(self, data: bytes) -> None:
        """To leaders that have committed all they have: that is due without any proposal."""
        for host in self._leaders():
            if host.node.commit < host.node.last_index:
                continue
            if host.node.membership.outgoing and not host.node.membership.auto_leave:
                self._try(partial(host.node.propose_conf_change, Change()))
            self._try(partial(host.node.propose, data))

    def _all_have(self, data: bytes) -> bool:
        top = self.top()
        if top is None or data not in top.machine.data:
            return False
        present = members(top.node.membership)
        return all(data in self.hosts[id].machine.data for id in present)


ACTIONS: list[Callable[[Network, Host], None]] = [
    Network.tick,
    Network.deliver,
    Network.turn,
    Network.propose,
    Network.read,
    Network.crash,
    Network.snapshot,
    Network.transfer,
    Network.campaign,
    Network.partition,
    Network.change,
]
WEIGHTS = [150, 400, 400, 40, 20, 3, 8, 2, 2, 2, 4]
RARE = ACTIONS[5:]
FACTORS = [0, 1, 1, 3, 10]
"""How much more often than usual a trouble comes in a seed: each has its own mixture."""


def run(seed: int, steps: int, *, swarm: bool = True) -> Network:
    """Run one seed; a `Violation` names it and shows what happened last."""
    network = Network(seed, swarm=swarm)
    try:
        for _ in range(steps):
            network.step()
        network.heal()
        all_trials(network)
    except Exception as error:
        violation = error if isinstance(error, Violation) else noticed(error)
        trace = "\n".join(network.trace)
        text = f"{violation.text}, in seed {seed} after\n{trace}"
        raise Violation(violation.checker, text) from error
    return network
