"""What a leader knows of one follower, and how fast it may send to it.

                 AppendReply                        the window may fill
      +-> PROBE ------------------------> REPLICATE ----------------+
      |     | ^        reject, unreachable    |                     | AppendReply
      |     | +-------------------------------+<--------------------+
      |     | what it needs is compacted      |
      |     v                                 |
      +- SNAPSHOT <---------------------------+
         reported, timed out, or acknowledged

PROBE: one message per heartbeat, to find where the logs agree. REPLICATE: optimistic, as
many messages on their way as the window holds. SNAPSHOT: nothing but heartbeats.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum


class ProgressState(str, Enum):
    """How entries are sent to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Inflights:
    """The messages with entries on their way: the last index and the bytes of each."""

    messages_max: int
    bytes_max: int
    bytes: int = 0
    sent: deque[tuple[int, int]] = field(default_factory=deque)

    def full(self) -> bool:
        return bool(self.sent) and (
            len(self.sent) >= self.messages_max or self.bytes >= self.bytes_max
        )

    def add(self, last_index: int, size: int) -> None:
        assert not self.full()
        assert not self.sent or self.sent[-1][0] < last_index
        self.sent.append((last_index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """What ends at or before `index` has arrived."""
        sent = self.sent
        while sent and sent[0][0] <= index:
            self.bytes -= sent.popleft()[1]

    def clear(self) -> None:
        self.sent.clear()
        self.bytes = 0


@dataclass(slots=True)
class Progress:
    """A follower as its leader sees it. Invariant: match < next."""

    inflights: Inflights
    next: int  #: the next entry to send
    match: int = 0  #: durable there, and equal
    state: ProgressState = ProgressState.PROBE
    pending_snapshot: int = 0  #: in SNAPSHOT: the index of the snapshot on its way
    snapshot_ticks: int = 0  #: in SNAPSHOT: how long already
    probe_sent: bool = False  #: in PROBE: wait for an answer or a heartbeat's
    recent_active: bool = False  #: heard of since the quorum was last checked
    silent_periods: int = 0  #: quorum checks in a row without news of it
    wants_empty: bool = False  #: the next append leaves even when it carries nothing
    sent_commit: int = 0  #: the commit index it was last told
    read_round: int = 0  #: the last read round it answered

    def become_probe(self) -> None:
        """Look again where the logs agree, behind what is known to have arrived."""
        after = max(self.match, self.pending_snapshot)
        self._become(ProgressState.PROBE)
        self.next = after + 1

    def become_replicate(self) -> None:
        self._become(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        self._become(ProgressState.SNAPSHOT)
        self.pending_snapshot = index

    def _become(self, state: ProgressState) -> None:
        self.state = state
        self.pending_snapshot = self.snapshot_ticks = 0
        self.probe_sent = False
        self.sent_commit = 0
        self.inflights.clear()

    def paused(self) -> bool:
        """Whether no entry may be sent now."""
        if self.state is ProgressState.REPLICATE:
            return self.inflights.full()
        return self.state is ProgressState.SNAPSHOT or self.probe_sent

    def sent(self, last_index: int, size: int) -> None:
        """Entries up to `last_index`, of `size` bytes, are on their way."""
        if self.state is ProgressState.REPLICATE:
            self.next = last_index + 1
            self.inflights.add(last_index, size)

    def acknowledged(self, index: int) -> bool:
        """Everything up to `index` is durable there; False when that is no news."""
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        return True

    def rejected(self, index: int, agree_at_most: int) -> bool:
        """It does not have what stands at `index`; False when the news is old.

        `agree_at_most`: where the two logs may agree, by their terms.
        """
        if self.state is ProgressState.SNAPSHOT or index <= self.match:
            return False
        if self.state is ProgressState.REPLICATE:
            # A message was lost: all behind the last acknowledgement is sent again.
            self.become_probe()
            return True
        if index != self.next - 1:
            return False
        self.next = max(min(index, agree_at_most + 1), self.match + 1)
        self.probe_sent = False
        return True
