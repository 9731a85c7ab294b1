"""The groups that a node keeps, opened from their storages: what `Config` means to each part."""

from __future__ import annotations

from collections.abc import Mapping

from broker.config import Config, raft_id
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from broker.ring import preferred_leader, replicas_of, shard_of
from broker.router import TOPOLOGY
from broker.shard import Shard
from raftlog.chance import Chance
from raftlog.config import Config as RaftConfig
from raftlog.node import RawNode
from raftlog.storage import GroupStorage


def replicas(config: Config) -> dict[int, tuple[str, ...]]:
    """Of each shard, the nodes that keep it."""
    nodes = [peer.id for peer in config.cluster_nodes]
    return {
        shard: replicas_of(shard, nodes, config.replication_factor)
        for shard in range(config.shards)
    }


def voters(config: Config) -> dict[int, tuple[int, ...]]:
    """Of each shard that this node keeps, the Raft ids of all who do."""
    return {
        shard: tuple(map(raft_id, nodes))
        for shard, nodes in replicas(config).items()
        if config.node_id in nodes
    }


def preferred_leaders(config: Config) -> dict[int, str]:
    """Of each shard, the node that leads it when all is well."""
    return {shard: preferred_leader(nodes) for shard, nodes in replicas(config).items()}


def open_shards(
    config: Config, storages: Mapping[int, GroupStorage], random: Chance
) -> dict[int, Shard]:
    """The shards of these storages, by number."""
    preferred = preferred_leaders(config)
    return {
        number: open_shard(config, number, storage, random, preferred[number])
        for number, storage in storages.items()
    }


def open_shard(
    config: Config, number: int, storage: GroupStorage, random: Chance, preferred: str
) -> Shard:
    """One shard. preferred: the node that is to lead it."""
    mark = storage.checkpoint
    raft = RawNode(
        RaftConfig(
            id=raft_id(config.node_id),
            election_tick=config.election_ticks,
            heartbeat_tick=config.heartbeat_ticks,
            max_entry_bytes_per_message=config.entry_bytes_max,
            max_uncommitted_bytes=config.proposed_bytes_max,
            eager_commit=number == TOPOLOGY,
            applied=mark.index if mark is not None else 0,
            rng=random,
        ),
        storage,
    )
    if preferred != config.node_id:
        raft.set_election_timeout(2 * config.election_ticks)
    shard = Shard(
        number,
        raft,
        new_machine(config, number),
        storage,
        entry_bytes_max=config.entry_bytes_max,
        entry_commands_max=config.entry_commands_max,
    )
    if mark is not None:
        shard.restore(mark.index)
    return shard


def founding_limits(config: Config) -> Limits:
    """What the machines' limits are until a log sets them: this node's settings."""
    return Limits(
        queues_max=config.queues_max,
        bindings_max=config.bindings_max,
        exchanges_max=config.exchanges_max,
        sessions_max=config.sessions_max,
        consumers_per_session_max=config.consumers_per_session_max,
    )


def new_machine(config: Config, shard: int) -> Machine:
    """An empty machine for a shard, or for the memory-only queues of a node."""
    count = config.shards - 1

    def place(vhost: str, name: str) -> int:
        """Shard 0 is kept free for topology and sessions."""
        return 1 + shard_of(vhost, name, count)

    return Machine(shard=shard, shards=config.shards, limits=founding_limits(config), place=place)
