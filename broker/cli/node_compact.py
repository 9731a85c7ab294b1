"""`raftmq node compact`: makes a stopped node's file as small as what it holds.

Exit codes: 0 done, 1 the directory is damaged or the disk refuses, 2 it cannot be used now. But
for 0 nothing was changed.
"""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.directory import data_dir_option, directory_errors


@click.command("compact")
@data_dir_option
def compact(data_dir: str) -> None:
    """Give back the disk space that a stopped node's file does not need any more.

    Needs room for a copy beside it. A running node uses such space again by itself.
    """
    # Late: the other commands start without loading the store.
    from raftlog.lmdb_compaction import compact_directory

    with directory_errors():
        sizes = compact_directory(Path(data_dir))
    click.echo(f"{data_dir}: {sizes.before} bytes before, {sizes.after} now")
