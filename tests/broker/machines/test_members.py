"""The list of nodes: what each change does, and what may never happen to it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.machines.commands import (
    AnyCommand,
    ClusterFound,
    ClusterSettle,
    NodeAdd,
    NodePromote,
    NodeRemove,
    NodeSeen,
)
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from broker.machines.members import NodeRecord, NodeState

FOUNDERS = ClusterFound((("a", "ha", 1), ("b", "hb", 2), ("c", "hc", 3)))
NAMES = ("a", "b", "c", "d", "e", "f")


class Log:
    """One machine, one command an entry."""

    def __init__(self) -> None:
        self.machine = Machine(shard=0, shards=2, limits=Limits(), place=lambda vhost, name: 1)
        self.index = 0

    def apply(self, *commands: AnyCommand) -> None:
        for command in commands:
            self.index += 1
            assert self.machine.apply(self.index, 0, [command]) == []

    def shown(self) -> str:
        members = self.machine.members
        nodes = " ".join(f"{node.name}:{node.state.value}" for node in members)
        return f"{members.version}/{members.settled} {nodes}"


def founded() -> Log:
    log = Log()
    log.apply(FOUNDERS, ClusterSettle(1))
    return log


def test_a_list_is_founded_once() -> None:
    log = Log()
    assert log.machine.members.version == 0
    log.apply(FOUNDERS, ClusterFound((("x", "h", 1),)))
    assert log.shown() == "1/0 a:member b:member c:member"


def test_a_node_joins_and_becomes_a_member() -> None:
    log = founded()
    log.apply(NodeAdd(1, "d", "hd", 4))
    assert log.shown() == "2/1 a:member b:member c:member d:joining"
    log.apply(NodePromote(2, "d"))
    assert log.shown().startswith("2/1"), "not before the groups have followed"
    log.apply(ClusterSettle(2), NodePromote(2, "d"))
    assert log.shown().startswith("2/2"), "not before its disk is known"
    log.apply(NodeSeen("d", b"disk", "", 0), NodePromote(2, "d"))
    assert log.shown() == "3/2 a:member b:member c:member d:member"


def test_who_leaves_is_removed_when_all_groups_have_let_go() -> None:
    log = founded()
    log.apply(NodeRemove(1, "a"), ClusterSettle(1))
    assert log.shown() == "2/1 a:leaving b:member c:member"
    log.apply(ClusterSettle(2))
    assert log.shown() == "2/2 a:removed b:member c:member"


def test_a_name_is_never_used_again() -> None:
    log = founded()
    log.apply(NodeRemove(1, "a"), ClusterSettle(2))
    before = log.shown()
    log.apply(NodeAdd(2, "a", "elsewhere", 9), NodePromote(2, "a"), NodeSeen("a", b"new", "h", 1))
    assert log.shown() == before
    assert log.machine.members.get("a") == NodeRecord(
        "a", "ha", 1, NodeState.REMOVED, founder=True, changed=2
    )


def test_a_node_that_joins_may_be_removed_while_the_groups_follow_the_list() -> None:
    log = founded()
    log.apply(NodeAdd(1, "d", "hd", 4), NodeAdd(2, "e", "he", 5))
    assert log.shown().startswith("2/1"), "one change at a time"
    log.apply(NodeRemove(2, "d"))
    assert log.shown() == "3/1 a:member b:member c:member d:leaving"


def test_a_disk_is_fixed_by_the_first_contact_and_an_address_is_not() -> None:
    log = founded()
    log.apply(NodeSeen("a", b"first", "ha", 1), NodeSeen("a", b"second", "evil", 6))
    log.apply(NodeSeen("a", b"first", "moved", 7), NodeSeen("a", b"first", "", 0))
    node = log.machine.members.get("a")
    assert node is not None
    assert (node.disk, node.host, node.port) == (b"first", "moved", 7)
    log.apply(NodeSeen("b", b"", "x", 9))
    assert log.machine.members.get("b") == NodeRecord(
        "b", "hb", 2, NodeState.MEMBER, founder=True, changed=1
    )


def test_the_last_member_stays() -> None:
    log = founded()
    log.apply(NodeRemove(1, "a"), NodeRemove(2, "b"), NodeRemove(3, "c"))
    assert log.shown() == "3/1 a:leaving b:leaving c:member"


COMMANDS = st.one_of(
    st.builds(NodeAdd, st.integers(0, 12), st.sampled_from(NAMES), st.just("h"), st.integers(1, 3)),
    st.builds(NodePromote, st.integers(0, 12), st.sampled_from(NAMES)),
    st.builds(NodeRemove, st.integers(0, 12), st.sampled_from(NAMES)),
    st.builds(
        NodeSeen,
        st.sampled_from(NAMES),
        st.sampled_from([b"", b"1", b"2"]),
        st.just("h"),
        st.just(1),
    ),
    st.builds(ClusterSettle, st.integers(0, 12)),
)
ALLOWED = {
    (None, NodeState.JOINING),
    (NodeState.JOINING, NodeState.MEMBER),
    (NodeState.JOINING, NodeState.LEAVING),
    (NodeState.MEMBER, NodeState.LEAVING),
    (NodeState.LEAVING, NodeState.REMOVED),
}


@given(st.lists(st.tuples(COMMANDS, st.booleans()), max_size=60))
def test_replicas_agree_and_nothing_forbidden_happens(
    steps: list[tuple[AnyCommand, bool]],
) -> None:
    """Half of the commands name the newest version, or hardly anything would happen."""
    log, other = founded(), founded()
    for command, newest in steps:
        members = log.machine.members
        if newest and hasattr(command, "version"):
            command = type(command)(
                **{f: getattr(command, f) for f in command.__struct_fields__}
                | {"version": members.version}
            )
        before = {node.name: node for node in members}
        version, settled = members.version, members.settled
        log.apply(command)
        other.apply(command)
        after = {node.name: node for node in members}
        assert members.version - version in (0, 1)
        assert settled <= members.settled <= members.version
        assert members.in_state(NodeState.MEMBER), "nobody is left"
        for name, node in after.items():
            old = before.get(name)
            if old is None or old.state is not node.state:
                assert (old.state if old else None, node.state) in ALLOWED
            if old is not None and old.disk:
                assert node.disk == old.disk
            if node.state is NodeState.MEMBER and not node.founder:
                assert node.disk
        assert before.keys() <= after.keys(), "a name was forgotten"
    snapshot = log.machine.snapshot()
    assert snapshot == other.machine.snapshot()
    copy = Log()
    copy.machine.restore(snapshot)
    assert copy.shown() == log.shown()
    assert copy.machine.state_hash() == log.machine.state_hash()
