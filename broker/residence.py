"""Keeps the store's pages from being counted as this process's memory without end.

The store is read through a mapping of its file, so every page that was ever looked at stays in
the process's resident set until the kernel needs the room, or the process lets it go. It costs
nothing to let go: the pages stay in the kernel's cache of files, and are mapped again at the
next look. What is left is what a memory limit, and whoever watches one, should see.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_DONT_NEED = 4
"""MADV_DONTNEED: for a shared mapping of a file this changes no byte of it."""


class Residence:
    """The pages of one mapped file in this process. Without /proc (not Linux) it does nothing."""

    def __init__(self, file: Path, bytes_max: int) -> None:
        """bytes_max: of pages of files in the resident set; then those of `file` are let go."""
        self._file = os.path.realpath(file)
        self._bytes_max = bytes_max
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._statm = Path("/proc/self/statm")
        self._maps = Path("/proc/self/maps")
        self._madvise = ctypes.CDLL(None, use_errno=True).madvise
        self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self.here = self._statm.exists()

    def resident_bytes(self) -> int:
        """Pages of files in this process's resident set."""
        return int(self._statm.read_text().split()[2]) * self._page_bytes

    def limit(self) -> bool:
        """Let the file's pages go if there are too many; whether that was so."""
        if not self.here or self.resident_bytes() <= self._bytes_max:
            return False
        for begin, end in self._mappings():
            self._madvise(begin, end - begin, _DONT_NEED)
        return True

    def _mappings(self) -> list[tuple[int, int]]:
        found = []
        for line in self._maps.read_text().splitlines():
            span, _, rest = line.partition(" ")
            if rest.endswith(f" {self._file}"):
                begin, end = span.split("-")
                found.append((int(begin, 16), int(end, 16)))
        return found
