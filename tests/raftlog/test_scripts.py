"""The golden scripts of the Raft core: read them as its specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import datadriven
from tests.raftlog.script import Script

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    datadriven.run(path, Script())
