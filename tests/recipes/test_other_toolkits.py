"""The page about other toolkits, line by line: SpeechBrain's classes, its CTC recipe, the Hub.

recipes/s3prl has a test of its own.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_server import TOKEN, Hub, use

from brainquant.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how_to/other_toolkits.md").read_text("utf-8")
# What stands in SpeechBrain's YAML around the lines of the page.
HPARAMS = """
output_folder: run
train_csv: train.csv
freeze_wav2vec: True
wav2vec2_hub: facebook/wav2vec2-large-960h-lv60-self
activation: !name:torch.nn.LeakyReLU
dnn_layers: 1
dnn_neurons: 16
epoch_counter: !new:speechbrain.utils.epoch_loop.EpochCounter {limit: 1}
LINES
ctc_lin: !new:speechbrain.nnet.linear.Linear
   input_size: !ref <dnn_neurons>
   n_neurons: 29
log_softmax: !new:speechbrain.nnet.activations.Softmax {apply_log: True}
ctc_cost: !name:speechbrain.nnet.losses.ctc_loss {blank_index: 0}
modules:
   wav2vec2: !ref <wav2vec2>
   enc: !ref <enc>
   ctc_lin: !ref <ctc_lin>
model: !new:torch.nn.ModuleList
   - [!ref <enc>, !ref <ctc_lin>]
model_opt_class: !name:torch.optim.Adadelta {lr: 0.9}
wav2vec_opt_class: !name:torch.optim.Adam {lr: 0.0001}
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
   checkpoints_dir: !ref <output_folder>/save
   recoverables:
      wav2vec2: !ref <wav2vec2>
      model: !ref <model>
      counter: !ref <epoch_counter>
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def here(exported, tmp_path, monkeypatch):
    """What there is before the first line: an exported folder and audio."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "my_encoder").symlink_to(exported("best_rq"))
    noise = np.random.default_rng(0).normal(0, 0.1, 40000)
    rows = ["ID,duration,wav,wrd"]
    for name, seconds, words in (("clip", 2.5, "SOME WORDS"), ("a", 1, "ONE"), ("b", 1.7, "TWO")):
        soundfile.write(tmp_path / f"{name}.wav", noise[: int(seconds * 16000)], 16000)
        rows.append(f"{name},{seconds},{tmp_path}/{name}.wav,{words}")
    (tmp_path / "train.csv").write_text("\n".join(rows), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_runs(here, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    features, hub_block = blocks("python")
    names = {}
    exec(features, names)
    assert names["embeddings"].shape == (2, *names["encoder"].encode_file("a.wav").shape[1:])
    assert names["frames"].tolist() == [26, 13]
    ((line,),) = (block.splitlines() for block in blocks("bash"))
    with Hub() as hub:
        use(hub, here, monkeypatch)
        main(shlex.split(line)[1:])
        exec(hub_block, names)
    assert names["encoder"].step == 1


@pytest.mark.parametrize("freeze", [pytest.param(True, marks=pytest.mark.slow), False])
def test_eight_lines_put_the_encoder_into_the_ctc_recipe(freeze, here, start_program):
    (lines,) = blocks("yaml")
    assert len(lines.splitlines()) == 8
    (here / "hparams.yaml").write_text(HPARAMS.replace("LINES\n", lines), "utf-8")
    command = ["hparams.yaml", "--wav2vec2_hub", "results/my_encoder", "--freeze_wav2vec", freeze]
    program = ROOT / "tests" / "speechbrain_ctc.py"
    process = start_program(program, *command, "--debug", "--device", "cpu", cwd=here)
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    losses = re.findall(r"(TRAIN|VALID|TEST) loss \d+\.\d+", shown)
    assert losses == ["TRAIN", "VALID", "TEST"]
    assert f"encoder changed: {not freeze}" in shown
