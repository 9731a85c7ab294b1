"""Who is believed: removed nodes, lost disks, names not listed; and what operators are told."""

from __future__ import annotations

import itertools
import random

from broker import protocol as p
from broker.changes import OK
from broker.config import Config, Peer, raft_id
from broker.engine import Engine
from broker.groups import voters
from broker.machines.members import NodeState
from broker.peer_protocol import PeerFrame, RaftRecord, decode_peer_frame, encode_peer_frame
from raftlog.memory_store import MemoryStore
from raftlog.messages import AppendReply, VoteRequest, encode_message
from raftlog.ready import Role
from tests.broker.trio import Trio, hello

ANSWER_TICKS = 100


def settled(shards: int = 2) -> Trio:
    """Founded, every disk registered."""
    trio = Trio(shards=shards)
    trio.run_until(
        lambda: all(
            engine.members().settled and all(node.known for node in engine.members().nodes)
            for engine in trio.engines.values()
        )
    )
    return trio


def ask(trio: Trio, kind: str, name: str, port: int = 0, at: str = "n2") -> tuple[int, str]:
    """The answer to an operator who asks a node, asked for until it comes."""
    changes = trio.engines[at].changes
    number = changes.begin(kind, name, "here" if port else "", port)
    for _ in range(ANSWER_TICKS):
        verdict = changes.answer(number)
        if verdict is not None:
            changes.end(number)
            return verdict.code, verdict.text
        trio.run(1)
    raise AssertionError(f"no answer to {kind} {name}: {trio.logs[-5:]}")


def state_of(trio: Trio, name: str, at: str = "n2") -> str:
    return {node.node: node.state for node in trio.engines[at].members().nodes}[name]


def start_new(trio: Trio, name: str, port: int) -> Engine:
    """A node that was told the list when it asked whether it may join."""
    founder = trio.configs["n1"]
    peers = (*founder.cluster_nodes, Peer(name, "here", port))
    trio.configs[name] = Config(
        node_id=name, cluster_nodes=peers, peer_port=port, shards=founder.shards
    )
    trio.disks[name] = MemoryStore({}, f"disk of {name}".encode())
    engine = Engine(
        trio.configs[name],
        boot=99,
        now_ms=trio.now_ms,
        store=trio.disks[name],
        random=random.Random(9),
        cluster_id=founder.cluster_id,
    )
    trio.engines[name] = engine
    return engine


def leader(trio: Trio, shard: int = 0) -> str:
    return next(
        name
        for name, engine in trio.engines.items()
        if shard in engine.shards and engine.shards[shard].in_service
    )


def test_a_node_joins_catches_up_and_becomes_a_voter() -> None:
    trio = settled()
    code, text = ask(trio, "add", "n4", 4)
    assert (code, "--join" in text) == (OK, True)
    new = start_new(trio, "n4", 4)
    trio.run_until(lambda: new.shards[0].applied > 0)
    assert ask(trio, "promote", "n4")[0] == OK
    trio.run_until(lambda: trio.engines["n2"].members().settled)
    assert raft_id("n4") in new.shards[0].raft.membership.voters
    assert state_of(trio, "n4") == "member"


def test_a_node_that_was_never_heard_is_not_promoted() -> None:
    trio = settled()
    ask(trio, "add", "n4", 4)
    trio.run_until(lambda: trio.engines["n2"].members().settled)
    code, text = ask(trio, "promote", "n4")
    assert code == 406
    assert "was not heard at here:4" in text


def test_what_makes_no_sense_is_refused_with_what_to_do() -> None:
    trio = settled()
    for kind, name, port, code, part in (
        ("add", "n 4", 4, 502, "no name"),
        ("add", "n4", 70_000, 502, "no address"),
        ("add", "n4", 1, 406, "is n1"),
        ("add", "n1", 9, 406, "member at here:1 already"),
        ("promote", "n9", 0, 404, "only n1, n2, n3"),
        ("remove", "n9", 0, 404, "only n1, n2, n3"),
    ):
        answer = ask(trio, kind, name, port)
        assert answer[0] == code, answer
        assert part in answer[1], answer
    assert trio.engines["n2"].members().version == 1


def test_the_leader_is_removed_after_it_has_handed_over_and_is_told_to_stop() -> None:
    trio = settled()
    gone = leader(trio)
    other = next(name for name in trio.engines if name != gone)
    trio.run(400)
    assert ask(trio, "remove", gone, at=other)[0] == OK
    # Its peers go on with the numbers of their frames, or it would take these for old ones.
    trio.run_until(lambda: trio.engines[gone].dismissed is not None, ticks=100)
    dismissed = trio.engines[gone].dismissed
    assert dismissed is not None
    assert dismissed[0] == 0
    assert "was removed" in dismissed[1]
    assert trio.engines[gone].shards[0].raft.role is not Role.LEADER
    assert state_of(trio, gone, at=other) == "removed"
    assert trio.engines[other].shards[0].raft.membership.voters == tuple(
        sorted(raft_id(name) for name in trio.engines if name != gone)
    )
    assert ask(trio, "add", gone, 9, at=other)[0] == 406, "a name is never used again"


def test_a_removed_node_that_was_away_is_told_when_it_comes_back() -> None:
    trio = settled()
    away = next(name for name in trio.engines if name != leader(trio))
    stays = leader(trio)
    del trio.engines[away]
    trio.run(100)
    assert ask(trio, "remove", away, at=stays)[0] == OK
    trio.run_until(lambda: state_of(trio, away, at=stays) == "removed")
    back = trio.start(away)
    trio.run_until(lambda: back.dismissed is not None)


def test_with_one_node_away_no_second_one_can_go() -> None:
    trio = settled()
    stays = leader(trio)
    away, other = sorted(name for name in trio.engines if name != stays)
    del trio.engines[away]
    trio.run(100)
    code, text = ask(trio, "remove", other, at=stays)
    assert code == 406
    assert f"{away} is not heard" in text
    assert state_of(trio, other, at=stays) == NodeState.MEMBER.value


def test_an_empty_disk_under_a_known_name_counts_for_nothing() -> None:
    trio = settled()
    wiped = next(name for name in trio.engines if name != leader(trio))
    trio.disks[wiped] = MemoryStore(voters(trio.configs[wiped]), b"another disk")
    engine = trio.start(wiped)
    trio.run_until(lambda: engine.dismissed is not None)
    assert engine.dismissed is not None
    assert engine.dismissed[0] == 2
    assert f"cluster remove {wiped}" in engine.dismissed[1]
    assert engine.shards[0].applied == 0, "it took nothing"


_numbers = itertools.count(1)


def frame_of(trio: Trio, name: str, disk: bytes, *records: RaftRecord) -> bytes:
    peer = trio.configs["n1"].peer(name) if name in ("n1", "n2", "n3") else Peer(name, "h", 9)
    return encode_peer_frame(
        PeerFrame(
            trio.configs["n1"].cluster_id,
            name,
            1 << 60,
            next(_numbers),
            0,
            "c:1",
            list(records),
            disk,
            f"{peer.host}:{peer.peer_port}",
        )
    )


def acknowledgement(trio: Trio, at: str, sender: str) -> RaftRecord:
    """Of everything, which is a lie."""
    raft = trio.engines[at].shards[0].raft
    reply = AppendReply(raft_id(sender), raft.id, raft.term, raft.last_index)
    return RaftRecord(0, 1, encode_message(reply))


def match_of(trio: Trio, at: str, member: str) -> int:
    progress = trio.engines[at].shards[0].raft.status().progress[raft_id(member)]
    return progress.match


def test_an_acknowledgement_from_another_disk_is_not_counted() -> None:
    trio = settled()
    at = leader(trio)
    other = next(name for name in trio.engines if name != at)
    del trio.engines[other]
    raft = trio.engines[at].shards[0].raft
    raft.propose(b"")
    trio.run(2)
    before = match_of(trio, at, other)
    assert before < raft.last_index
    lie = acknowledgement(trio, at, other)
    trio.engines[at].peer_frame(frame_of(trio, other, b"another disk", lie))
    assert match_of(trio, at, other) == before
    trio.engines[at].peer_frame(frame_of(trio, other, f"disk of {other}".encode(), lie))
    assert match_of(trio, at, other) == raft.last_index, "the test would not notice"


def test_a_name_that_is_not_listed_may_ask_and_is_not_believed() -> None:
    """This node's copy of the list may be old: who leads by a newer one must be heard."""
    trio = settled()
    at = next(name for name in trio.engines if name != leader(trio))
    engine = trio.engines[at]
    raft = engine.shards[0].raft
    asked = VoteRequest(raft_id("n7"), raft.id, raft.term + 5, 1 << 30, raft.term, True)
    engine.peer_frame(frame_of(trio, "n7", b"d", RaftRecord(0, 1, encode_message(asked))))
    assert raft.term == asked.term
    assert engine.endpoints()["n7"] == ("h", 9)
    lie = AppendReply(raft_id("n7"), raft.id, raft.term + 5, 1)
    engine.peer_frame(frame_of(trio, "n7", b"d", RaftRecord(0, 1, encode_message(lie))))
    assert raft.term == asked.term, "a reply was heeded"


def test_frames_of_another_cluster_are_dropped() -> None:
    trio = settled()
    frame = decode_peer_frame(frame_of(trio, "n3", b"disk of n3"))
    before = trio.engines["n1"].counters.malformed_frames
    other = encode_peer_frame(
        PeerFrame(b"other", *(getattr(frame, f) for f in frame.__struct_fields__[1:]))
    )
    trio.engines["n1"].peer_frame(other)
    assert trio.engines["n1"].counters.malformed_frames == before + 1


def test_a_cluster_that_moved_while_it_was_down_is_found_by_the_settings() -> None:
    trio = settled()
    moved = tuple(Peer(name, "there", port) for port, name in enumerate(("n1", "n2", "n3"), 1))
    config = Config(node_id="n1", cluster_nodes=moved, peer_port=1, shards=2)
    engine = Engine(
        config,
        boot=7,
        now_ms=0,
        store=trio.disks["n1"],
        random=random.Random(1),
        cluster_id=config.cluster_id,
    )
    seen = set()
    for tick in range(1, 300):
        engine.tick(50 * tick)
        if engine.has_work():
            trio.disks["n1"].write(engine.begin(0))
            engine.end()
        seen.add(engine.endpoints()["n2"])
    assert seen == {("here", 2), ("there", 2)}


def test_the_address_that_a_node_says_itself_comes_into_the_list() -> None:
    trio = settled()
    away = next(name for name in trio.engines if name != leader(trio))
    at = leader(trio)
    config = trio.configs[away]
    trio.configs[away] = Config(
        node_id=away,
        cluster_nodes=tuple(
            Peer(peer.id, "there" if peer.id == away else peer.host, peer.peer_port)
            for peer in config.cluster_nodes
        ),
        peer_port=config.peer_port,
        shards=2,
    )
    trio.start(away)
    port = config.peer_port
    trio.run_until(lambda: trio.engines[at].endpoints()[away] == ("there", port))


def is_settled(trio: Trio) -> bool:
    """As every node sees it that stays."""
    return all(
        engine.members().settled and not engine.members().moving
        for engine in trio.engines.values()
        if engine.dismissed is None
    )


def test_shards_move_to_a_new_node_and_back_when_it_goes() -> None:
    """What a node gave up comes back to it: the old replica's votes and acknowledgements do not."""
    trio = settled(shards=6)
    trio.say(hello())
    names = [f"q{number}" for number in range(12)]
    trio.say(*(p.DeclareQueue(1 + n, name) for n, name in enumerate(names)))
    trio.say(*(p.Publish(30 + n, "", q, True, 0, None, b"1") for n, q in enumerate(names)))
    ask(trio, "add", "n4", 4)
    new = start_new(trio, "n4", 4)
    trio.run_until(lambda: new.shards[0].applied > 0)
    assert ask(trio, "promote", "n4")[0] == OK
    trio.run_until(lambda: is_settled(trio))
    trio.run(10)
    moved = set(new.shards) - {0}
    assert moved, "nothing has moved"
    for number in moved:
        keepers = [name for name, engine in trio.engines.items() if number in engine.shards]
        assert len(keepers) == 3, "who is out has not given it up"
    given_up = {n: set(range(6)) - set(trio.engines[n].shards) for n in ("n1", "n2", "n3")}
    assert any(given_up.values())

    assert ask(trio, "remove", "n4")[0] == OK
    trio.run_until(lambda: new.dismissed is not None)
    del trio.engines["n4"]
    trio.run_until(lambda: is_settled(trio))
    trio.say(*(p.Publish(60 + n, "", q, True, 0, None, b"2") for n, q in enumerate(names)))
    trio.run_until(
        lambda: all(
            len({trio.engines[name].shards[number].applied for name in ("n1", "n2", "n3")}) == 1
            for number in range(6)
        )
    )
    for number in range(6):
        shards = [trio.engines[name].shards[number] for name in ("n1", "n2", "n3")]
        assert len({shard.machine.state_hash() for shard in shards}) == 1, number
        assert len({shard.raft.membership for shard in shards}) == 1, number
        assert len(shards[0].raft.membership.voters) == 3, number
    for name, numbers in given_up.items():
        for number in numbers:
            hard_state, _ = trio.disks[name].storages[number].initial_state()
            assert hard_state.floor_index > 0


def test_who_leaves_keeps_shard_0_until_it_keeps_nothing_else() -> None:
    """Without it, it would not know that it is to give away what it leads."""
    trio = settled(shards=6)
    gone = leader(trio, 3)
    at = next(name for name in trio.engines if name != gone)
    changes = trio.engines[at].changes
    changes.answer(changes.begin("remove", gone, "", 0))
    for _ in range(400):
        trio.run(1)
        lead = trio.engines[leader(trio, 0)] if _leads(trio, 0) else None
        if lead is not None and raft_id(gone) not in lead.shards[0].raft.membership.voters:
            break
        changes.answer(1)
    else:
        raise AssertionError("it never left shard 0")
    others = [engine for name, engine in trio.engines.items() if name != gone]
    for number in range(1, 6):
        (led,) = [e.shards[number] for e in others if e.shards[number].in_service]
        assert raft_id(gone) not in led.raft.membership.voters, f"shard {number} still has it"


def _leads(trio: Trio, shard: int) -> bool:
    return any(engine.shards[shard].in_service for engine in trio.engines.values())


def test_what_is_for_the_node_that_was_here_before_stops_nobody() -> None:
    """A node was replaced at its address; another one comes back with an old copy of the list."""
    trio = settled()
    old: list[bytes] = []

    def overhear(source: str, target: str, frame: bytes) -> bytes:
        if (source, target) == ("n2", "n3"):
            old.append(frame)
        return frame

    trio.on_frame = overhear
    trio.run_until(lambda: bool(old))
    engine = start_new(trio, "n6", 4)
    before = engine.counters.malformed_frames
    engine.peer_frame(old[-1])
    assert engine.dismissed is None
    assert engine.counters.malformed_frames == before + 1
    trio.engines["n3"].peer_frame(old[-1])
    assert trio.engines["n3"].dismissed is None
