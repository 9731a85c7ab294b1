"""Giving away what is led: by a node that has lost the leader of shard 0, and not the others."""

from __future__ import annotations

from tests.broker.trio import NODES, Trio

SHARDS = 6


def led_by(trio: Trio, name: str) -> set[int]:
    shards = trio.engines[name].shards
    return {number for number, shard in shards.items() if shard.in_service}


def test_a_node_cut_off_from_the_leader_of_shard_0_gives_away_what_it_leads_until_it_is_back() -> (
    None
):
    trio = Trio(shards=SHARDS)
    trio.run(600)  # each shard is with its preferred leader
    head = next(name for name in NODES if 0 in led_by(trio, name))
    adrift = next(name for name in NODES if name != head and led_by(trio, name))
    between = next(name for name in NODES if name not in (head, adrift))
    before = led_by(trio, adrift)

    trio.on_frame = lambda source, target, frame: (
        b"" if {source, target} == {head, adrift} else frame
    )
    trio.run(200)
    assert not led_by(trio, adrift)
    assert before <= led_by(trio, between)
    trio.run(400)
    assert not led_by(trio, adrift), "nothing is given back to it"

    trio.on_frame = lambda source, target, frame: frame
    trio.run(600)
    assert led_by(trio, adrift) == before
