"""What setup.cfg cannot say: recipes in the wheel, links for an index, an sdist of fixed bytes."""

import gzip
import os
import re
import shutil
import tarfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
URL = "https://github.com/brainquant/brainquant"


def long_description():
    """The README; its links and pictures are of the repository, and work on an index too."""
    text = (ROOT / "README.md").read_text("utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?!\w+:|#)", rf"\1{URL}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!\w+:|#)", rf"\1{URL}/blob/main/", text)


class BuildWithRecipes(build_py):
    """Adds what ``brainquant copy`` copies; an editable install finds it in the clone."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for folder in ("recipes", "hparams"):
                shutil.copytree(
                    ROOT / folder,
                    Path(self.build_lib, "brainquant", "_shared", folder),
                    ignore=shutil.ignore_patterns("__pycache__", "*.md", "*.png"),
                    dirs_exist_ok=True,
                )


class ReproducibleSdist(sdist):
    """The same files make the same bytes, with SOURCE_DATE_EPOCH as their time."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, **ignored):
        def fixed(member):
            member.mtime, member.uid, member.gid = seconds, 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        seconds = int(os.environ.get("SOURCE_DATE_EPOCH", 0))
        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=seconds) as packed,
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            tar.add(base_dir, filter=fixed)  # in the order of the names
        return path


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWithRecipes, "sdist": ReproducibleSdist},
)
