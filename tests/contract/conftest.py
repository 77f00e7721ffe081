"""Quantisers as a recipe gets them: from the fragments of hparams/quantisers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import save_file

FRAGMENTS = Path(__file__).resolve().parents[2] / "hparams" / "quantisers"


@pytest.fixture
def make_from_fragment(tmp_path):
    """What a fragment's ``!name:`` node gives, with some of its keys overridden."""

    def make(name, **overrides):
        shutil.copy(FRAGMENTS / f"{name}.yaml", tmp_path)
        recipe = tmp_path / "recipe.yaml"
        include = f"make_quantiser: !include:{name}.yaml {json.dumps(overrides)}"
        recipe.write_text(include, "utf-8")
        with open(recipe, encoding="utf-8") as file:
            return load_hyperpyyaml(file)["make_quantiser"]

    return make


@pytest.fixture
def centroids_file(tmp_path):
    """A file as ``brainquant kmeans`` writes it: 16 centroids of 12 numbers."""
    centroids_VI = torch.randn(16, 12, generator=torch.Generator().manual_seed(0))
    save_file({"centroids": centroids_VI}, tmp_path / "centroids.safetensors")
    return str(tmp_path / "centroids.safetensors")
