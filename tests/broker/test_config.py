"""A wrong setting is refused before anything is touched, by the name it has on the command line."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import config as module
from broker.config import Config, Peer, parse_cluster_nodes, raft_id
from broker.errors import ConfigError

THREE = parse_cluster_nodes("n1:10.0.0.1:7651, n2:10.0.0.2:7651,n3:[fd00::3]:7651,")


def test_the_defaults_make_a_node_on_this_machine_alone() -> None:
    config = Config()
    assert (config.host, config.peer_host, config.http_host) == ("127.0.0.1",) * 3
    assert (config.port, config.peer_port, config.http_port) == (7650, 7651, 7652)
    assert config.client_address == "127.0.0.1:7650"
    with pytest.raises(FrozenInstanceError):
        config.port = 1  # type: ignore[misc]


def test_cluster_nodes_are_parsed() -> None:
    assert (
        Peer("n1", "10.0.0.1", 7651),
        Peer("n2", "10.0.0.2", 7651),
        Peer("n3", "fd00::3", 7651),
    ) == THREE


@pytest.mark.parametrize(
    "text",
    ["", " , ", "n1", "n1:host", "n1:7651", "n1:host:", "n1:host:0", "n1:host:65536", ":h:1"],
)
def test_what_is_no_list_of_nodes_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--cluster-nodes.*name:host:peer-port"):
        parse_cluster_nodes(text)


@given(st.text(max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        peers = parse_cluster_nodes(text)
    except ConfigError:
        return
    assert peers
    assert all(peer.id and peer.host and 0 < peer.peer_port < 65_536 for peer in peers)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"node_id": "n9"}, r"--node-id 'n9' is not one of --cluster-nodes \(n1, n2, n3\)"),
        ({"cluster_nodes": (*THREE, Peer("n2", "other", 1))}, "names a node twice"),
        ({"cluster_nodes": (*THREE, Peer("n4", "10.0.0.1", 7651))}, "the same address"),
        ({"cluster_nodes": (*THREE, Peer("n4", "0.0.0.0", 7651))}, "'0.0.0.0' of n4 is no host"),
        ({"cluster_nodes": (*THREE, Peer("n4", "a b", 7651))}, "'a b' of n4 is no host"),
        ({"cluster_nodes": (*THREE, Peer("a b", "x", 1))}, "'a b' is no name for a node"),
        ({"cluster_nodes": (*THREE, Peer("n" * 65, "x", 1))}, "is no name for a node"),
        ({"cluster_name": ""}, "--cluster-name is empty"),
        ({"data_dir": ""}, "--data-dir is empty"),
        ({"peer_port": 7000}, "--peer-port 7000 is not the port 7651 that --cluster-nodes"),
        ({"port": 7651}, "--port and --peer-port are both 7651"),
        ({"http_port": 7650}, "--port and --http-port are both 7650"),
        ({"http_port": 7650, "http_host": "::"}, "--port and --http-port are both 7650"),
        ({"port": 0}, "--port 0 must be at least 1"),
        ({"http_port": 65_536}, "--http-port 65536 is not between 1 and 65535"),
        ({"shards": 1}, "--shards 1 is not between 2 and 65534"),
        ({"shards": 65_535}, "--shards 65535 is not between"),
        ({"tick_ms": 0}, "--tick-ms 0 must be at least 1"),
        ({"window_max": -5}, "--window-max -5 must be at least 1"),
        ({"grace_ms": -1}, "--grace-ms -1 must be at least 0"),
        ({"grace_ms": 600_001}, "--grace-ms-max 600000 is too small for --grace-ms 600001"),
        ({"election_ticks": 4, "heartbeat_ticks": 4}, "--election-ticks 4 is too small.*5 or more"),
        ({"body_bytes_max": 64 << 20}, "--frame-bytes-max 67108864 is too small for --body-bytes"),
        ({"unconfirmed_bytes_max": 1 << 20}, "--unconfirmed-bytes-max 1048576 is too small"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Config(**{"node_id": "n1", "cluster_nodes": THREE, **settings})


def test_two_addresses_may_have_one_port() -> None:
    assert Config(http_host="127.0.0.2", http_port=7650).http_port == 7650


def test_no_grace_is_a_choice() -> None:
    assert Config(grace_ms=0).grace_ms == 0


def test_clients_are_told_where_they_can_reach_the_node() -> None:
    def address(**settings: Any) -> str:
        return Config(cluster_nodes=THREE, **settings).client_address

    assert address(host="10.0.0.1") == "10.0.0.1:7650"
    assert address(host="0.0.0.0") == "10.0.0.1:7650"
    assert address(host="0.0.0.0", advertise_host="mq.example", port=1) == "mq.example:1"


def test_raft_ids_never_change() -> None:
    """They are in every log: a node that computed another one would be a stranger to its own."""
    assert [raft_id(name) for name in ("n1", "n2", "raftmq-0")] == [
        158052513321136,
        62316096715407,
        140634757877430,
    ]
    assert all(0 < raft_id(f"node-{number}") < 1 << 48 for number in range(1000))


def test_names_whose_ids_collide_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "raft_id", lambda node: 7)
    with pytest.raises(ConfigError, match="rename one of n1, n2, n3; their ids collide"):
        Config(cluster_nodes=THREE)


def test_clusters_of_other_names_are_told_apart() -> None:
    ids = {Config(cluster_name=name).cluster_id for name in ("raftmq", "other")}
    assert len(ids) == 2
    assert {len(id) for id in ids} == {8}
    for peer in THREE:
        assert (
            Config(cluster_nodes=THREE, node_id=peer.id).cluster_id
            == Config(cluster_nodes=THREE[::-1]).cluster_id
        )
