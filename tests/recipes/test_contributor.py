"""A contributor plays all that the pages for contributors show, in folders of their own."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/tutorials/own_quantiser.md", "docs/how_to/contribute_a_recipe.md")
GUIDE = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES)
FILES = dict(re.findall(r"`\.\./([\w/.]+)`:\n\n```\w+\n(.*?)```", GUIDE, re.DOTALL))
INSTALL, CHECK, TRAIN, COPY = re.findall(r"```bash\n(.*?)\n```", GUIDE, re.DOTALL)
# Breaks one promise only.
CARELESS = """
from my_quantisers import SignQuantiser

class CarelessQuantiser(SignQuantiser):
    def encode(self, x):
        return super().encode(x.nan_to_num())
"""
# SpeechBrain's own, which is no brainquant Quantiser.
FOREIGN = """
!name:speechbrain.nnet.quantisers.RandomProjectionQuantizer
cb_dim: 16
cb_vocab: 768
"""
TINY = (
    "--debug --num_layers 2 --d_model 32 --batch_seconds 8 --num_buckets 4 --num_workers 0 "
    "--prepare null --evaluate null"
)


class Contributor:
    """Has a clone of the repository and, beside it, a package of quantisers, installed."""

    def __init__(self, folder, data_folder):
        self.clone = folder / "clone"
        self.site = folder / "site"
        self.tiny = f"{TINY} --data_folder {shlex.quote(str(data_folder))}"
        for name in ("recipes", "hparams"):
            shutil.copytree(ROOT / name, self.clone / name)
        for name, content in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(content, "utf-8")
        # As the guide says, but for these tests only and without network.
        where = f"--no-deps --no-build-isolation --no-index --target {shlex.quote(str(self.site))}"
        self.run(f"{INSTALL} {where}")

    def run(self, command, check=True):
        """Does in a shell, from the clone's root, what the guide says."""
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.clone,
            text=True,
            capture_output=True,
            timeout=300,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PATH": os.pathsep.join(path),
                "PYTHONPATH": os.pathsep.join([str(self.site), str(ROOT)]),
            },
        )
        if check:
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done


@pytest.fixture(scope="module")
def contributor(corpus, tmp_path_factory):
    return Contributor(tmp_path_factory.mktemp("contributor"), corpus)


def test_no_block_of_the_guide_is_left_out():
    assert GUIDE.count("```") == 2 * (len(FILES) + len([INSTALL, CHECK, TRAIN, COPY]))


def test_the_check_passes_the_quantiser_of_the_installed_package(contributor):
    assert {path.name for path in contributor.site.glob("*.py")} == {"my_quantisers.py"}
    contributor.run(CHECK)


def test_the_check_names_the_promise_that_a_quantiser_breaks(contributor):
    (contributor.site / "careless.py").write_text(CARELESS, "utf-8")
    command = CHECK.replace("my_quantisers", "careless").replace("Sign", "Careless")
    done = contributor.run(command, check=False)
    assert done.returncode == 1
    complaint = done.stderr.rpartition("AssertionError: ")[2]
    assert complaint.startswith("check_not_finite: expected -1 for the frame with nan")
    assert complaint.count("check_") == 1


def test_a_copy_of_the_template_trains_with_the_contributed_quantiser(contributor):
    contributor.run(COPY)
    copied = contributor.clone / "recipes" / "MyCorpus"
    texts = [path.read_text("utf-8") for path in copied.rglob("*") if path.is_file()]
    assert len(texts) == 3 and not any("TEMPLATE" in text for text in texts)

    command = TRAIN.replace("ToySpeech", "MyCorpus")
    assert command_of(copied / "hparams" / "best_rq.yaml") in command
    contributor.run(f"{command} {contributor.tiny}")
    output = contributor.clone / "results" / "MyCorpus_best_rq" / "seed_1234" / "debug"
    records = [json.loads(line) for line in (output / "metrics.jsonl").open(encoding="utf-8")]
    assert {record["stage"] for record in records} == {"train", "valid"}
    for record in records:  # 3 codebooks of 256, as no fragment of brainquant's own has
        assert len(record["code_perplexity"]) == 3
        assert record["dead_codes"] == round(3 * 256 * (1 - record["code_usage"]))


def test_a_quantiser_of_another_kind_ends_with_one_line(contributor):
    (contributor.clone / "foreign.yaml").write_text(FOREIGN, "utf-8")
    command = command_of(contributor.clone / "recipes" / "TEMPLATE" / "hparams" / "best_rq.yaml")
    swap = "--make_quantiser '!include:../../../foreign.yaml'"
    done = contributor.run(f"{command} {swap} {contributor.tiny}", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the quantiser of the YAML must be a brainquant Quantiser, got")


def command_of(recipe):
    """The command that a recipe's YAML opens with."""
    return re.search(r"^#   (python .*)$", recipe.read_text("utf-8"), re.MULTILINE).group(1)
