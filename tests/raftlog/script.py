"""The commands of the golden scripts: a group of nodes, and a network that only waits.

nodes COUNT [option=value]...   a new group; options are those of `Config`, and learners=4,5
logs 1=1,1,4 2=1,1 ...          begin with logs of these terms; term=7 for all
campaign N · propose N TEXT · bytes N COUNT · tick N [COUNT] · timeout N TICKS
read N NAME · transfer N TO · change N v4 l5 r6 [joint|explicit] · leave N
ready N                         one Ready, shown and carried out
deliver [from=N] [to=N] [kind=append] [max=1]     messages that wait arrive
drop    [from=N] [to=N] [kind=append]             ... or are lost
settle [quiet] [without=N] [hold=snapshot]        Readies and deliveries until nothing is left
snapshot N · compact N INDEX · crash N · unreachable N MEMBER · lost N MEMBER
report N MEMBER ok|failed|alive · log N · state [N...] · progress N · applied [N...]
fetched N FROM                  the snapshot that waits for N arrives, as FROM has it by now
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgspec

from raftlog.chance import SeededChance
from raftlog.config import Config
from raftlog.errors import RaftError
from raftlog.membership import Change, Step, StepKind, Transition, decode_change, members
from raftlog.messages import (
    AppendReject,
    AppendReply,
    AppendRequest,
    Entry,
    EntryKind,
    HardState,
    HeartbeatReply,
    HeartbeatRequest,
    Membership,
    Message,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    SnapshotRequest,
    StaleTerm,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    decode_message,
    encode_message,
)
from raftlog.node import Ready
from tests.datadriven import Command
from tests.raftlog.host import Host

KINDS: dict[type[Message], str] = {
    AppendRequest: "append",
    AppendReply: "appended",
    AppendReject: "reject",
    HeartbeatRequest: "heartbeat",
    HeartbeatReply: "alive",
    PreVoteRequest: "pre-vote?",
    PreVoteReply: "pre-vote",
    VoteRequest: "vote?",
    VoteReply: "vote",
    SnapshotRequest: "snapshot",
    TimeoutNow: "timeout-now",
    StaleTerm: "stale",
    ReadIndexRequest: "read?",
    ReadIndexReply: "read",
}
STEPS = {"v": StepKind.ADD_VOTER, "l": StepKind.ADD_LEARNER, "r": StepKind.REMOVE}
TRANSITIONS = {"joint": Transition.JOINT_AUTO, "explicit": Transition.JOINT_EXPLICIT}
ROUNDS_MAX = 200


class Script:
    """The state of one script; call it with each command."""

    def __init__(self) -> None:
        self.hosts: dict[int, Host] = {}
        self.network: list[Message] = []

    def __call__(self, command: Command) -> str:
        method = getattr(self, f"do_{command.name}")
        try:
            text = method(*command.words, **command.options)
        except RaftError as error:
            return f"refused: {error}"
        return text or ""

    # --- setting up ----------------------------------------------------------------------

    def do_nodes(self, count: str, learners: str = "", **options: str) -> None:
        kinds = {field.name: field.type for field in fields(Config)}
        values: dict[str, Any] = {
            name: value == "true" if kinds[name] == "bool" else int(value)
            for name, value in options.items()
        }
        voters = tuple(range(1, int(count) + 1))
        later = tuple(int(word) for word in learners.split(",") if word)
        membership = Membership(voters=voters, learners=later)
        self.network = []
        self.hosts = {
            id: Host(Config(id=id, rng=SeededChance(id), **values), membership)
            for id in (*voters, *later)
        }

    def do_join(self, id: str) -> None:
        """A new node with nothing: it learns who belongs from the leader."""
        config = Config(id=int(id), rng=SeededChance(int(id)))
        self.hosts[int(id)] = Host(config, Membership())

    def do_logs(self, term: str = "0", **logs: str) -> None:
        for id, terms in logs.items():
            host = self.hosts[int(id.lstrip("n"))]
            numbers = [int(number) for number in terms.split(",") if number]
            host.storage.append(
                [Entry(index, number, 0, b"e%d" % index) for index, number in enumerate(numbers, 1)]
            )
            highest = max([int(term), *numbers])
            host.storage.set_hard_state(HardState(term=highest, vote=0, commit=0))
            host.start()

    # --- events --------------------------------------------------------------------------

    def do_campaign(self, id: str) -> None:
        self.hosts[int(id)].node.campaign()

    def do_propose(self, id: str, text: str) -> str:
        return f"index {self.hosts[int(id)].node.propose(text.encode())}"

    def do_bytes(self, id: str, count: str) -> str:
        return f"index {self.hosts[int(id)].node.propose(bytes(int(count)))}"

    def do_tick(self, id: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.hosts[int(id)].node.tick()

    def do_timeout(self, id: str, ticks: str) -> None:
        self.hosts[int(id)].node.set_election_timeout(int(ticks))

    def do_read(self, id: str, name: str) -> None:
        self.hosts[int(id)].node.read_index(name.encode())

    def do_transfer(self, id: str, to: str) -> str:
        return "" if self.hosts[int(id)].node.transfer_leader(int(to)) else "cannot"

    def do_change(self, id: str, *words: str) -> str:
        transition = Transition.AUTO
        steps = []
        for word in words:
            if word in TRANSITIONS:
                transition = TRANSITIONS[word]
            else:
                steps.append(Step(STEPS[word[0]], int(word[1:])))
        change = Change(tuple(steps), transition)
        return f"index {self.hosts[int(id)].node.propose_conf_change(change)}"

    def do_leave(self, id: str) -> str:
        return f"index {self.hosts[int(id)].node.propose_conf_change(Change())}"

    def do_unreachable(self, id: str, member: str) -> None:
        self.hosts[int(id)].node.report_unreachable(int(member))

    def do_lost(self, id: str, member: str) -> None:
        self.hosts[int(id)].node.peer_lost(int(member))

    def do_report(self, id: str, member: str, how: str) -> str:
        node = self.hosts[int(id)].node
        if how == "alive":
            return "" if node.snapshot_progress(int(member)) else "none is on its way"
        node.report_snapshot(int(member), how == "ok")
        return ""

    def do_fetched(self, id: str, source: str) -> str:
        """What a driver does that fetches snapshots: the last request that waits is stepped."""
        asked = self._matching(1000, kind="snapshot", to=id)[-1]
        assert isinstance(asked, SnapshotRequest)
        self.network.remove(asked)
        snapshot = self.hosts[int(source)].storage.snapshot()
        request = msgspec.structs.replace(asked, snapshot=snapshot)
        lacking = self.hosts[int(id)].node.lacks(snapshot)
        self._step(request)
        return f"{show(request)}{'' if lacking else ' (not lacking)'}"

    def do_snapshot(self, id: str) -> None:
        self.hosts[int(id)].take_snapshot()

    def do_compact(self, id: str, index: str) -> None:
        self.hosts[int(id)].storage.compact(int(index))

    def do_crash(self, id: str) -> None:
        self.hosts[int(id)].start()

    # --- turns and messages --------------------------------------------------------------

    def do_ready(self, id: str) -> str:
        host = self.hosts[int(id)]
        if not host.node.has_ready():
            return f"{id}: nothing"
        lines: list[str] = []
        self.network.extend(host.begin())
        assert host.ready is not None
        lines.extend(show_ready(id, host.ready))
        self.network.extend(host.write())
        host.finish()
        return "\n".join(lines)

    def do_deliver(self, max: str = "1000", **filters: str) -> str:
        lines = []
        for message in self._matching(int(max), **filters):
            self.network.remove(message)
            lines.append(show(message))
            self._step(message)
        return "\n".join(lines) or "no message"

    def do_drop(self, max: str = "1000", **filters: str) -> str:
        lines = []
        for message in self._matching(int(max), **filters):
            self.network.remove(message)
            lines.append(f"lost {show(message)}")
        return "\n".join(lines) or "no message"

    def do_settle(self, quiet: str = "", without: str = "", hold: str = "") -> str:
        """`without`: nodes that are cut off: nothing reaches them, nothing leaves them.

        `hold`: a kind of messages that wait on.
        """
        cut_off = {int(word) for word in without.split(",") if word}
        lines: list[str] = []
        for _ in range(ROUNDS_MAX):
            for id, host in self.hosts.items():
                while host.node.has_ready():
                    host.turn(self.network.append)
                    self._show_role(id, lines)
            waiting = [message for message in self.network if KINDS[type(message)] != hold]
            self.network = [message for message in self.network if KINDS[type(message)] == hold]
            if not waiting:
                return "" if quiet else "\n".join(lines)
            for message in waiting:
                if message.sender not in cut_off and message.target not in cut_off:
                    lines.append(show(message))
                    self._step(message)
        raise AssertionError("it never comes to rest")

    def _show_role(self, id: int, lines: list[str]) -> None:
        node = self.hosts[id].node
        line = f"{id}: {node.role.value} of {node.leader or 'nobody'} in term {node.term}"
        before = [old for old in lines if old.startswith(f"{id}: ")]
        if not before or before[-1] != line:
            lines.append(line)

    def _step(self, message: Message) -> None:
        if message.target in self.hosts:
            self.hosts[message.target].node.step(decode_message(encode_message(message)))

    def _matching(self, max: int, kind: str = "", to: str = "", **sender: str) -> list[Message]:
        source = sender.get("from", "")
        return [
            message
            for message in self.network
            if (not kind or KINDS[type(message)] == kind)
            and (not to or message.target == int(to))
            and (not source or message.sender == int(source))
        ][:max]

    # --- looking -------------------------------------------------------------------------

    def do_state(self, *ids: str) -> str:
        return "\n".join(self._state(id) for id in self._ids(ids))

    def _state(self, id: int) -> str:
        status = self.hosts[id].node.status()
        return (
            f"{id}: {status.role.value} of {status.leader or 'nobody'} term={status.term} "
            f"vote={status.vote or 'nobody'} last={status.last_index} commit={status.commit} "
            f"applied={status.applied} {show_membership(status.membership)}"
        )

    def do_log(self, *ids: str) -> str:
        lines = []
        for id in self._ids(ids):
            storage = self.hosts[id].storage
            first, last = storage.first_index(), storage.last_index()
            terms = [str(storage.term(index)) for index in range(first, last + 1)]
            lines.append(f"{id}: from {first}, terms {' '.join(terms) or 'none'}")
        return "\n".join(lines)

    def do_applied(self, *ids: str) -> str:
        return "\n".join(
            f"{id}: {' '.join(data.decode() for data in self.hosts[id].machine.data) or 'nothing'}"
            for id in self._ids(ids)
        )

    def do_reads(self, id: str) -> str:
        host = self.hosts[int(id)]
        lines = [f"{id}: read {show_context(read.context)} at {read.index}" for read in host.reads]
        host.reads.clear()
        return "\n".join(lines) or "no read"

    def do_progress(self, id: str) -> str:
        lines = []
        for member, progress in self.hosts[int(id)].node.status().progress.items():
            line = f"{member}: {progress.state.value} match={progress.match} next={progress.next}"
            if progress.inflight_messages:
                line += f" inflight={progress.inflight_messages}/{progress.inflight_bytes}B"
            if progress.pending_snapshot:
                line += f" snapshot={progress.pending_snapshot}"
            lines.append(line + (" paused" if progress.paused else ""))
        return "\n".join(lines)

    def do_compactable(self, id: str) -> str:
        return f"up to {self.hosts[int(id)].node.compactable_to()}"

    def _ids(self, words: tuple[str, ...]) -> list[int]:
        return [int(word) for word in words] or list(self.hosts)


# --- text -----------------------------------------------------------------------------------


def show(message: Message) -> str:
    """One message in one line."""
    values = msgspec.structs.asdict(message)
    sender, target, term = values.pop("sender"), values.pop("target"), values.pop("term")
    if "granted" in values:
        index, its_term = values.pop("commit_index"), values.pop("commit_term")
        if index:
            values["knows_committed"] = f"{index}/{its_term}"
    parts = [f"{sender}->{target} {KINDS[type(message)]} term={term}"]
    for name, value in values.items():
        if name == "entries":
            parts.append(f"[{', '.join(show_entry(entry) for entry in value)}]")
        elif name == "snapshot":
            parts.append(f"at={value.index}/{value.term} {show_membership(value.membership)}")
        elif name == "context":
            parts.append("context=...")
        elif isinstance(value, bool):
            parts.extend([name] if value else (["refused"] if name == "granted" else []))
        else:
            parts.append(f"{name}={value}")
    return " ".join(parts)


def show_entry(entry: Entry) -> str:
    if entry.kind == EntryKind.CHANGE:
        return f"{entry.index}/{entry.term} {show_change(decode_change(entry.data))}"
    text = entry.data.decode() if entry.data.isascii() and len(entry.data) < 20 else ""
    text = text if text.isprintable() and text else f"{len(entry.data)}B"
    return f"{entry.index}/{entry.term} {text if entry.data else 'no-op'}"


def show_change(change: Change) -> str:
    letters = {kind: letter for letter, kind in STEPS.items()}
    return "+".join(f"{letters[step.kind]}{step.node}" for step in change.steps) or "leave-joint"


def show_membership(membership: Membership) -> str:
    def text(ids: tuple[int, ...]) -> str:
        return ",".join(map(str, ids))

    parts = [f"voters={text(membership.voters)}"]
    parts.extend(
        f"{name}={text(getattr(membership, name))}"
        for name in ("outgoing", "learners", "learners_next")
        if getattr(membership, name)
    )
    assert set(members(membership)) >= set(membership.voters)
    return " ".join(parts + (["auto-leave"] if membership.auto_leave else []))


def show_context(context: bytes | int) -> str:
    return context.decode() if isinstance(context, bytes) else str(context)


def show_ready(id: str, ready: Ready) -> list[str]:
    """The parts of a Ready, in the order in which they are carried out."""
    lines = []
    if ready.soft_state is not None:
        lines.append(
            f"{id}: {ready.soft_state.role.value} of {ready.soft_state.leader or 'nobody'}"
        )
    lines.extend(f"{id}: at once    {show(message)}" for message in ready.messages)
    sync = "write" if ready.must_sync else "no sync"
    if ready.snapshot is not None:
        lines.append(f"{id}: {sync}      snapshot {ready.snapshot.index}")
    if ready.entries:
        entries = ", ".join(show_entry(entry) for entry in ready.entries)
        lines.append(f"{id}: {sync}      [{entries}]")
    if (hard := ready.hard_state) is not None:
        state = f"term={hard.term} vote={hard.vote or 'nobody'} commit={hard.commit}"
        lines.append(f"{id}: {sync:7}    {state}")
    lines.extend(f"{id}: then       {show(message)}" for message in ready.messages_after)
    lines.extend(f"{id}: apply      {show_entry(entry)}" for entry in ready.committed)
    lines.extend(
        f"{id}: read {show_context(read.context)} at {read.index}" for read in ready.read_states
    )
    return lines
