from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.broker.machines.script import run

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    stands, should = run(path, rewrite=bool(os.environ.get("REWRITE")))
    assert stands == should


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 4
