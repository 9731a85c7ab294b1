"""Rubbish on a node's ports: it is counted, it hurts nobody else, and the node lives on."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from hashlib import blake2b

import lmdb
import msgspec
import pytest

from broker import protocol
from broker.machines.commands import QueueRemove, encode
from broker.peer_protocol import (
    Ask,
    Done,
    Forward,
    Leads,
    Lost,
    PeerFrame,
    RaftRecord,
    Relay,
    Told,
    Value,
    encode_peer_frame,
)
from raftlog.record import unseal
from tests.cluster import Cluster, ClusterNode, eventually
from tests.end_to_end.raw_client import RawClient, hello, round_trip

SEED = 7650
MALFORMED = "raftmq_malformed_frames_total"

pytestmark = pytest.mark.slow

HELLO = hello()


@pytest.fixture(autouse=True)
def _others_are_served(calm_cluster: Cluster) -> Iterator[None]:
    """After each test all nodes still run the process they ran before, and serve."""
    before = [node.process for node in calm_cluster.nodes]
    yield
    calm_cluster.wait_ready()
    assert [node.process for node in calm_cluster.running] == before
    for node in calm_cluster.nodes:
        assert round_trip(node.port, "well", b"good") == b"good"


def rubbish() -> list[bytes]:
    """Frames that no version of the protocol knows."""
    chance = random.Random(SEED)
    hello = protocol.encode_operations(1, [HELLO])
    frames = [b"", b"\x00", b"\x01", b"\xff" * 64, b"\x02" + hello[1:], hello + b"\x00"]
    frames += [chance.randbytes(chance.randrange(1, 400)) for _ in range(100)]
    frames += [b"\x01" + chance.randbytes(chance.randrange(1, 400)) for _ in range(100)]
    frames += [hello[:length] for length in range(1, len(hello))]
    # Deep nesting, and lengths that promise gigabytes.
    frames += [b"\x01" + opening * 200_000 for opening in (b"\x91", b"\x81\xa1a", b"\x92\x01")]
    frames += [b"\x01\xdd\xff\xff\xff\xff", b"\x01\x92\x01\xdd\xff\xff\xff\xff"]
    frames += [b"\x01\x92\x01\x91\x93\x03\xc6\xff\xff\xff\xff", b"\x01" + b"\xc1" * 50]
    return frames


def send_all(port: int, frames: list[bytes]) -> None:
    with RawClient(port) as link:
        for frame in frames:
            link.send(frame)


def wait_counted(node: ClusterNode, before: float, count: int) -> None:
    eventually(
        lambda: node.metric(MALFORMED) >= before + count,
        10,
        f"{count} malformed frames counted (from {before}; now {node.metric(MALFORMED)})",
    )


@pytest.mark.parametrize("port", ["port", "peer_port"])
def test_rubbish_frames_are_counted(calm_cluster: Cluster, port: str) -> None:
    node = calm_cluster.nodes[0]
    before = node.metric(MALFORMED)
    frames = rubbish()
    send_all(getattr(node, port), frames)
    wait_counted(node, before, len(frames))


@pytest.mark.parametrize("port", ["port", "peer_port"])
def test_messages_of_one_and_of_many_parts(calm_cluster: Cluster, port: str) -> None:
    node = calm_cluster.nodes[0]
    before = node.metric(MALFORMED)
    with RawClient(getattr(node, port)) as link:
        for parts in ([b"", b""], [b"a", b"b", b"c"], [b""] * 50):
            link.send(*parts)
    wait_counted(node, before, 3)


@pytest.mark.parametrize("port", ["port", "peer_port"])
def test_what_is_no_zeromq_at_all(calm_cluster: Cluster, port: str) -> None:
    chance = random.Random(SEED)
    zmtp_greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    openings = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(200),
        b"AMQP\x00\x00\x09\x01",
        zmtp_greeting + chance.randbytes(300),
        zmtp_greeting + b"\x06" + b"\xff" * 8,
        chance.randbytes(2000),
        b"",
    ]
    for opening in openings:
        with socket.create_connection(("127.0.0.1", getattr(calm_cluster.nodes[0], port))) as link:
            link.sendall(opening)


def strange_peer_frames(cluster: Cluster) -> list[bytes]:
    """Well-formed frames of nodes that do not belong here."""
    address = "127.0.0.1:1"
    leads = [Leads([(shard, 1 << 60) for shard in range(100)])]
    return [
        encode_peer_frame(PeerFrame(b"another", "n2", 1, 1, 1, address, list(leads))),
        encode_peer_frame(PeerFrame(b"", "n2", 1, 1, 1, address, list(leads))),
        encode_peer_frame(PeerFrame(b"another", "n9", 1, 1, 1, address, list(leads))),
        encode_peer_frame(PeerFrame(b"another", "\x00" * 10_000, 1, 1, 1, address, [])),
    ]


def test_a_node_of_another_cluster_is_not_listened_to(calm_cluster: Cluster) -> None:
    node = calm_cluster.nodes[0]
    before = {view.shard: view.term for view in calm_cluster.status(node).shards}
    send_all(node.peer_port, strange_peer_frames(calm_cluster))
    round_trip(node.port, "well", b"good")
    after = {view.shard: view.term for view in calm_cluster.status(node).shards}
    assert after == before


def operations() -> list[protocol.AnyOperation]:
    """Well-formed operations that ask for nonsense."""
    big = 2**63
    p = protocol
    return [
        p.Consume(seq=1, consumer=-1, queue="nowhere", window=-5),
        p.Consume(seq=2, consumer=big, queue="\x00" * 300, window=big),
        p.Cancel(seq=3, shard=9999, consumer=5),
        p.Cancel(seq=4, shard=-1, consumer=5),
        p.SetWindow(seq=5, shard=9999, consumer=5, window=10),
        p.SetWindow(seq=6, shard=0, consumer=5, window=-10),
        p.SettleMessages(seq=7, shard=9999, queue=1, outcome=0, ids=(1, 2, 3)),
        p.SettleMessages(seq=8, shard=1, queue=-1, outcome=99, ids=(-1, big)),
        p.SettleMessages(seq=9, shard=1, queue=1, outcome=0, ids=()),
        p.Held(seq=10, shard=9999, held=((1, 1),)),
        p.Held(seq=11, shard=0, held=((big, -1),)),
        p.Held(seq=12, shard=protocol.VOLATILE_SHARD, held=((1, 1),)),
        p.Get(seq=13, queue=""),
        p.Get(seq=-14, queue="q" * 100_000),
        p.DeclareExchange(seq=15, name="", kind="direct"),
        p.DeclareExchange(seq=16, name="odd", kind="no such kind"),
        p.DeleteExchange(seq=17, name=""),
        p.DeclareQueue(seq=18, name=""),
        p.DeclareQueue(seq=19, name="\ud7ff" * 500),
        p.DeclareQueue(seq=20, name="odd", arguments={"x-max-priority": "many", "x-n": [{}]}),
        p.DeclareQueue(seq=21, name="odd", arguments={"": {"": {"": [None, 1.5, b"\xff"]}}}),
        p.BindQueue(seq=22, queue="nowhere", exchange="nowhere", routing_key="k" * 100_000),
        p.Publish(23, "nowhere", "key", True, 99, {"ttl_ms": "soon"}, b"not a content"),
        p.Publish(24, "", "nowhere", True, -1, None, b""),
        p.Publish(big, "", "nowhere", False, 0, {"deep": [[[[]]]]}, b""),
        p.PurgeQueue(seq=25, name="nowhere"),
        p.Inspect(seq=26, what="everything", arguments={"a": 1}),
        HELLO,
        p.Goodbye(),
        p.Publish(27, "", "nowhere", True, 0, None, b"after the goodbye"),
    ]


def test_nonsense_in_good_form(calm_cluster: Cluster) -> None:
    for node in calm_cluster.nodes:
        with RawClient(node.port) as link:  # before any Hello
            for operation in operations():
                if not isinstance(operation, protocol.Hello):
                    link.say(operation)
        with RawClient(node.port) as link:  # in a session, one by one
            link.greet()
            for operation in operations():
                link.say(operation)
        with RawClient(node.port) as link:  # in a session, all at once, with an odd floor
            link.greet()
            link.say(*operations(), floor=2**63)
            link.say(*operations(), floor=-1)


@pytest.mark.parametrize("operation", operations(), ids=lambda o: f"{type(o).__name__}-{o!r:.40}")
def test_nonsense_is_answered(calm_cluster: Cluster, operation: protocol.AnyOperation) -> None:
    """Whatever has a seq gets an answer, or its sender would repeat it for ever."""
    if not hasattr(operation, "seq"):
        return
    with RawClient(calm_cluster.nodes[0].port) as link:
        link.greet()
        link.ask(operation)


@pytest.mark.parametrize("what", ["arguments", "options"])
def test_plain_data_nested_as_deep_as_a_decoder_bears(calm_cluster: Cluster, what: str) -> None:
    """What one stage decodes the next ones must too: they stand deeper in the stack."""
    pack = msgspec.msgpack.encode
    with RawClient(calm_cluster.nodes[0].port) as link:
        link.greet()
        link.ask(protocol.DeclareQueue(1, "deep"))
        for number, depth in enumerate([*range(1, 300, 10), *range(300, 1100)], start=2):
            nested = b"\x81\xa1a" * depth + b"\x80"
            if what == "arguments":  # tag, seq, name, 4 flags, arguments
                flags = b"\xc2\xc3\xc2\xc2"
                operation = b"\x98\x0c" + pack(number) + pack(f"deep{depth}") + flags + nested
            else:  # tag, seq, exchange, key, mandatory, priority, options, payload
                head = b"\x98\x03" + pack(number) + pack("") + pack("deep") + b"\xc2\x00"
                operation = head + nested + pack(b"")
            link.send(b"\x01\x92\x01\x91" + operation)
        answer = link.ask(protocol.DeclareQueue(number + 1, "deep"))
        assert isinstance(answer, protocol.Replied), answer


@pytest.mark.parametrize(
    "first",
    [
        protocol.BindQueue(2, "twice", "amq.direct", "key"),
        protocol.Publish(2, "", "twice", True, 0, None, b"body"),
        protocol.PurgeQueue(2, "twice"),
        protocol.Get(2, "twice"),
        protocol.DeleteQueue(2, "twice"),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_one_seq_for_two_operations(calm_cluster: Cluster, first: protocol.AnyOperation) -> None:
    """The shards repeat what they answered to the first, which means nothing to the second."""
    with RawClient(calm_cluster.nodes[0].port) as link:
        link.greet()
        link.ask(protocol.DeclareQueue(1, "twice"))
        link.ask(first)
        link.say(protocol.DeclareQueue(2, "twice"))
        link.say(protocol.DeleteQueue(2, "twice"))
        link.say(protocol.PurgeQueue(2, "twice"))
        answer = link.ask(protocol.DeclareQueue(3, "twice"))
        assert isinstance(answer, protocol.Replied), answer


def test_keys_nested_as_deep_as_a_decoder_bears(calm_cluster: Cluster) -> None:
    """A key of a map may be an array of arrays: it counts like any other nesting."""
    pack = msgspec.msgpack.encode
    head = b"\x01\x92\x01\x91\x98\x03"
    with RawClient(calm_cluster.nodes[0].port) as link:
        link.greet()
        link.ask(protocol.DeclareQueue(1, "keys"))
        for number, depth in enumerate([*range(40, 900, 50), *range(900, 1000)], start=2):
            options = b"\x81\xa1a\x81" + b"\x91" * depth + b"\x01\x01"
            rest = b"\xc2\x00" + options + pack(b"")
            link.send(head + pack(number) + pack("") + pack("keys") + rest)
        answer = link.ask(protocol.DeclareQueue(number + 1, "keys"))
        assert isinstance(answer, protocol.Replied), answer
        assert answer.value[1] == 0, "nothing of it went into the queue"


@pytest.mark.parametrize("size", [0, 15, 65, 1 << 20])
def test_a_token_that_is_no_secret(calm_cluster: Cluster, size: int) -> None:
    with RawClient(calm_cluster.nodes[0].port) as link:
        link.say(hello(token=b"t" * size))
        (denied,) = link.answers()
        assert isinstance(denied, protocol.Denied), denied


@pytest.mark.parametrize(
    "operation",
    [
        protocol.SettleMessages(1, 1, 1, 0, (1,) * (protocol.IDS_MAX + 1)),
        protocol.Held(1, 1, ((1, 1),) * (protocol.HELD_MAX + 1)),
    ],
    ids=lambda operation: type(operation).__name__,
)
def test_lists_beyond_their_limit(calm_cluster: Cluster, operation: protocol.AnyOperation) -> None:
    with RawClient(calm_cluster.nodes[0].port) as link:
        link.greet()
        link.say(operation)
        answers: list[protocol.AnyAnswer] = []
        while not answers:  # a frame of its own may carry a beat
            frame = link.answers()
            assert frame, "no answer"
            answers = [answer for answer in frame if not isinstance(answer, protocol.Beat)]
        refused = answers[0]
        assert isinstance(refused, protocol.RefusedAnswer)
        assert refused.code == 501


def test_a_flood_of_operations_starves_nobody(calm_cluster: Cluster) -> None:
    """Whatever one client heaps up, the node hears the others, and stays what it is."""
    node = calm_cluster.nodes[0]
    cancel = msgspec.msgpack.encode(protocol.Cancel(1, 9999, 1))
    count = protocol.OPERATIONS_MAX
    frame = b"\x01\x92\x01\xdd" + count.to_bytes(4, "big") + cancel * count
    with RawClient(node.port) as flood, RawClient(node.port) as other:
        flood.greet()
        other.greet()
        for _ in range(60):
            flood.send(frame)
        for seq in range(1, 20):
            other.say(protocol.DeclareQueue(seq, "well"))
        wanted = set(range(1, 20))
        deadline = time.monotonic() + 10
        while wanted and time.monotonic() < deadline:
            answers = other.answers(2000)  # as long as a client waits before it repeats
            wanted -= {a.seq for a in answers if isinstance(a, protocol.Replied)}
            if not answers:
                for seq in sorted(wanted):
                    other.say(protocol.DeclareQueue(seq, "well"))
        assert not wanted


def test_somebody_under_a_nodes_name_takes_it_down_for_no_one(calm_cluster: Cluster) -> None:
    """A second process of that name, with a disk of its own: it is refused, not the real one."""
    names = ",".join(sorted(node.id for node in calm_cluster.nodes))
    cluster = blake2b(f"test/{names}".encode(), digest_size=8).digest()
    for node in calm_cluster.nodes:
        named = next(other for other in calm_cluster.nodes if other is not node)
        before = node.metric(MALFORMED)
        with RawClient(node.peer_port) as link:
            for number in range(1, 21):
                frame = PeerFrame(cluster, named.id, 1, number, 0, "h:1", [Lost()], disk=b"d" * 16)
                link.send(encode_peer_frame(frame))
            wait_counted(node, before, 20)
    for node in calm_cluster.nodes:
        round_trip(node.port, f"after-{node.id}", b"still there")


def disk_of(node: ClusterNode) -> bytes:
    """The id of a running node's disk, without which no frame under its name is listened to."""
    with lmdb.open(str(node.data_dir), readonly=True, lock=False, max_dbs=8) as environment:
        meta = environment.open_db(b"meta", create=False)
        with environment.begin(db=meta) as transaction:
            record = transaction.get(b"disk")
    assert record is not None
    return unseal(b"disk", record)


def test_a_peer_whose_records_mean_nothing(calm_cluster: Cluster) -> None:
    """What a peer of another version may send. (One that lies can do anything: the peer port
    is for peers alone.) Above all, what machines cannot apply must not get into a log."""
    names = ",".join(sorted(node.id for node in calm_cluster.nodes))
    cluster = blake2b(f"test/{names}".encode(), digest_size=8).digest()
    alien = encode(QueueRemove(0, 0, 0, 1))
    records = [
        *(
            Forward(shard, [(0, b"\xff"), (0, b""), (0, b"\x93\x0a\xa1\xff\x01")])
            for shard in range(5)
        ),
        *(Forward(shard, [(0, alien)]) for shard in (-1, 1, 2, 3, 9999, protocol.VOLATILE_SHARD)),
        Told(1, {1: 5}),
        Told(-1, [1]),
        Ask(-1, "nothing"),
        Relay(-1, [b"\xff"]),
        Value(-1, -1, -1, -1, None),
        Done(0, 2**63, [(1, [1])]),
        *(RaftRecord(group, 1, b"\xff\x00") for group in (-1, 0, 1, 9999)),
    ]
    for node in calm_cluster.nodes:
        sender = next(other for other in calm_cluster.nodes if other is not node)
        disk = disk_of(sender)
        before = node.metric(MALFORMED)
        with RawClient(node.peer_port) as link:
            for number, record in enumerate(records, start=1):
                frame = PeerFrame(cluster, sender.id, 1, number, 0, "h:1", [record], disk=disk)
                link.send(encode_peer_frame(frame))
        wait_counted(node, before, 2)  # the last two Raft records at least
