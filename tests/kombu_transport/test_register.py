"""Kombu finds the transport by itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from kombu_transport.register import SCHEME, TRANSPORT, register, serializer


def run(program: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def test_importing_the_package_is_enough() -> None:
    program = (
        "import kombu_transport, kombu; "
        "print(kombu.Connection('raftmq://h').get_transport_cls().__module__)"
    )
    assert run(program) == "kombu_transport.transport"


def test_celery_needs_no_import() -> None:
    if not [one for one in entry_points(group="kombu.serializers") if one.name == SCHEME]:
        pytest.skip("the package is not installed, only on the path")
    program = (
        "import celery; app = celery.Celery(broker='raftmq://h:1,i:2//'); "
        "print(app.connection().transport.driver_name, app.connection().as_uri())"
    )
    assert run(program) == "raftmq raftmq://h:1,i:2//"


def test_the_entry_point_is_harmless() -> None:
    from kombu.serialization import register as register_serializer
    from kombu.serialization import registry, unregister

    register_serializer("raftmq-test", *serializer)
    try:
        assert "raftmq-test" not in registry._encoders
    finally:
        unregister("raftmq-test")


def test_a_failure_does_not_reach_kombu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import kombu.transport

    monkeypatch.delattr(kombu.transport, "TRANSPORT_ALIASES")
    register()
    assert "could not be registered" in caplog.text


def test_an_alias_that_is_there_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    import kombu.transport

    monkeypatch.setitem(kombu.transport.TRANSPORT_ALIASES, SCHEME, "somebody:Else")
    register()
    assert kombu.transport.TRANSPORT_ALIASES[SCHEME] == "somebody:Else" != TRANSPORT
