from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.batch import command_id
from broker.errors import Code
from broker.machines import commands as c
from broker.machines import effects as e
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from tests.broker.machines.test_topics import by_definition, words_of

SHARDS = 4


def place(vhost: str, name: str) -> int:
    return len(vhost + name) % SHARDS


class Client:
    """A session on shard 0, with its sequence; several may share a machine."""

    def __init__(self, machine: Machine, vhost: str = "/") -> None:
        self.machine = machine
        self.vhost = vhost
        self.seq = 0
        token = str(machine.applied).encode()
        machine.apply(
            machine.applied + 1, 0, [c.SessionOpen("n", 1, 1, token, vhost, "guest", 5000, {})]
        )
        self.session = command_id(machine.applied, 0)

    def head(self) -> tuple[int, int, int]:
        self.seq += 1
        return self.session, self.seq, 0

    def apply(self, command: c.AnyCommand) -> list[e.Effect]:
        return self.machine.apply(self.machine.applied + 1, 0, [command])

    def answer(self, command: c.AnyCommand) -> Any:
        """None when confirmed, a code when refused, or the reply's value."""
        for effect in self.apply(command):
            match effect:
                case e.Confirm():
                    return None
                case e.Refuse():
                    assert effect.text
                    return effect.code
                case e.Reply():
                    return effect.value
        raise AssertionError("no answer")

    def exchange(self, name: str, kind: str = "direct", **named: Any) -> Any:
        fields = {"durable": True, "auto_delete": False, "internal": False, "passive": False}
        fields |= {"arguments": None, **named}
        return self.answer(c.ExchangeDeclare(*self.head(), name, kind, **fields))

    def queue(self, name: str, flags: int = 0, passive: bool = False, **arguments: Any) -> Any:
        return self.answer(c.QueueDeclare(*self.head(), name, flags, passive, arguments))

    def bind(self, queue: str, exchange: str, key: str, **arguments: Any) -> Any:
        return self.answer(c.Bind(*self.head(), queue, exchange, key, arguments))

    def unbind(self, queue: str, exchange: str, key: str, **arguments: Any) -> Any:
        return self.answer(c.Unbind(*self.head(), queue, exchange, key, arguments))

    def delete_exchange(self, name: str, if_unused: bool = False) -> Any:
        return self.answer(c.ExchangeDelete(*self.head(), name, if_unused))

    def route(self, exchange: str, key: str) -> list[str] | None:
        """Names of queues."""
        topology = self.machine.topology
        targets = topology.route(self.vhost, exchange, key)
        if targets is None:
            return None
        records = [topology.queue_by_id(queue) for _, queue in targets]
        for record, (shard, _) in zip(records, targets, strict=True):
            assert record is not None and record.shard == shard
        return [record.name for record in records if record is not None]


def shard0(**limits: int) -> Machine:
    return Machine(shard=0, shards=SHARDS, limits=Limits(**limits), place=place)


@pytest.fixture
def client() -> Client:
    return Client(shard0())


def test_the_default_exchange_routes_by_queue_name(client: Client) -> None:
    assert client.route("", "q") == []
    client.queue("q")
    assert client.route("", "q") == ["q"]
    assert client.route("nowhere", "q") is None
    for code in (
        client.bind("q", "", "k"),
        client.unbind("q", "", "k"),
        client.exchange(""),
        client.delete_exchange(""),
    ):
        assert code == Code.ACCESS_REFUSED
    assert client.exchange("", passive=True) is None


def test_a_queue_is_declared_once_and_described(client: Client) -> None:
    first = client.queue("q", c.QueueFlag.DURABLE, **{"x-max-priority": 9})
    assert first[1:] == ("/", "q", 1, {"x-max-priority": 9}, place("/", "q"), 0)
    assert client.queue("q", c.QueueFlag.DURABLE, **{"x-max-priority": 9}) == first
    assert client.queue("q", passive=True) == first


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [(0, {"a": 1}), (1 | 4, {"a": 1}), (1 | 2, {"a": 1}), (1, {}), (1, {"a": 2}), (1, {"b": 1})],
)
def test_a_queue_is_not_declared_otherwise(
    client: Client, flags: int, arguments: dict[str, Any]
) -> None:
    client.queue("q", 1, a=1)
    assert client.queue("q", flags, **arguments) == Code.PRECONDITION_FAILED


def test_refusals_say_what_differs(client: Client) -> None:
    client.queue("q", 1)
    (refusal,) = client.apply(c.QueueDeclare(*client.head(), "q", 0, False, None))
    assert isinstance(refusal, e.Refuse)
    assert refusal.text == "queue 'q' exists with durable True, and False was asked for"


def test_what_is_missing_or_wrong_is_refused(client: Client) -> None:
    client.queue("q")
    assert client.queue("nix", passive=True) == Code.NOT_FOUND
    assert client.queue("") == Code.INVALID_ARGUMENT
    assert client.queue("ü" * 128) == Code.INVALID_ARGUMENT
    assert client.exchange("e" * 256) == Code.INVALID_ARGUMENT
    assert client.exchange("nix", passive=True) == Code.NOT_FOUND
    assert client.exchange("e", "headers") == Code.COMMAND_INVALID
    assert client.exchange("amq.mine") == Code.ACCESS_REFUSED
    assert client.exchange("amq.topic", "topic") is None
    assert client.exchange("amq.topic", "fanout") == Code.PRECONDITION_FAILED
    assert client.delete_exchange("amq.direct") == Code.ACCESS_REFUSED
    assert client.bind("nix", "amq.direct", "k") == Code.NOT_FOUND
    assert client.bind("q", "nix", "k") == Code.NOT_FOUND
    assert client.bind("q", "amq.direct", "k" * 256) == Code.INVALID_ARGUMENT
    assert client.unbind("nix", "amq.direct", "k") is None
    assert client.unbind("q", "nix", "k") is None
    assert client.unbind("q", "amq.direct", "k") is None
    assert client.delete_exchange("nix") is None


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "topic"},
        {"durable": False},
        {"auto_delete": True},
        {"internal": True},
        {"arguments": {"a": 1}},
    ],
)
def test_an_exchange_is_not_declared_otherwise(client: Client, other: dict[str, Any]) -> None:
    assert client.exchange("e") is None
    assert client.exchange("e", arguments={}) is None
    assert client.exchange("e", **other) == Code.PRECONDITION_FAILED


def test_exclusive_queues_are_locked_for_others(client: Client) -> None:
    other = Client(client.machine)
    mine = client.queue("mine", c.QueueFlag.EXCLUSIVE)
    assert client.queue("mine", c.QueueFlag.EXCLUSIVE) == mine
    for code in (
        other.queue("mine", c.QueueFlag.EXCLUSIVE),
        other.queue("mine", passive=True),
        other.bind("mine", "amq.direct", "k"),
        other.unbind("mine", "amq.direct", "k"),
        other.answer(c.QueueRemove(*other.head(), mine[0])),
    ):
        assert code == Code.RESOURCE_LOCKED
    assert client.answer(c.QueueRemove(*client.head(), mine[0])) is None


def test_virtual_hosts_are_apart(client: Client) -> None:
    other = Client(client.machine, "other")
    client.queue("q")
    client.exchange("e")
    assert other.route("", "q") == [] and other.route("e", "k") is None
    assert other.route("amq.topic", "k") == []
    assert client.machine.topology.vhosts() == ["/"]
    assert other.queue("q")[1] == "other"
    assert client.machine.topology.vhosts() == ["/", "other"]


def test_removing_a_queue_removes_its_bindings(client: Client) -> None:
    uid = client.queue("q", a=1)[0]
    client.exchange("e", "topic", auto_delete=True)
    client.bind("q", "e", "a.#")
    client.bind("q", "e", "a.#", x=1)
    client.bind("q", "amq.direct", "k")
    assert client.route("e", "a.b") == ["q"]
    session, seq, _ = head = client.head()
    assert client.apply(c.QueueRemove(*head, uid)) == [
        e.QueueGone(uid, place("/", "q")),
        e.Confirm(session, seq),
        e.TopologyChanged(),
    ]
    assert client.route("amq.direct", "k") == [] and client.route("", "q") == []
    assert client.route("e", "a.b") is None, "its last binding was gone"
    assert client.answer(c.QueueRemove(*client.head(), uid)) is None
    assert client.queue("q")[0] != uid, "another queue of the same name"
    assert client.route("amq.direct", "k") == []


def test_an_auto_delete_exchange_goes_with_its_last_binding_only(client: Client) -> None:
    client.queue("q")
    client.exchange("e", auto_delete=True)
    client.bind("q", "e", "k")
    client.bind("q", "e", "k", x=1)
    client.unbind("q", "e", "k")
    assert client.route("e", "k") == ["q"]
    client.unbind("q", "e", "k", x=1)
    assert client.route("e", "k") is None


def test_deleting_an_exchange(client: Client) -> None:
    uid = client.queue("q")[0]
    client.exchange("e")
    client.bind("q", "e", "k")
    client.bind("q", "e", "k", x=1)
    assert client.delete_exchange("e", if_unused=True) == Code.PRECONDITION_FAILED
    assert client.delete_exchange("e") is None
    assert client.route("e", "k") is None
    client.exchange("e")
    assert client.route("e", "k") == []
    assert client.answer(c.QueueRemove(*client.head(), uid)) is None


def test_a_topic_binding_that_is_gone_matches_no_more(client: Client) -> None:
    client.queue("q")
    client.bind("q", "amq.topic", "a.#")
    client.unbind("q", "amq.topic", "a.#")
    assert client.route("amq.topic", "a.b") == []


def test_a_virtual_host_goes_with_what_is_declared_in_it(client: Client) -> None:
    uid = client.queue("q")[0]
    client.exchange("e")
    client.answer(c.QueueRemove(*client.head(), uid))
    assert client.machine.topology.vhosts() == ["/"]
    client.delete_exchange("e")
    assert client.machine.topology.vhosts() == []
    uid = client.queue("q")[0]
    client.answer(c.QueueRemove(*client.head(), uid))
    assert client.machine.topology.vhosts() == []


def test_restoring_in_place_leaves_nothing_behind() -> None:
    """As a replica does that has fallen behind; routers keep looking at the same topology."""
    old, new = Client(shard0(exchanges_max=1)), Client(shard0(exchanges_max=1))
    old.queue("gone")
    old.exchange("gone")
    new.queue("q")
    topology = old.machine.topology
    old.machine.restore(new.machine.snapshot())
    assert old.machine.state_hash() == new.machine.state_hash()
    assert old.machine.topology is topology and topology.queue_named("/", "gone") is None
    new.machine = old.machine
    assert new.exchange("e") is None, "the one that is gone does not count"


def test_limits() -> None:
    client = Client(shard0(queues_max=1, exchanges_max=1, bindings_max=1))
    uid = client.queue("q")[0]
    assert client.queue("r") == Code.RESOURCE_EXHAUSTED
    assert client.queue("q")[0] == uid
    client.exchange("e")
    assert client.exchange("f") == Code.RESOURCE_EXHAUSTED
    client.bind("q", "e", "k")
    assert client.bind("q", "e", "l") == Code.RESOURCE_EXHAUSTED
    client.unbind("q", "e", "k")
    assert client.bind("q", "e", "l") is None
    assert client.delete_exchange("e") is None
    assert client.exchange("f") is None
    assert client.bind("q", "f", "k") is None
    assert client.answer(c.QueueRemove(*client.head(), uid)) is None
    assert client.queue("r")[0] and client.bind("r", "f", "k") is None


def test_repeats_are_done_once(client: Client) -> None:
    declare = c.QueueDeclare(*client.head(), "q", 0, False, None)
    first = client.answer(declare)
    client.answer(c.QueueRemove(*client.head(), first[0]))
    assert client.answer(declare) == first
    assert client.route("", "q") == []


def test_a_session_far_above_its_floor_waits_for_it() -> None:
    client = Client(shard0(remembered_per_session_max=2))
    client.queue("a")
    client.queue("b")
    late = c.QueueDeclare(*client.head(), "c", 0, False, None)
    assert client.answer(late) == Code.RESOURCE_EXHAUSTED
    again = c.QueueDeclare(late.session, late.seq, 2, "c", 0, False, None)
    assert client.answer(again)[2] == "c", "the refusal was not remembered"


def test_only_changes_of_routes_are_told(client: Client) -> None:
    client.queue("q")
    bind = (client.session, 7, 0, "q", "amq.direct", "k", None)
    assert e.TopologyChanged() in client.apply(c.Bind(*bind))
    again = (client.session, 8, *bind[2:])
    assert client.apply(c.Bind(*again)) == [e.Confirm(client.session, 8)]


def test_the_broker_removes_any_queue_and_gets_no_answer(client: Client) -> None:
    uid, *_, shard, _ = client.queue("mine", c.QueueFlag.EXCLUSIVE)
    assert client.apply(c.QueueRemove(0, 0, 0, uid)) == [
        e.QueueGone(uid, shard),
        e.TopologyChanged(),
    ]
    assert client.apply(c.QueueDeclare(0, 0, 0, "q", 0, False, None)) == []


def test_arguments_of_any_shape_stop_no_replica(client: Client) -> None:
    """Whatever msgpack carries: keys that are not strings, and types of its own."""
    odd = c.decode(
        c.encode(c.QueueDeclare(*client.head(), "q", 0, False, {"x": {1: 2, "a": [3, None]}}))
    )
    assert client.answer(odd)[4] == {"x": {1: 2, "a": [3, None]}}
    assert client.bind("q", "amq.direct", "k", x={1: 2, "a": 3}) is None
    assert client.queue("q", x={1: 3}) == Code.PRECONDITION_FAILED
    restored = shard0()
    restored.restore(client.machine.snapshot())
    assert restored.state_hash() == client.machine.state_hash()


def test_other_shards_have_no_topology() -> None:
    machine = Machine(shard=1, shards=SHARDS, limits=Limits(), place=place)
    with pytest.raises(AssertionError):
        machine.apply(1, 0, [c.QueueDeclare(1, 1, 1, "q", 0, False, None)])


WORDS = st.lists(st.sampled_from(["a", "b", "*", "#"]), max_size=3).map(".".join)
NAMES = st.sampled_from(["p", "q", "r"])
EXCHANGES = st.sampled_from(["amq.direct", "amq.fanout", "amq.topic", "e"])
STEPS = st.one_of(
    st.tuples(st.just("queue"), NAMES),
    st.tuples(st.just("bind"), NAMES, EXCHANGES, WORDS, st.integers(0, 1)),
    st.tuples(st.just("bind"), NAMES, EXCHANGES, WORDS, st.integers(0, 1)),
    st.tuples(st.just("unbind"), st.integers(0, 9)),
    st.tuples(st.just("remove"), NAMES),
    st.tuples(st.just("exchange"), st.sampled_from(["direct", "fanout", "topic"])),
    st.tuples(st.just("delete")),
    st.tuples(st.just("restore")),
)


@given(st.lists(STEPS, max_size=30), st.lists(WORDS, min_size=1, max_size=3))
def test_routes_are_those_of_the_bindings(steps: list[tuple[Any, ...]], keys: list[str]) -> None:
    """The machine against a flat list of bindings that is searched anew for each route."""
    client = Client(shard0())
    kinds = {"amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic"}
    queues: dict[str, int] = {}
    bindings: list[tuple[str, str, str, int]] = []
    for step in steps:
        match step:
            case ("queue", name):
                queues[name] = client.queue(name)[0]
            case ("bind", name, exchange, key, x):
                done = client.bind(name, exchange, key, x=x)
                assert (done is None) == (name in queues and exchange in kinds)
                if done is None and (name, exchange, key, x) not in bindings:
                    bindings.append((name, exchange, key, x))
            case ("unbind", number) if bindings:
                name, exchange, key, x = bindings.pop(number % len(bindings))
                assert client.unbind(name, exchange, key, x=x) is None
            case ("remove", name) if name in queues:
                client.answer(c.QueueRemove(*client.head(), queues.pop(name)))
                bindings = [binding for binding in bindings if binding[0] != name]
            case ("exchange", kind):
                if client.exchange("e", kind) is None:
                    assert kinds.setdefault("e", kind) == kind
            case ("delete",):
                assert client.delete_exchange("e") is None
                kinds.pop("e", None)
                bindings = [binding for binding in bindings if binding[1] != "e"]
            case ("restore",):
                restored = shard0()
                restored.restore(client.machine.snapshot())
                assert restored.state_hash() == client.machine.state_hash()
                client.machine = restored
        for key in keys:
            for exchange in ("amq.direct", "amq.fanout", "amq.topic", "e"):
                kind = kinds.get(exchange)
                expected = {b[0] for b in bindings if b[1] == exchange and takes(kind, b[2], key)}
                found = client.route(exchange, key)
                assert (found is None) == (kind is None)
                assert len(found or []) == len(expected) and set(found or []) == expected


def takes(kind: str | None, pattern: str, key: str) -> bool:
    match kind:
        case "direct":
            return pattern == key
        case "topic":
            return by_definition(words_of(pattern), words_of(key))
    return True
