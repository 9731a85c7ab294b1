"""How many bytes may be received now, so that a second has no more than it may have."""

from __future__ import annotations

from dataclasses import dataclass

BURST_MS = 250


@dataclass(slots=True)
class Allowance:
    """Fills evenly with time; the last part taken may overdraw it, and the next one waits."""

    bytes_per_s: int
    now_ms: int
    bytes: float = 0.0

    def fill(self, now_ms: int) -> None:
        """Time has passed."""
        more = (now_ms - self.now_ms) * self.bytes_per_s / 1000
        self.bytes = min(self.bytes + more, self.bytes_per_s * BURST_MS / 1000)
        self.now_ms = now_ms

    def take(self, size: int) -> None:
        """So many bytes came."""
        self.bytes -= size

    @property
    def left(self) -> bool:
        return self.bytes > 0
