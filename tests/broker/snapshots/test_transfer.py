"""The book of a snapshot that is received: what it asks for, takes and remembers."""

from __future__ import annotations

import pytest

from broker.batch import command_id
from broker.peer_protocol import Bodies, PullBodies, PullState, State
from broker.snapshots.allowance import Allowance
from broker.snapshots.transfer import Transfer, last_id, progress_over, saved_progress
from raftlog.memory_store import MemoryStore
from raftlog.messages import Membership, Snapshot, SnapshotRequest
from raftlog.write import GroupWrite, Mark

US = Membership(voters=(1, 2))
GROUP, ONE = 3, command_id(1, 0)


def request(index: int, *, term: int = 1, sender: int = 1) -> SnapshotRequest:
    return SnapshotRequest(sender, 2, term, Snapshot(index, 1, US))


def begin(store: MemoryStore, index: int, giver: str = "n1") -> Transfer:
    return Transfer.begin(GROUP, giver, request(index), store.storages[GROUP], 0)


def take(transfer: Transfer, part: Bodies | State) -> bool:
    """The answer to the next pull."""
    transfer.asked_ms = 0
    return transfer.arrived(part, 1)


def bodies(transfer: Transfer, to: int, *ids: int) -> Bodies:
    return Bodies(GROUP, 1, transfer.index, transfer.to, to, [(id, b"%d" % id) for id in ids])


def chunk(index: int, number: int, chunks: int = 2, data: bytes = b"state") -> State:
    return State(GROUP, 1, index, 1, US, chunks, number, data)


def write(store: MemoryStore, transfer: Transfer) -> None:
    store.write([transfer.write()])


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore({GROUP: (1, 2)})


def test_first_all_bodies_then_all_chunks_then_it_is_whole(store: MemoryStore) -> None:
    transfer = begin(store, 5)
    assert transfer.pull() == PullBodies(GROUP, 1, 5, 0)
    assert take(transfer, bodies(transfer, ONE + 7, ONE, ONE + 7))
    write(store, transfer)
    assert transfer.pull() == PullBodies(GROUP, 1, 5, ONE + 7)
    assert take(transfer, bodies(transfer, last_id(5)))
    write(store, transfer)
    for number in range(2):
        assert not transfer.whole
        assert transfer.pull() == PullState(GROUP, 1, 5, number)
        assert take(transfer, chunk(5, number))
        write(store, transfer)
    assert transfer.whole
    assert transfer.snapshot == Snapshot(5, 1, US)
    storage = store.storages[GROUP]
    assert storage.body_ids(0, 9) == [ONE, ONE + 7]
    store.write(
        [GroupWrite(GROUP, install=Mark(5, 1, US, storage.chunks_of(5)), chunks=[progress_over()])]
    )
    assert begin(store, 9).pull() == PullBodies(GROUP, 1, 9, 0)


def test_after_a_restart_it_goes_on_where_the_disk_is(store: MemoryStore) -> None:
    transfer = begin(store, 5)
    take(transfer, bodies(transfer, ONE, ONE))
    write(store, transfer)
    take(transfer, bodies(transfer, ONE + 1, ONE + 1))  # and the process dies before the write
    transfer = begin(store, 5)
    assert transfer.pull() == PullBodies(GROUP, 1, 5, ONE)
    take(transfer, bodies(transfer, last_id(5)))
    write(store, transfer)
    take(transfer, chunk(5, 0))
    write(store, transfer)
    assert begin(store, 5).pull() == PullState(GROUP, 1, 5, 1)


def test_bodies_serve_another_leader_and_checkpoint_chunks_do_not(store: MemoryStore) -> None:
    transfer = begin(store, 5)
    take(transfer, bodies(transfer, last_id(5), ONE))
    write(store, transfer)
    take(transfer, chunk(5, 0))
    write(store, transfer)
    assert begin(store, 5, "n3").pull() == PullState(GROUP, 1, 5, 0)
    assert begin(store, 4).pull() == PullState(GROUP, 1, 4, 0)
    assert begin(store, 6).pull() == PullBodies(GROUP, 1, 6, last_id(5))
    transfer.offered("n3", request(6, term=2), 10)
    assert transfer.pull() == PullBodies(GROUP, 1, 6, last_id(5))
    transfer.offered("n1", request(9, term=1), 11)  # of a leader that was
    assert transfer.giver == "n3"


def test_a_newer_checkpoint_of_the_giver_is_taken_after_the_bodies_in_between(
    store: MemoryStore,
) -> None:
    transfer = begin(store, 5)
    take(transfer, bodies(transfer, last_id(5), ONE))
    write(store, transfer)
    take(transfer, chunk(5, 0))
    write(store, transfer)
    assert take(transfer, chunk(8, 1, data=b""))
    assert transfer.pull() == PullBodies(GROUP, 1, 8, last_id(5))
    take(transfer, bodies(transfer, last_id(8)))
    write(store, transfer)
    assert transfer.pull() == PullState(GROUP, 1, 8, 0)
    # Dying here, no chunk of 5 is taken for one of 8.
    assert begin(store, 8).pull() == PullState(GROUP, 1, 8, 0)


def test_all_chunks_may_have_been_there_before_a_restart(store: MemoryStore) -> None:
    transfer = begin(store, 5)
    take(transfer, bodies(transfer, last_id(5)))
    write(store, transfer)
    take(transfer, chunk(5, 0, chunks=1))
    write(store, transfer)
    transfer = begin(store, 5)
    assert not transfer.whole
    assert transfer.pull() == PullState(GROUP, 1, 5, 1)
    assert take(transfer, chunk(5, 1, chunks=1, data=b""))
    assert transfer.part is None
    assert transfer.whole


def test_what_was_not_asked_for_is_not_taken(store: MemoryStore) -> None:
    transfer = begin(store, 5)
    assert not transfer.arrived(bodies(transfer, ONE, ONE), 0), "nothing was asked"
    wrong = [
        chunk(5, 0),
        bodies(transfer, ONE, ONE + 1),
        bodies(transfer, ONE, ONE, ONE),
        bodies(transfer, ONE + 1, ONE + 1, ONE),
        bodies(transfer, 0),
        bodies(transfer, last_id(5) + 1),
        Bodies(GROUP, 1, 6, 0, ONE, []),
        Bodies(GROUP, 1, 5, 1, ONE, []),
    ]
    assert not any(take(transfer, part) for part in wrong)
    assert take(transfer, bodies(transfer, last_id(5)))
    assert not take(transfer, bodies(transfer, last_id(5))), "one waits already"
    write(store, transfer)
    wrong = [chunk(5, 1), chunk(5, 0, data=b""), chunk(0, 0, data=b"")]
    assert not any(take(transfer, part) for part in wrong)
    assert saved_progress(store.storages[GROUP]).to == last_id(5)


def test_a_second_has_no_more_bytes_than_it_may_have() -> None:
    allowance, taken = Allowance(1000, 0), 0
    for now_ms in range(0, 10_001, 50):
        allowance.fill(now_ms)
        while allowance.left:
            allowance.take(300)
            taken += 300
    assert 10_000 <= taken <= 10_000 + 300
    allowance.fill(1_000_000)
    assert allowance.bytes <= 250, "what was not used long ago is not saved up"
