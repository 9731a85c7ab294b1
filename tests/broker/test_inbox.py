"""The inbox of a shard: who waits for whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.inbox import SHARE_BYTES, Inbox

EVERYBODY = frozenset(range(1, 10)).__contains__


def drain(
    inbox: Inbox, *, topology: int = 0, bytes_max: int = 1 << 20, commands_max: int = 10_000
) -> list[list[tuple[int, bytes]]]:
    """The entries that come of it."""
    entries = []
    while taken := inbox.take(topology, EVERYBODY, bytes_max, commands_max):
        entries.append([(item.session, item.command) for item in taken])
    return entries


def test_a_calm_session_waits_for_a_share_of_a_flood_and_not_for_all_of_it() -> None:
    inbox = Inbox()
    for number in range(100):
        inbox.add(1, number.to_bytes(SHARE_BYTES // 4, "big"), 0)
    inbox.add(2, b"calm", 0)
    sessions = [session for session, _ in drain(inbox)[0]]
    assert sessions.index(2) == 4
    assert sessions.count(1) == 63  # and the rest of the entry is the flood's


def test_small_commands_are_no_way_around_the_share() -> None:
    inbox = Inbox()
    for _ in range(10_000):
        inbox.add(1, b"x", 0)
    inbox.add(2, b"calm", 0)
    assert [session for session, _ in drain(inbox)[0]].index(2) <= SHARE_BYTES // 256


def test_entry_after_entry_sessions_take_turns() -> None:
    inbox = Inbox()
    for session in (1, 2, 3):
        for number in range(2):
            inbox.add(session, b"%d" % number * SHARE_BYTES, 0)
    entries = drain(inbox, bytes_max=SHARE_BYTES)
    assert [session for entry in entries for session, _ in entry] == [1, 2, 3, 1, 2, 3]


def test_a_session_that_waits_for_the_topology_keeps_nobody_else_waiting() -> None:
    inbox = Inbox()
    inbox.add(1, b"later", 5)
    inbox.add(1, b"after it", 0)
    inbox.add(2, b"now", 4)
    assert inbox.is_due(4)
    assert drain(inbox, topology=4) == [[(2, b"now")]]
    assert not inbox.is_due(4)
    assert inbox.is_due(5)
    assert drain(inbox, topology=5) == [[(1, b"later"), (1, b"after it")]]


def test_upkeep_goes_first_and_in_order_and_ended_sessions_are_forgotten() -> None:
    inbox = Inbox()
    inbox.add(77, b"of one that is gone", 0)
    inbox.add(77, b"and so is this", 9)
    inbox.add(1, b"a", 0)
    inbox.add_first(b"create")
    inbox.add_first(b"drop")
    assert [command for _, command in drain(inbox)[0]] == [b"create", b"drop", b"a"]
    assert (inbox.size, bool(inbox)) == (0, False)


def test_one_command_always_fits() -> None:
    inbox = Inbox()
    inbox.add(1, b"x" * 100, 0)
    inbox.add(1, b"y", 0)
    assert [len(entry) for entry in drain(inbox, bytes_max=10)] == [1, 1]


COMMANDS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, SHARE_BYTES), st.integers(0, 2)), max_size=40
)


@given(COMMANDS, st.integers(1, 3 * SHARE_BYTES), st.integers(1, 5), st.lists(st.booleans()))
def test_nothing_is_lost_doubled_or_put_before_what_its_session_said_earlier(
    commands: list[tuple[int, int, int]], bytes_max: int, commands_max: int, refused: list[bool]
) -> None:
    inbox, said = Inbox(), {}
    for number, (session, size, topology) in enumerate(commands):
        command = number.to_bytes(4, "big") + b"x" * size
        inbox.add(session, command, topology)
        said.setdefault(session, []).append(command)
    assert inbox.size == sum(len(command) for lane in said.values() for command in lane)
    came: dict[int, list[bytes]] = {}
    topology = 0
    while inbox:
        taken = inbox.take(topology, EVERYBODY, bytes_max, commands_max)
        assert inbox.size_of(1) <= inbox.size
        if not taken:
            assert not inbox.is_due(topology)
            topology += 1
        elif refused and refused.pop():
            inbox.put_back(taken)
        else:
            assert len(taken) <= commands_max
            assert len(taken) == 1 or sum(len(item.command) for item in taken) <= bytes_max
            for item in taken:
                came.setdefault(item.session, []).append(item.command)
    assert came == said
    assert inbox.size == 0
