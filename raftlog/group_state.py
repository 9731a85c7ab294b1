"""What a store keeps of a group beside its entries, bodies and chunks; and of the node."""

from __future__ import annotations

import msgspec

from raftlog.messages import HardState, Membership
from raftlog.record import NO_CHAIN
from raftlog.write import Extent, Mark

FIRST_INCARNATION = 1
FIRST_EDITION = 1


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Whose directory it is."""

    cluster: str
    node: str


class GroupState(msgspec.Struct, frozen=True, array_like=True):
    """All of a group that is not an entry; written with every write to the group.

               before   checkpoint         last
    k..k.k.kk.k|##########|#################|       k: a record that is kept
               chain                        chain

    `before` is where the log begins: the last entry that is compacted, (0, 0) in a new group.
    `last` says where it ends, so that a lost suffix is noticed. A checkpoint of index 0 is
    none. Invariant: before <= checkpoint <= last, and before = 0 without a checkpoint.
    """

    incarnation: int
    before_index: int
    before_term: int
    before_chain: int
    last_index: int
    last_chain: int
    hard_state: HardState
    membership: Membership  #: in force at the checkpoint, or at the beginning without one
    edition: int = FIRST_EDITION  #: which of the logs that have stood here
    checkpoint_index: int = 0
    checkpoint_term: int = 0
    checkpoint_chunks: int = 0
    dropped: bool = False  #: nothing is left of the group but how this node has voted in it

    @property
    def checkpoint(self) -> Mark | None:
        """The whole one, if any."""
        if not self.checkpoint_index:
            return None
        return Mark(
            self.checkpoint_index, self.checkpoint_term, self.membership, self.checkpoint_chunks
        )

    @property
    def extent(self) -> Extent:
        """As the rules for a write need it."""
        return Extent(self.before_index, self.last_index, self.hard_state, self.checkpoint_index)


def new_state(membership: Membership) -> GroupState:
    """Of a group that has never been here."""
    return GroupState(
        incarnation=FIRST_INCARNATION,
        before_index=0,
        before_term=0,
        before_chain=NO_CHAIN,
        last_index=0,
        last_chain=NO_CHAIN,
        hard_state=HardState(),
        membership=membership,
    )


def dropped_state(state: GroupState, last_term: int) -> GroupState:
    """What stays of a group that is dropped: how this node has voted in it, and its edition."""
    return msgspec.structs.replace(
        new_state(Membership()),
        incarnation=state.incarnation,
        hard_state=state.hard_state.after_drop(last_term, state.last_index),
        edition=state.edition + 1,
        dropped=True,
    )


encode_state = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(GroupState).decode
decode_identity = msgspec.msgpack.Decoder(Identity).decode
