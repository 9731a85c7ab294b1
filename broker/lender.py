"""Gives copies of entries and bodies to a node that repairs its directory.

The asking node proves each copy by what is left of its own records before it takes it; see
docs/storage.md. What is not here, or is damaged here too, is left out: another node may have it.
"""

from __future__ import annotations

from broker.batch import Batch, index_of, offset_of
from broker.cluster import Cluster
from broker.peer_protocol import EntryPart, EntryPull
from broker.peers import Peer
from raftlog.errors import Compacted, Unavailable
from raftlog.messages import Entry
from raftlog.storage import GroupStorage
from raftlog.store_errors import CorruptRecord

PART_BYTES = 1 << 20
"""Of data in one answer; one entry, however large, always fits."""


class Lender:
    """Answers `EntryPull`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def lend(self, peer: Peer, pull: EntryPull) -> None:
        """Send what is here of what a node asks for, as much as a part holds."""
        shard = self._cluster.shards.get(pull.group)
        if shard is None:
            return
        storage = shard.storage
        if storage.incarnation != pull.incarnation:
            self._cluster.counters.other_incarnation += 1
            return
        part = EntryPart(pull.number, pull.group, [], [])
        size = 0
        for index in pull.entries:
            entry = self._entry(storage, pull.group, index)
            if entry is not None:
                part.entries.append((index, entry.term, entry.kind, entry.data))
                size += len(entry.data)
            if size >= PART_BYTES:
                break
        for id in pull.bodies:
            if size >= PART_BYTES:
                break
            body = self._body(storage, pull.group, id)
            if body is not None:
                part.bodies.append((id, body))
                size += len(body)
        self._cluster.log(
            f"lends {len(part.entries)} entries and {len(part.bodies)} bodies of shard "
            f"{pull.group} to node {peer.node}, which repairs its directory"
        )
        peer.records.append(part)

    def _entry(self, storage: GroupStorage, group: int, index: int) -> Entry | None:
        try:
            return storage.entry(index)
        except (Compacted, Unavailable):
            return None
        except CorruptRecord as error:
            # To be asked for a copy is no reason to stop: nobody is served by this record.
            self._cluster.counters.damaged_records += 1
            self._cluster.log(f"cannot lend entry {index} of shard {group}: {error}")
            return None

    def _body(self, storage: GroupStorage, group: int, id: int) -> bytes | None:
        """From the table of bodies, or from the entry that brought it: the bytes are the same."""
        try:
            body = storage.body(id)
        except CorruptRecord as error:
            self._cluster.counters.damaged_records += 1
            self._cluster.log(f"cannot lend body {id} of shard {group}: {error}")
            return None
        if body is not None:
            return body
        entry = self._entry(storage, group, index_of(id))
        if entry is None or not entry.data:
            return None
        batch = Batch(entry.data)
        return bytes(batch.command(offset_of(id))) if offset_of(id) < batch.count else None
