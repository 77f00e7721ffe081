"""Packs the audio of a manifest into tar files."""

from __future__ import annotations

from .command import AddCommand, positive


def run(
    manifest: str, data_folder: str, output: str, shard_megabytes: float, num_workers: int
) -> None:
    """Packs the audio of a manifest into tar files."""
    from ..data.shards import write_shards

    size = int(1e6 * shard_megabytes)
    made = write_shards(manifest, data_folder, output, shard_bytes=size, num_workers=num_workers)
    print(f"written; train with --train_csv {made} --data_folder {output}")


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "shards",
        "Packs the audio of a manifest into tar files, for corpora of very many files.",
    )
    option = added.add_argument
    option("manifest", metavar="MANIFEST", help="CSV or JSON file")
    option("--data_folder", metavar="F", required=True, help="folder that $data_root stands for")
    option("--output", metavar="FOLDER", required=True, help="folder of the shards")
    option("--shard_megabytes", metavar="X", type=positive, default=1000, help="size (%(default)s)")
    option("--num_workers", metavar="N", type=int, default=1, help="processes (%(default)s)")
