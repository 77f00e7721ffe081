"""A step of continued pretraining: transformers' own beside ours, without and with checkpointing.

> python tests/benchmarks/continued.py

transformers' step is the forward of ``Wav2Vec2ForPreTraining`` with 100 negatives, and its
backward; ours is that of ``Wav2Vec2Brain`` on the same modules and clips. Dropout is transformers'
default, without layer drop. Below are our recipes' own encoders, without and with
``activation_checkpointing``. Seconds are medians, in turns, so that what slows the machine slows
all. Memory is what a step takes at its peak besides the model, in a process of its own; activations
are what of it is not the gradients of parameters. About 10 minutes on 2 cores; `--only base` runs
the rows that have that in their name.
"""

import argparse
import ctypes
import json
import tempfile

import numpy as np
import torch
from measure import alternate, extra_mb, in_process, machine, print_table
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.epoch_loop import EpochCounter
from steps import open_recipe, write_corpus

from brainquant.brains import Wav2Vec2Brain
from brainquant.huggingface import load_wav2vec2
from brainquant.huggingface.library import import_transformers

CLIPS, SECONDS = 4, 5.0
SMALL = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024,
}  # fmt: skip
LAYER_NORMS = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
HELD = {
    "small, group norm": SMALL,
    "small, layer norm": SMALL | {"feat_extract_norm": "layer"},
    "base, group norm": {},  # wav2vec2-base
    "base, layer norms": LAYER_NORMS,  # as in XLS-R
}
RECIPES = {  # names of tests/benchmarks/steps.py
    "our best_rq, small": "best_rq small, as in our recipe",
    "our wav2vec2, small": "wav2vec2 small, 512 channels",
    "our best_rq, base": "best_rq base",
    "our wav2vec2, base": "wav2vec2 base",
}
CHECKPOINTED = "ours, checkpointing"
METHODS = {"transformers": None, "ours": False, CHECKPOINTED: True}


class TheirStep:
    """Forward and backward of transformers' own class."""

    def __init__(self, name):
        self.modules = make_model(name).train()

    def loss(self, wavs_BL):
        """The loss of clips."""
        from transformers.models.wav2vec2 import modeling_wav2vec2 as code

        np.random.seed(0)
        shape = len(wavs_BL), int(self.modules._get_feat_extract_output_lengths(wavs_BL.shape[1]))
        mask_BT = code._compute_mask_indices(shape, 0.65, 10, min_masks=2)
        negatives = code._sample_negative_indices(shape, 100, mask_BT)
        return self.modules(
            wavs_BL,
            mask_time_indices=torch.from_numpy(mask_BT),
            sampled_negative_indices=torch.from_numpy(negatives),
        ).loss


class OurStep:
    """Forward and backward of a Brain."""

    def __init__(self, name, checkpointing, folder):
        if name in RECIPES:
            write_corpus(folder, clips=1)
            change = ["--activation_checkpointing", checkpointing]
            self.brain, _ = open_recipe(RECIPES[name], 1000, folder, change)
        else:
            make_model(name).save_pretrained(f"{folder}/model")
            parts = load_wav2vec2(f"{folder}/model", temp_tuple=[2.0, 0.5, 0.999995])
            hparams = {
                "train_csv": "none.csv", "valid_csv": None, "train_loggers": [],
                "output_folder": folder, "epoch_counter": EpochCounter(1), "seed": 0,
                "lr_schedule": None, "warmup_steps": 0, "activation_checkpointing": checkpointing,
            }  # fmt: skip
            self.brain = Wav2Vec2Brain(parts._asdict(), torch.optim.SGD, hparams, {})
        self.modules = self.brain.modules.train()
        # The place of a batch, which masks and negatives are drawn from.
        self.brain.generators = lambda stage: [torch.Generator().manual_seed(0)] * 2

    def loss(self, wavs_BL):
        """The loss of clips."""
        batch = PaddedBatch([{"sig": wav_L} for wav_L in wavs_BL])
        predictions = self.brain.compute_forward(batch, Stage.TRAIN)
        return self.brain.compute_objectives(predictions, batch, Stage.TRAIN)


def make_model(name):
    """A model of transformers with random weights."""
    transformers = import_transformers()
    torch.manual_seed(0)
    return transformers.Wav2Vec2ForPreTraining(
        transformers.Wav2Vec2Config(**HELD[name], layerdrop=0.0)
    )


def make_step(name, method, folder):
    """A step of some clips, by its name and method."""
    checkpointing = METHODS[method]
    step = TheirStep(name) if checkpointing is None else OurStep(name, checkpointing, folder)

    def run(clips=CLIPS, seconds=SECONDS):
        step.modules.zero_grad(set_to_none=False)  # as in an accumulation of gradients
        generator = torch.Generator().manual_seed(0)
        step.loss(torch.randn(clips, int(seconds * 16000), generator=generator)).backward()

    return run, step.modules


def memory_of(name, method):
    """Megabytes that a step adds at its peak to model and gradients, and those of the gradients."""
    with tempfile.TemporaryDirectory() as folder:
        run, modules = make_step(name, method, folder)
        run(1, 1.0)  # what is imported or built by the first step
        ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps of it
        gradients = [p.grad.nbytes for p in modules.parameters() if p.grad is not None]
        return extra_mb(run), sum(gradients) / 2**20


def rows_of(name, repeats):
    """A row of the table for each method."""
    methods = [m for m in METHODS if name in HELD or m != "transformers"]
    with tempfile.TemporaryDirectory() as folder:
        calls = {m: make_step(name, m, tempfile.mkdtemp(dir=folder))[0] for m in methods}
        seconds = alternate(calls, repeats)
        del calls
    memory = {m: in_process(__file__, "--memory", name, m) for m in methods}
    first = methods[0]
    for method in methods:
        activations, peak = memory[method][0], sum(memory[method])
        yield {
            "model": name,
            "step": method,
            "seconds": seconds[method],
            "first's / this": seconds[first] / seconds[method],
            "peak MB": peak,
            "this / first's": peak / sum(memory[first]),
            "activations MB": activations,
            "time / ours": seconds[method] / seconds["ours"],
            "activations / ours": activations / memory["ours"][0],
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="a JSON file")
    parser.add_argument("--only", default="", help="rows that have this in their name")
    parser.add_argument("--repeats", type=int, default=3, help="timings of each step")
    parser.add_argument("--memory", nargs=2, metavar=("MODEL", "STEP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(json.dumps(memory_of(*options.memory)))
        return
    print(machine())
    rows = []
    for name in [*HELD, *RECIPES]:
        if options.only in name:
            rows += (new := list(rows_of(name, options.repeats)))
            print_table(f"A step of {CLIPS} clips of {SECONDS:g} s", new)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(), "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
