"""The command line with real processes: wrong settings, a development cluster, looking at one."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cli.local_cluster import free_ports, port_is_free
from kombu_transport.errors import ResourceExhausted
from raftlog import lmdb_store
from tests.cluster import Cluster, die_with_parent, eventually, free_port, python_environment
from tests.end_to_end.traffic import assert_each_once, publish, receive

LIMIT_S = 20.0

pytestmark = pytest.mark.slow


def raftmq(
    *words: object, cwd: Path, timeout_s: float = LIMIT_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `raftmq` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "broker.cli", *map(str, words)],
        cwd=cwd,
        env=python_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2, and one sentence on stderr that has all the words."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("raftmq: ")
    for word in words:
        assert word in lines[0], f"{word!r} is missing in: {lines[0]}"


def node_words(directory: Path, **changes: object) -> list[object]:
    """The words of `raftmq node` for a cluster of one, some options changed."""
    peer_port = free_port()
    options: dict[str, object] = {
        "node-id": "n1",
        "host": "127.0.0.1",
        "port": free_port(),
        "peer-host": "127.0.0.1",
        "peer-port": peer_port,
        "http-host": "127.0.0.1",
        "http-port": free_port(),
        "cluster-nodes": f"n1:127.0.0.1:{peer_port}",
        "cluster-name": "test",
        "data-dir": directory / "data",
        "shards": 2,
    }
    options.update({name.replace("_", "-"): value for name, value in changes.items()})
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["node", *words]


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"node_id": "n7"}, "n7"),
        ({"cluster_nodes": "n1"}, "n1"),
        ({"cluster_nodes": "n1:127.0.0.1:99999"}, "99999"),
        ({"cluster_nodes": "n1:127.0.0.1:1,n1:127.0.0.1:2"}, "n1"),
        ({"cluster_nodes": ""}, "cluster"),
        ({"shards": 0}, "shards"),
        ({"port": 0}, "port"),
        ({"log_level": "loud"}, "loud"),
    ],
)
def test_a_wrong_setting_is_named_and_touches_nothing(
    tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    assert_refused(raftmq(*node_words(tmp_path, **changes), cwd=tmp_path), word)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["port", "peer_port", "http_port"])
def test_a_port_in_use_is_named_and_touches_nothing(
    tmp_path: Path, taken_port: int, option: str
) -> None:
    result = raftmq(*node_words(tmp_path, **{option: taken_port}), cwd=tmp_path)
    assert_refused(result, str(taken_port), option.replace("_", "-"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_address_of_a_peer_is_named_and_touches_nothing(tmp_path: Path) -> None:
    words = node_words(tmp_path)
    nodes = words.index("--cluster-nodes") + 1
    words[nodes] = f"{words[nodes]},n2:no such host:7651"
    assert_refused(raftmq(*words, cwd=tmp_path), "--cluster-nodes", "no such host", "n2")
    assert list(tmp_path.iterdir()) == []


def test_the_data_of_another_cluster_or_node_are_left_alone(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=2) as cluster:
        cluster.wait_ready()
        publish(cluster.url, "work", range(3))
    first, second = cluster.nodes
    before = {path.name: path.read_bytes() for path in first.data_dir.glob("data*")}
    assert before
    words = cluster.arguments(first)[3:]
    other_cluster = ["other" if word == "test" else word for word in words]
    assert_refused(raftmq(*other_cluster, cwd=tmp_path), "cluster", str(first.data_dir))
    other_node = [
        str(first.data_dir) if word == str(second.data_dir) else word
        for word in cluster.arguments(second)[3:]
    ]
    assert_refused(raftmq(*other_node, cwd=tmp_path), "n2", str(first.data_dir))
    assert {path.name: path.read_bytes() for path in first.data_dir.glob("data*")} == before


def test_data_of_a_later_version_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = node_words(tmp_path)
    monkeypatch.setattr(lmdb_store, "DIRECTORY_FORMAT", 200)
    lmdb_store.LmdbStore.open(
        tmp_path / "data",
        lmdb_store.Identity(b"any", "n1"),
        {},
        map_bytes=1 << 20,
        cache_bytes=1 << 20,
    ).close()
    before = (tmp_path / "data" / "data.mdb").read_bytes()
    assert_refused(raftmq(*words, cwd=tmp_path), "format 200", str(tmp_path / "data"))
    assert (tmp_path / "data" / "data.mdb").read_bytes() == before


def test_two_nodes_do_not_share_a_data_directory(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:
        cluster.wait_ready()
        result = raftmq(*node_words(cluster.nodes[0].directory), cwd=tmp_path)
        assert_refused(result, str(cluster.nodes[0].data_dir))
        publish(cluster.url, "work", range(3))
        assert_each_once(receive(cluster.url, "work", 3), 3)


def test_the_command_line_beats_the_environment_beats_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("RAFTMQ_NODE_ID=from-file\nRAFTMQ_SHARDS=from-file\n")
    words = node_words(tmp_path)[3:]  # without --node-id
    assert_refused(raftmq("node", *words, cwd=tmp_path), "from-file")
    assert_refused(raftmq("node", *words, cwd=tmp_path, RAFTMQ_NODE_ID="from-env"), "from-env")
    named = raftmq(
        "node", "--node-id", "from-line", *words, cwd=tmp_path, RAFTMQ_NODE_ID="from-env"
    )
    assert_refused(named, "from-line")


def test_a_node_that_reaches_nobody_says_so_and_keeps_trying(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=3) as cluster:
        for node in cluster.nodes[1:]:
            cluster.kill(node)
        lone = cluster.nodes[0]
        eventually(lambda: "n2" in lone.log() and "n3" in lone.log(), 20, "a line about the peers")
        assert lone.http("/health")[0] == 200
        for node in cluster.nodes[1:]:
            cluster.restart(node)
        cluster.wait_ready()


def test_version_and_help(tmp_path: Path) -> None:
    assert re.fullmatch(r"raftmq, version \S+\n", raftmq("--version", cwd=tmp_path).stdout)
    usage = raftmq("--help", cwd=tmp_path).stdout
    for command in ("node", "dev", "status", "queue", "demo"):
        assert re.search(rf"^  {command}\b", usage, re.MULTILINE)


def test_status_when_nobody_answers(tmp_path: Path) -> None:
    result = raftmq("status", "--url", f"http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert_refused(result, "no node answers")


def test_a_wrong_url_is_named(tmp_path: Path) -> None:
    result = raftmq("queue", "list", "--url", "http://127.0.0.1:7650", cwd=tmp_path)
    assert_refused(result, "URL scheme 'http'")


def test_status_asked_of_a_port_that_does_not_speak_http(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:
        cluster.wait_ready()
        url = f"http://{cluster.nodes[0].address}"
        assert_refused(raftmq("status", "--url", url, cwd=tmp_path), "no node answers")


def test_status_and_queue_list(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        publish(cluster.url, "backlog", range(7))
        dead = f"http://127.0.0.1:{free_port()}"
        urls = [word for url in (dead, *cluster.http_urls) for word in ("--url", url)]
        shown = raftmq("status", *urls, cwd=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert "ready" in shown.stdout
        assert "LEADER" in shown.stdout
        as_json = json.loads(raftmq("status", "--json", *urls, cwd=tmp_path).stdout)
        assert len(as_json["shards"]) == cluster.shards
        for node in cluster.nodes:  # the same truth from each of them
            url = ("--url", cluster.url_of(node))
            listed = json.loads(raftmq("queue", "list", "--json", *url, cwd=tmp_path).stdout)
            assert [(q["name"], q["ready"]) for q in listed] == [("backlog", 7)]
        table = raftmq("queue", "list", "--url", cluster.url, cwd=tmp_path)
        assert re.search(r"backlog .* 7 ", table.stdout), table.stdout + table.stderr


def test_limits_are_changed_through_any_node_and_outlive_settings(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        url = ("--url", ",".join(cluster.http_urls))
        shown = raftmq("cluster", "limits", "--json", *url, cwd=tmp_path)
        assert json.loads(shown.stdout)["queues_max"] == 10_000
        for number, http_url in enumerate(cluster.http_urls):
            wanted = ("--set", f"queues_max={number + 1}")
            done = raftmq("cluster", "limits", *wanted, "--url", http_url, cwd=tmp_path)
            assert re.search(rf"queues_max +{number + 1}\b", done.stdout), done.stderr
        refused = raftmq("cluster", "limits", "--set", "shards=3", *url, cwd=tmp_path)
        assert refused.returncode == 1
        assert "shards" in refused.stderr
        publish(cluster.url, "a", range(1))
        publish(cluster.url, "b", range(1))
        publish(cluster.url, "c", range(1))
        with pytest.raises(ResourceExhausted):
            publish(cluster.url, "d", range(1))
        for node in cluster.nodes:
            cluster.terminate(node)
        cluster.settings["RAFTMQ_QUEUES_MAX"] = "2"
        cluster.start()
        cluster.wait_ready()
        publish(cluster.url, "c", range(1))
        assert cluster.queue("c").ready == 2
        shown = raftmq("cluster", "limits", "--json", *url, cwd=tmp_path)
        assert json.loads(shown.stdout)["queues_max"] == 3


def test_dev_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    port = free_ports(3)
    with (tmp_path / "dev.err").open("w+") as errors:
        dev = subprocess.Popen(
            [sys.executable, "-m", "broker.cli", "dev", "--nodes", "3", "--port", str(port)],
            cwd=tmp_path,
            env=python_environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=die_with_parent,
        )
        try:
            assert dev.stdout is not None
            line = dev.stdout.readline()
            hosts = ",".join(f"127.0.0.1:{port + n}" for n in range(3))
            assert line == f"ready raftmq://{hosts}//\n", (tmp_path / "dev.err").read_text()
            publish(f"raftmq://{hosts}//", "work", range(3))
            dev.send_signal(signal.SIGINT)
            assert dev.wait(LIMIT_S) == 0
            assert dev.stdout.read() == ""
        finally:
            dev.kill()
            dev.wait()
    assert "n1 | " in (tmp_path / "dev.err").read_text()
    assert all(port_is_free("127.0.0.1", port + n) for n in range(3)), "nodes were left behind"


def test_dev_ends_when_a_node_cannot_start(tmp_path: Path) -> None:
    port = free_ports(3)
    with socket.socket() as listener:
        # As nodes do: what listened there a moment ago may have left links behind.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port + 1))
        listener.listen()
        began = time.monotonic()
        result = raftmq("dev", "--port", port, cwd=tmp_path)
    assert result.returncode == 2
    assert str(port + 1) in result.stderr
    assert result.stdout == ""
    assert time.monotonic() - began < LIMIT_S


def test_a_stopped_node_is_compacted_and_serves_again(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=1) as cluster:
        cluster.wait_ready()
        publish(cluster.url, "work", range(3))
        node = cluster.nodes[0]
        assert_refused(
            raftmq("node", "compact", "--data-dir", str(node.data_dir), cwd=tmp_path),
            str(node.data_dir),
            "stop it first",
        )
        assert cluster.terminate(node) == 0
        result = raftmq("node", "compact", "--data-dir", str(node.data_dir), cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "bytes before" in result.stdout
        cluster.restart(node)
        cluster.wait_ready()
        assert_each_once(receive(cluster.url, "work", 3), 3)
