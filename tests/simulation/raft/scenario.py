"""One group, its clients and the faults of one seed; then a majority is healed, and must go on.

    traffic and faults -> progress: a random majority is well, all else broken for ever
                       -> convergence: all is well, all members get everything

`run(seed)` is the way in for tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from raftlog.config import Config
from raftlog.membership import Change, is_joint, members
from raftlog.messages import EntryKind, Membership, Message
from raftlog.node import RawNode
from raftlog.ready import ReadState, Role
from tests.raftlog.script import show
from tests.simulation.raft.checks import Checker
from tests.simulation.raft.faults import RAFT
from tests.simulation.raft.host import Host
from tests.simulation.raft.links import Links
from tests.simulation.schedule import Fault, Place
from tests.simulation.violation import Violation, noticed
from tests.simulation.world import World

CHAOS_MS = 60_000.0
TICK_MS = 100.0
PROGRESS_MS = 120_000.0
"""What a healed majority gets: some dozens of election timeouts, or of snapshots that fail."""


@dataclass(frozen=True)
class Outcome:
    """What a run was like."""

    seed: int
    simulated_ms: float
    events: int
    confirmed: int  #: proposals that were applied
    reads: int
    terms: int
    faults: dict[str, int] = field(default_factory=dict)  #: by kind, those that did something
    like: str = ""  #: sizes and speeds


@dataclass(frozen=True)
class Setting:
    """What the group of a seed is like."""

    nodes: int
    options: dict[str, Any]  #: of Raft's `Config`
    think_ms: float  #: between two operations of the clients, on average
    snapshot_ms: float
    drift: float  #: how much clocks differ, as a share

    @property
    def robust(self) -> bool:
        """Whether this group must go on whatever nodes outside of a majority do."""
        return bool(self.options["pre_vote"] and self.options["check_quorum"])


def draw_setting(seed: int) -> Setting:
    """The setting of a seed, one stream of chance a field."""

    def choose(name: str, *values: Any) -> Any:
        return Random(f"{seed}/setting/{name}").choice(values)

    message = choose("message", 1, 50, 1 << 20, 1 << 20)
    yes_or_rarely_no = (True,) * 7 + (False,)
    return Setting(
        nodes=choose("nodes", 3, 3, 5),
        options={
            "pre_vote": choose("pre_vote", *yes_or_rarely_no),
            "check_quorum": choose("check_quorum", *yes_or_rarely_no),
            "eager_commit": choose("eager_commit", True, False),
            "step_down_on_removal": choose("step_down_on_removal", *yes_or_rarely_no),
            # Each message that overtakes another is a reject, and each reject has the whole
            # window sent again: many small messages would be all there is.
            "max_inflight_messages": choose("inflight", 1, 3, 256) if message > 50 else 3,
            "max_entry_bytes_per_message": message,
            "max_committed_bytes_per_ready": choose("committed", 1, 50, 1 << 20, 1 << 20),
            "max_cached_bytes": choose("cached", 0, 300, 1 << 20),
            "max_uncommitted_bytes": choose("uncommitted", 100, 1 << 20),
            "snapshot_tick": choose("snapshot_tick", 20, 100),
        },
        think_ms=choose("think_ms", 200.0, 1_000.0, 1_000.0),
        snapshot_ms=choose("snapshot_ms", 5.0, 500.0, 4_000.0),
        drift=choose("drift", 0.0, 0.05),
    )


def run(
    seed: int,
    chaos_ms: float = CHAOS_MS,
    faults: list[Fault] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Run one seed. Raise `Violation`, whatever it was that showed the bug."""
    return Scenario(seed, chaos_ms, faults, tell).run()


def draw(seed: int, chaos_ms: float) -> list[Fault]:
    """The faults of a seed."""
    nodes = list(range(1, draw_setting(seed).nodes + 1))
    return RAFT.draw(seed, Place(nodes, [], 1), 0.0, chaos_ms)


class Scenario:
    """One seed's group. `faults` in place of those that the seed draws."""

    def __init__(
        self,
        seed: int,
        chaos_ms: float = CHAOS_MS,
        faults: list[Fault] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.world = World(seed, tell)
        self.setting = draw_setting(seed)
        self.links = Links(self.world, self._deliver, self.setting.snapshot_ms)
        self.hosts: dict[int, Host] = {}
        self.founders = Membership(voters=tuple(range(1, self.setting.nodes + 1)))
        self.checker = Checker(self.hosts, self.founders)
        self.counts: Counter[str] = Counter()  #: faults that did something, by kind
        self.chaos_ms = chaos_ms
        self.peace = False
        self.faults = draw(seed, chaos_ms) if faults is None else faults
        self._clients = self.world.chance("clients")
        self._number = self._answered = 0
        self._asked: dict[bytes, int] = {}  #: read -> what was done when it was asked
        self._read = 0  #: the highest index that a read has shown
        for id in self.founders.voters:
            self.host(id, self.founders)

    def run(self) -> Outcome:
        """Chaos, then what must be possible all the same. `Violation` when something is not."""
        try:
            self._live()
        except Violation:
            raise
        except Exception as error:
            raise noticed(error) from error
        checker = self.checker
        return Outcome(
            self.world.seed,
            self.world.now,
            self.world.events,
            sum(bool(entry and entry.data) for entry in checker.history),
            self._answered,
            len(checker.leaders),
            dict(sorted(self.counts.items())),
            f"{self.setting.nodes} nodes x 1 group, {1000 / self.setting.think_ms:g} operations/s",
        )

    def _live(self) -> None:
        world = self.world
        for host in list(self.hosts.values()):
            host.start()
        for fault in self.faults:
            world.at(fault.at_ms, lambda fault=fault: self._strike(fault))
        self._operate()
        world.run_until(self.chaos_ms)
        world.note("peace")
        self.peace = True
        self._demand_progress()
        self._demand_convergence()

    # --- what faults use ------------------------------------------------------------------

    def host(self, id: int, membership: Membership | None = None) -> Host:
        """The host of this id; one that was never there joins with an empty disk."""
        host = self.hosts.get(id)
        if host is not None:
            return host
        chance = Random(f"{self.world.seed}/host {id}")
        tick_ms = TICK_MS * (1 + self.setting.drift * chance.uniform(-1, 1))
        options = self.setting.options

        def config(applied: int) -> Config:
            return Config(id=id, rng=chance, applied=applied, **options)

        host = self.hosts[id] = Host(
            self.world, config, id, membership or Membership(), self.checker, self._send, tick_ms
        )
        host.on_read = self._answer_read
        if membership is None:
            host.start()
        return host

    def crash(self, id: int, down_ms: float, hint: bool) -> bool:
        """Crash a host, and start it again after a while."""
        host = self.hosts[id]
        if host.node is None:
            return False
        host.crash()
        if hint:
            for other in list(self.hosts.values()):
                other.take(lambda node: node.peer_lost(id))
        self.world.after(down_ms, lambda: self._restart(host))
        return True

    def _restart(self, host: Host) -> None:
        if not (self.peace and host.id in self._broken):
            host.start()

    def later(self, delay_ms: float, act: Callable[[], object]) -> None:
        """A later part of a fault, unless there is peace by then."""
        self.world.after(delay_ms, lambda: None if self.peace else act() and None)

    def leaders(self) -> list[Host]:
        """All who think that they lead and are awake."""
        return [
            host
            for host in self.hosts.values()
            if host.node is not None and host.node.role is Role.LEADER and not host.paused
        ]

    def propose(self, data: bytes | None = None) -> bool:
        """A client's command, to all who think that they lead."""
        self._number += 1
        data = data or b"%d" % self._number
        taken = [host.attempt(lambda node: node.propose(data)) for host in self.leaders()]
        return any(taken)

    # --- the group's clients --------------------------------------------------------------

    def _operate(self) -> None:
        if self.peace:
            return
        chance = self._clients
        if chance.random() < 0.6:
            self.propose()
        else:
            self.ask(chance.choice(list(self.hosts.values())))
        self.world.after(chance.expovariate(1 / self.setting.think_ms), self._operate)

    def ask(self, host: Host) -> None:
        """A linearizable read at this host: later than all that anybody knows to be done."""
        self._number += 1
        name = b"r%d" % self._number
        if host.attempt(lambda node: node.read_index(name)):
            self._asked[name] = max(self.checker.done(), self._read)

    def _answer_read(self, host: Host, read: ReadState) -> None:
        assert isinstance(read.context, bytes)
        asked = self._asked.get(read.context, 0)
        shown = host.machine.index
        if read.index < asked or shown < asked:
            text = f"{host.id} shows {shown} (index {read.index}), {asked} was done when asked"
            raise Violation("reads are linearizable", text)
        self._read = max(self._read, shown)
        self._answered += 1

    def _send(self, message: Message) -> None:
        if self.world.tracing:
            self.world.detail(show(message))
        self.links.send(message)

    def _deliver(self, message: Message) -> None:
        host = self.hosts.get(message.target)
        if host is None:
            return
        if self.world.tracing and host.node is not None:
            self.world.detail(f"    {message.target} gets {show(message)}")
        host.receive(message)

    def _strike(self, fault: Fault) -> None:
        arguments = ", ".join(f"{key}={value}" for key, value in fault.arguments.items())
        self.world.note(f"* {fault.kind}({arguments})")
        if RAFT.strike(self, fault):
            self.counts[fault.kind] += 1

    # --- what must be possible ------------------------------------------------------------

    def _demand_progress(self) -> None:
        """A majority is well; the others are dead, or connected in some way or other."""
        self._heal_all()
        chance = self.world.chance("majority")
        healed = self._majority(chance)
        if healed is not None:
            self._break_for_ever(healed, chance)
        wanted = sorted(healed if healed is not None else members(self.checker.membership))
        self.world.note(f"healed: {wanted}; broken for ever: {sorted(self._broken)}")
        self._await("progress", wanted, need_all=False)

    def _demand_convergence(self) -> None:
        """All is well: all members get everything."""
        self._broken = {}
        self._heal_all()
        self._await("convergence", None, need_all=True)

    _broken: dict[int, str] = {}  # noqa: RUF012  replaced, never changed

    def _heal_all(self) -> None:
        self.links.heal()
        for host in list(self.hosts.values()):
            host.mend()

    def _majority(self, chance: Random) -> set[int] | None:
        """A random majority, or None when a change is under way that may need others."""
        membership = self.checker.membership
        if is_joint(membership) or not self._is_settled():
            return None
        voters = list(membership.voters)
        return set(chance.sample(voters, len(voters) // 2 + 1))

    def _is_settled(self) -> bool:
        """Whether no change waits in any log, and all members know of the last one."""
        for host in self.hosts.values():
            node = host.node
            if node is None:
                continue
            log = node._raft.log
            if log.snapshot is not None:
                return False
            if node.membership != self.checker.membership and host.id in members(
                self.checker.membership
            ):
                return False
            low = node.applied + 1
            for entry in log.entries(low, log.last + 1, 1 << 60) if low <= log.last else ():
                if entry.kind == EntryKind.CHANGE:
                    return False
        return True

    def _break_for_ever(self, healed: set[int], chance: Random) -> None:
        """Whoever is not healed is dead, or cut off, or heard or hearing in part."""
        self._broken = {}
        for id, host in self.hosts.items():
            if id in healed:
                continue
            others = [other for other in self.hosts if other != id]
            ways = ["dead", "cut off"] + (["in part"] * 3 if self.setting.robust else [])
            way = self._broken.setdefault(id, chance.choice(ways))
            if way == "dead":
                host.crash()
            elif way == "cut off":
                self.links.block([link for o in others for link in ((id, o), (o, id))])
            else:
                links = [link for o in others for link in ((id, o), (o, id))]
                self.links.block([link for link in links if chance.random() < 0.5])

    def _await(self, what: str, wanted: list[int] | None, *, need_all: bool) -> None:
        world = self.world
        end = world.now + PROGRESS_MS
        data = f"at last: {what}".encode()
        asked = False
        while world.now < end:
            world.run_until(world.now + 500)
            self._leave_joint()
            targets = wanted or list(members(self.checker.membership))
            if not asked or not self._have(targets, data, need_all):
                asked = self.propose(data) or asked
                continue
            return
        states = "; ".join(self._state(host) for host in self.hosts.values())
        raise Violation(f"liveness: {what}", f"{wanted or 'all'} wait for {data!r}: {states}")

    def _have(self, targets: list[int], data: bytes, need_all: bool) -> bool:
        history = self.checker.history
        index = next((i for i in range(len(history) - 1, 0, -1) if _has(history[i], data)), 0)
        if not index:
            return False
        if need_all:
            index = len(history) - 1
        have = [id for id in targets if self.hosts[id].machine.index >= index]
        return len(have) == len(targets) if need_all else bool(have)

    def _leave_joint(self) -> None:
        for host in self.leaders():
            node = host.node
            if node is not None and is_joint(node.membership) and not node.membership.auto_leave:
                host.attempt(lambda raw: raw.propose_conf_change(Change()))

    def _state(self, host: Host) -> str:
        node: RawNode | None = host.node
        if node is None:
            return f"{host.id} down"
        return (
            f"{host.id} {node.role.value} of {node.leader or 'nobody'} in {node.term}, "
            f"commit {node.commit}, applied {node.applied}, last {node.last_index}, "
            f"voters {node.membership.voters}+{node.membership.outgoing}"
        )


def _has(entry: Any, data: bytes) -> bool:
    return entry is not None and entry.data == data
