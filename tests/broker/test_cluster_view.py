"""The list of nodes as a terminal shows it, and the settings of a node that joins."""

from __future__ import annotations

import pytest

from broker.charter import Charter, decode_charter, encode_charter, founding_charter
from broker.cli.cluster import describe
from broker.config import Config, Peer, parse_addresses, split_address
from broker.errors import ConfigError
from broker.joining import joined
from broker.status import ClusterStatus, MemberStatus


def member(node: str, votes: list[int], learns: list[int] | None = None) -> MemberStatus:
    return MemberStatus(
        node=node,
        address=f"{node}:7651",
        state="member" if votes else "joining",
        known=bool(votes),
        connected=True,
        votes=votes,
        learns=learns or [],
    )


def test_the_list_is_a_table() -> None:
    nodes = [member("n1", [0, 1, 2, 5]), member("n4", [], [0])]
    text = describe(ClusterStatus(version=3, settled=True, moving=[], nodes=nodes))
    assert text.splitlines() == [
        "version 3 of the list, settled",
        "",
        "NODE  PEER ADDRESS  STATE    CONNECTED  SEEN   VOTES ON  LEARNS",
        "n1    n1:7651       member   yes        yes    0-2,5     -",
        "n4    n4:7651       joining  yes        never  -         0",
    ]


def test_a_list_that_is_not_settled_names_the_shards_on_their_way() -> None:
    moving = describe(ClusterStatus(version=4, settled=False, moving=[1, 3], nodes=[]))
    assert "not settled; on their way are shards 1, 3" in moving
    assert "not founded" in describe(ClusterStatus(version=0, settled=False, moving=[], nodes=[]))


CHARTER = Charter(b"12345678", "shop", 5, 3, (("n1", "a", 1), ("n4", "d", 4)))


def test_a_charter_survives_the_store() -> None:
    assert decode_charter(encode_charter(CHARTER)) == CHARTER
    assert founding_charter(Config()).nodes == (("n1", "127.0.0.1", 7651),)


def test_a_node_that_joins_has_what_the_cluster_was_founded_with() -> None:
    asked = Config(node_id="n4", join="a:1", peer_port=4)
    config = joined(asked, CHARTER)
    assert (config.cluster_name, config.shards, config.join) == ("shop", 5, "")
    assert config.cluster_nodes == (Peer("n1", "a", 1), Peer("n4", "d", 4))


def test_a_node_that_listens_elsewhere_than_it_was_added_is_told() -> None:
    with pytest.raises(ConfigError, match=r"peer port 4, and --peer-port is 9"):
        joined(Config(node_id="n4", join="a:1", peer_port=9), CHARTER)


def test_what_never_changes_is_checked_at_every_start() -> None:
    CHARTER.check(Config(shards=5))
    with pytest.raises(ConfigError, match=r"--shards is 8.*founded with 5"):
        CHARTER.check(Config(shards=8))
    with pytest.raises(ConfigError, match=r"--replication-factor is 5.*founded with 3"):
        CHARTER.check(Config(shards=5, replication_factor=5))


@pytest.mark.parametrize("text", ["", "a", "a:", ":7", "a:0", "a:70000", "a:b", ","])
def test_a_wrong_join_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--join"):
        parse_addresses(text)


@pytest.mark.parametrize(
    "text", ["h h:1", "tcp://1.2.3.4:7", "*:7", "a/b:7", "x" * 254 + ":7", "[:7", "a\n:7"]
)
def test_what_nobody_could_connect_to_is_no_address(text: str) -> None:
    assert split_address(text) == ("", 0)


def test_addresses_may_be_of_both_kinds() -> None:
    assert split_address("[::1]:7651") == ("::1", 7651)
    assert split_address("fe80::1%eth0:7651") == ("fe80::1%eth0", 7651)
    assert split_address("my_node.local:7651") == ("my_node.local", 7651)
    assert parse_addresses("a:1, b:2") == (Peer("", "a", 1), Peer("", "b", 2))


def test_a_node_that_joins_needs_a_name_that_may_be_one() -> None:
    with pytest.raises(ConfigError, match="no name for a node"):
        Config(node_id="n 4", join="a:1")
