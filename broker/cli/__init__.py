"""The `raftmq` command.

    raftmq node          run one node of a cluster
    raftmq node verify   name the damaged records of a stopped node (also: repair, compact)
    raftmq dev           run a whole cluster on this machine
    raftmq status        how a node and its shards are
    raftmq queue list    the queues and their depths
    raftmq cluster       its nodes and its limits, and how to change them
    raftmq demo          kill a leader under a running application

Settings come from the command line, else from RAFTMQ_ environment variables, else from a
file `.env` in the working directory, else from the defaults.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click
from dotenv import dotenv_values

from broker.cli.cluster import cluster
from broker.cli.demo import demo
from broker.cli.dev import dev
from broker.cli.node import node
from broker.cli.queues import queue
from broker.cli.status import status
from broker.errors import ConfigError
from broker.version import __version__

ENV_FILE = ".env"
ENV_PREFIX = "RAFTMQ_"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="raftmq")
def cli() -> None:
    """RaftMQ, a replicated message broker."""


for _command in (node, dev, status, queue, cluster, demo):
    cli.add_command(_command)


def load_env_file(path: Path) -> None:
    """Put the RAFTMQ_ settings of the file into the environment where it has none."""
    if not path.is_file():
        return
    for name, value in dotenv_values(path).items():
        if name.startswith(ENV_PREFIX) and value is not None:
            os.environ.setdefault(name, value)


def main() -> None:
    """What `raftmq` runs: whatever is wrong with the call is one sentence, with exit code 2."""
    load_env_file(Path(ENV_FILE))
    try:
        sys.exit(cli.main(prog_name="raftmq", standalone_mode=False))
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "raftmq"
        _fail(f"{error.format_message()} (see {command} --help)", 2)
    except ConfigError as error:
        _fail(str(error), 2)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)


def _fail(sentence: str, code: int) -> NoReturn:
    click.echo(f"raftmq: {sentence}", err=True)
    sys.exit(code)
