"""Uploads an exported folder to the Hugging Face Hub."""

from __future__ import annotations

from .command import AddCommand


def run(folder: str, name: str, private: bool, revision: str | None) -> None:
    """Uploads an exported folder to the Hugging Face Hub."""
    from ..publishing.push import push

    url = push(folder, name, private=private, revision=revision)
    arguments = f'"{name}", revision="{revision}"' if revision else f'"{name}"'
    print(f"uploaded to {url}; load it with brainquant.load_pretrained({arguments})")


def add(command: AddCommand) -> None:
    """Adds the command to the parser."""
    added = command(
        run,
        "push",
        "Uploads an exported folder to the Hugging Face Hub. Log in first: hf auth login, or set "
        "HF_TOKEN.",
    )
    option = added.add_argument
    option("folder", metavar="DIR", help="folder that brainquant export has written")
    option("name", metavar="USER/NAME", help="Hub id; the repository is made if there is none")
    option("--private", action="store_true", help="only those whom you allow may read it")
    option("--revision", metavar="BRANCH", help="branch to upload to (main)")
