"""Where queues and shards go: the same everywhere, evenly, and moving little."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.ring import preferred_leader, replicas_of, shard_of, succession

NAMES = st.text(min_size=1, max_size=12)
CLUSTERS = [
    [f"{site}{number}" for number in range(size)] for size in (4, 5, 6, 9) for site in "abcdefgh"
]


def placed(nodes: list[str], shards: int, factor: int = 3) -> list[tuple[str, ...]]:
    return [replicas_of(shard, nodes, factor) for shard in range(1, shards + 1)]


# --- queues to shards ---------------------------------------------------------------------


def test_these_queues_stay_where_they_are() -> None:
    """A change here would lose sight of every queue there is."""
    assert [shard_of("/", name, 7) for name in ("celery", "mail", "a", "")] == [4, 2, 2, 3]
    assert [shard_of("other", "celery", shards) for shards in (1, 7, 63)] == [0, 0, 49]


def test_a_shard_does_not_depend_on_the_process() -> None:
    code = (
        "from broker.ring import replicas_of, shard_of\n"
        "print(shard_of('/', 'celery', 997), replicas_of(5, 'abcdef', 3))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {f"{shard_of('/', 'celery', 997)} {replicas_of(5, 'abcdef', 3)}\n"}


@given(vhost=NAMES, queue=NAMES, shards=st.integers(1, 5000))
def test_every_queue_has_a_shard(vhost: str, queue: str, shards: int) -> None:
    assert 0 <= shard_of(vhost, queue, shards) < shards


def test_queues_spread_over_the_shards() -> None:
    counts = Counter(shard_of("/", f"queue-{number}", 7) for number in range(7000))
    assert sorted(counts) == list(range(7))
    assert all(900 < count < 1100 for count in counts.values())


def test_vhost_and_name_are_not_run_together() -> None:
    assert shard_of("a", "bc", 1 << 60) != shard_of("ab", "c", 1 << 60)


# --- shards to nodes ----------------------------------------------------------------------


@given(
    nodes=st.lists(NAMES, unique=True, min_size=1, max_size=9),
    shard=st.integers(0, 80),
    factor=st.integers(1, 5),
    data=st.data(),
)
def test_replicas_are_distinct_nodes_however_they_are_named(
    nodes: list[str], shard: int, factor: int, data: st.DataObject
) -> None:
    replicas = replicas_of(shard, nodes, factor)
    assert len(set(replicas)) == len(replicas)
    assert set(replicas) <= set(nodes)
    assert len(replicas) == (len(nodes) if shard == 0 else min(len(nodes), factor))
    assert replicas_of(shard, data.draw(st.permutations(nodes)), factor) == replicas
    assert preferred_leader(replicas) in replicas


def test_of_few_nodes_each_keeps_all_and_they_lead_in_turn() -> None:
    nodes = ["n1", "n2", "n3"]
    assert [preferred_leader(replicas_of(shard, nodes, 3)) for shard in range(7)] == [
        *nodes,
        *nodes,
        "n1",
    ]
    assert all(set(replicas_of(shard, nodes, 3)) == set(nodes) for shard in range(7))
    assert replicas_of(4, ["alone"], 3) == ("alone",)


@pytest.mark.parametrize("shards", [7, 31, 63, 255])
def test_no_node_keeps_much_more_than_its_share(shards: int) -> None:
    for nodes in CLUSTERS:
        kept = Counter(node for replicas in placed(nodes, shards) for node in replicas)
        share_max = -(-5 * 3 * shards // (4 * len(nodes)))
        assert max(kept.values()) <= share_max, (nodes, kept)
        led = Counter(preferred_leader(replicas) for replicas in placed(nodes, shards))
        assert max(led.values()) <= shards / len(nodes) + 2, (nodes, led)


def test_more_shards_move_none() -> None:
    for nodes in CLUSTERS:
        assert placed(nodes, 63)[:7] == placed(nodes, 7)


@pytest.mark.parametrize("shards", [7, 31, 63, 255])
def test_another_node_moves_little_more_than_it_takes(shards: int) -> None:
    """What a node that was there before has to copy is little, measured over many clusters."""
    copied = taken = 0
    for nodes in CLUSTERS:
        before, after = placed(nodes, shards), placed([*nodes, "new"], shards)
        for old, new in zip(before, after, strict=True):
            gained = set(new) - set(old)
            taken += "new" in gained
            copied += len(gained - {"new"})
    assert taken > 0
    assert copied <= taken * 0.6, (copied, taken)


def test_a_dead_leaders_shards_go_to_each_survivor_in_about_equal_parts() -> None:
    nodes = ("n1", "n2", "n3")
    for dead in nodes:
        left = [node for node in nodes if node != dead]
        led = [shard for shard in range(64) if replicas_of(shard, nodes, 3)[0] == dead]
        heirs = Counter(succession(shard, left)[0] for shard in led)
        assert set(heirs) == set(left)
        assert min(heirs.values()) >= len(led) // 3
    assert succession(5, ["b", "a"]) == succession(5, ["a", "b"])
    assert succession(5, []) == ()
