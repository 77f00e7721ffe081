"""A YAML that states no optional key trains, evaluates, and goes on where it stopped."""

import json
import re
from pathlib import Path

import ruamel.yaml
from tiny_run import HPARAMS

from brainquant.brains import BestRQBrain
from brainquant.recipe import main
from brainquant.training.keys import OPTIONS, RECIPE, REFERENCED
from brainquant.training.ranges import REQUIRED

READ = {**REFERENCED, **OPTIONS, **RECIPE, **BestRQBrain.hparams_read}
SMALL = {"num_layers": 1, "d_model": 16, "cb_vocab": 32}


def evaluate(brain, hparams, *, file):
    """Writes the step and what the command line says."""
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(f"{brain.optimizer_step} {sorted(hparams['overrides'])}\n")


def test_a_yaml_without_any_optional_key_trains_and_resumes(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = ruamel.yaml.YAML().load((HPARAMS / "best_rq.yaml").read_text("utf-8"))
    referred = set(re.findall(r"<(\w+)", (HPARAMS / "best_rq.yaml").read_text("utf-8")))
    for name in [*document]:
        if name in READ and READ[name].default is not REQUIRED and name not in referred:
            del document[name]
    del document["train_minutes"]
    assert len(document) < 24, [*document]
    document |= {**SMALL, "data_folder": str(corpus), "output_folder": "run"}
    document["evaluate"] = ruamel.yaml.YAML().load(
        "x: !name:test_defaults.evaluate {file: evaluated.txt}"
    )["x"]
    fragment = str(HPARAMS.parents[2] / "hparams/quantisers/random_projection.yaml")
    include = f"x: !include:{fragment} {{cb_vocab: !ref <cb_vocab>}}"
    document["make_quantiser"] = ruamel.yaml.YAML().load(include)["x"]
    recipe = tmp_path / "mine.yaml"
    with open(recipe, "w", encoding="utf-8") as file:
        ruamel.yaml.YAML().dump(document, file)
    options = ["--num_workers", "0", "--batch_seconds", "8", "--num_buckets", "4"]
    for limit in ("2", "4"):
        main([str(recipe), *options, "--optimizer_step_limit", limit, "--noprogressbar"])
    overrides = "['batch_seconds', 'num_buckets', 'num_workers', 'optimizer_step_limit']"
    lines = Path("evaluated.txt").read_text("utf-8").splitlines()
    assert lines == [f"{step} {overrides}" for step in (2, 4)]
    log = Path("run/log.txt").read_text("utf-8")
    assert "All keys in force, defaults included:" in log and "  keep_checkpoints: 2" in log
    assert "optimizer_step_limit: 2 then, 4 now" in log
    records = map(json.loads, Path("run/metrics.jsonl").read_text("utf-8").splitlines())
    assert {record["step"] for record in records} == {2, 4}
