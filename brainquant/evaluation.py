"""What an encoder has learnt: phones, read by a linear classifier from its frozen layers.

Shape suffixes: T encoder frames of one utterance, D dim, F log-mel features.
"""

import copy
import json
import os
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.lobes.features import Fbank
from speechbrain.utils.logger import get_logger

from .data.alignments import read_alignment
from .data.audio import AudioReader
from .data.manifests import load_dataset
from .training.hparams import load_hparams

logger = get_logger(__name__)

HOP = 0.01  # seconds from one log-mel frame to the next
ALPHA = 100.0  # of the ridge, on features of unit variance


def probe_phones(
    brain, hparams_file, overrides, *, data_folder, train_minutes=10.0, context=1, num_seeds=3
):
    """Compares linear phone classifiers on the encoder, on log-mel and on the untrained encoder.

    One ridge classifier per layer, fitted on training utterances and read on test ones; each
    seed draws two thirds of the training utterances and another untrained encoder. All see the
    same stretch of time: an encoder frame and ``context`` more on both sides, for log-mel the
    frames of 10 ms within them. The layer that counts is chosen on the validation set.

    Arguments
    ---------
    brain : PretrainBrain
        After training.
    hparams_file : str
        The YAML file, to build untrained encoders.
    overrides : dict
        What the command line changed in it.
    data_folder : str
        Corpus with ``train.csv``, ``valid.csv``, ``test.csv`` and ``phones/<split>/<ID>.tsv``.
    train_minutes : float
        Speech to fit on.
    context : int
        Encoder frames on both sides.
    num_seeds : int
        Seeds whose mean and spread are shown.

    Returns
    -------
    table : dict
        Test accuracies by representation and seed, also in ``<output_folder>/phones.json``.
    """
    # Only one rank probes, and DistributedDataParallel may broadcast buffers in any forward.
    brain = copy.copy(brain)
    brain.modules = torch.nn.ModuleDict({name: brain.raw(name) for name in brain.modules})
    keys = brain.hparams
    reader = AudioReader(keys.sample_rate, resample=keys.resample, mix_down=keys.mix_down)
    splits = {
        split: load_split(data_folder, split, reader, minutes)
        for split, minutes in {"train": train_minutes, "valid": None, "test": None}.items()
    }
    accuracies = {"log-mel": [], "untrained encoder": [], "pretrained encoder": []}
    pretrained = {name: encode_split(brain, split) for name, split in splits.items()}
    log_mels = {name: log_mel_windows(brain, split, context) for name, split in splits.items()}
    for seed in range(num_seeds):
        untrained_brain = without_training(brain, hparams_file, overrides, seed)
        untrained = {name: encode_split(untrained_brain, split) for name, split in splits.items()}
        chosen = np.random.default_rng(seed).permutation(len(splits["train"]))
        chosen = chosen[: max(1, len(chosen) * 2 // 3)]
        accuracies["log-mel"].append([fit_and_read(log_mels, splits, brain, chosen)])
        for name, layers in {"untrained": untrained, "pretrained": pretrained}.items():
            accuracies[f"{name} encoder"].append(
                [
                    fit_and_read(
                        {
                            split: [windows(utterance[layer], context) for utterance in utterances]
                            for split, utterances in layers.items()
                        },
                        splits,
                        brain,
                        chosen,
                    )
                    for layer in range(len(pretrained["train"][0]))
                ]
            )
    table = summarise(accuracies)
    with open(os.path.join(brain.run_log.folder, "phones.json"), "w", encoding="utf-8") as file:
        json.dump(table, file, indent=1)
    logger.info(format_table(table, num_seeds))
    return table


def load_split(data_folder, split, reader, minutes=None):
    """Utterances of a split, up to some minutes: waveform, duration and alignment of each."""
    manifest = os.path.join(data_folder, f"{split}.csv")
    dataset = load_dataset(manifest, data_folder, reader=reader)
    order = np.random.default_rng(0).permutation(len(dataset))
    utterances, seconds = [], 0.0
    for index in order:
        if minutes is not None and seconds >= 60 * minutes:
            break
        item = dataset[int(index)]
        path = os.path.join(data_folder, "phones", split, f"{item['id']}.tsv")
        utterances.append(
            SimpleNamespace(id=item["id"], sig=item["sig"], phones=read_alignment(path))
        )
        seconds += item["duration"]
    return utterances


def encode_split(brain, utterances):
    """Outputs of each layer for each utterance, a list of lists of arrays (frames, dim)."""
    encoded = []
    for utterance in utterances:
        batch = PaddedBatch([{"sig": utterance.sig}])
        encoded.append([layer[0].float().cpu().numpy() for layer in layer_features(brain, batch)])
    return encoded


@torch.no_grad()
def layer_features(brain, batch):
    """Outputs of each encoder layer for unmasked audio.

    Arguments
    ---------
    brain : PretrainBrain
        Whose ``encoder`` has a list of ``layers``.
    batch : PaddedBatch
        With ``sig``.

    Returns
    -------
    layers : list of torch.Tensor
        Shape (batch, frames, dim) each, from the first layer to the last.
    """
    outputs = []

    def keep(module, inputs, output):
        outputs.append(output[0] if isinstance(output, tuple) else output)

    encoder = brain.raw("encoder")
    layers = next(m for name, m in encoder.named_modules() if name.endswith("layers"))
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    brain.modules.eval()
    brain.encode(*brain.waveforms(batch))
    for hook in hooks:
        hook.remove()
    return outputs


def without_training(brain, hparams_file, overrides, seed):
    """The same Brain with modules as they were before training, of another seed."""
    changes = {"seed": seed, "output_folder": brain.hparams.output_folder, "train_loggers": []}
    hparams = load_hparams(hparams_file, {**overrides, **changes})
    untrained = copy.copy(brain)
    untrained.modules = torch.nn.ModuleDict(hparams["modules"]).to(brain.device)
    return untrained


def log_mel_windows(brain, utterances, context):
    """Log-mel frames within the same stretch of time as the encoder's frames and their context."""
    compute = Fbank(sample_rate=brain.hparams.sample_rate, n_fft=400, n_mels=80)
    collected = []
    for utterance in utterances:
        feats_TF = compute(utterance.sig[None])[0].numpy()
        feats_TF = feats_TF - feats_TF.mean(0)
        times = brain.frame_times(brain.count_frames(len(utterance.sig)))
        step = times[1] - times[0] if len(times) > 1 else HOP
        width = max(1, round(step * (2 * context + 1) / HOP))
        first = np.round(times / HOP - (width - 1) / 2).astype(int)
        index = np.clip(first[:, None] + np.arange(width), 0, len(feats_TF) - 1)
        collected.append(feats_TF[index].reshape(len(times), -1))
    return collected


def windows(frames_TD, context):
    """Each frame with its neighbours side by side; the edges are repeated.

    Example
    -------
    >>> windows(np.array([[1], [2], [3]]), 1).tolist()
    [[1, 1, 2], [1, 2, 3], [2, 3, 3]]
    """
    index = np.arange(len(frames_TD))[:, None] + np.arange(-context, context + 1)
    return frames_TD[index.clip(0, len(frames_TD) - 1)].reshape(len(frames_TD), -1)


def phones_at(times, alignment):
    """The phone that sounds at each time; the last one after the end.

    Example
    -------
    >>> phones_at(np.array([0.1, 0.3]), [(0.0, 0.2, "SIL"), (0.2, 0.4, "s")]).tolist()
    ['SIL', 's']
    """
    starts = np.array([start for start, _, _ in alignment])
    phones = np.array([phone for _, _, phone in alignment])
    return phones[np.searchsorted(starts, times, side="right") - 1]


def fit_and_read(inputs, splits, brain, chosen):
    """Accuracies (valid, test) of a classifier fitted on the chosen training utterances."""

    def frames(split, indices):
        x = [inputs[split][i] for i in indices]
        y = [
            phones_at(brain.frame_times(len(inputs[split][i])), splits[split][i].phones)
            for i in indices
        ]
        return np.concatenate(x), np.concatenate(y)

    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=ALPHA))
    classifier.fit(*frames("train", chosen))
    return tuple(
        float(classifier.score(*frames(split, range(len(splits[split])))))
        for split in ("valid", "test")
    )


def summarise(accuracies):
    """Test accuracies: of each layer by seed, and of the layer that is best on validation.

    Arguments
    ---------
    accuracies : dict
        By representation, by seed, by layer: (valid, test).

    Returns
    -------
    table : dict
        By representation: ``layers`` (seeds x layers), ``best_layer`` (from 1), ``mean`` and
        ``spread`` (standard deviation over seeds) of that layer.

    Example
    -------
    >>> summarise({"x": [[(0.5, 0.4), (0.3, 0.9)], [(0.5, 0.6), (0.3, 0.9)]]})["x"]["mean"]
    0.5
    """
    table = {}
    for name, by_seed in accuracies.items():
        scores = np.array(by_seed)  # seeds, layers, (valid, test)
        best = int(scores[..., 0].mean(0).argmax())
        table[name] = {
            "layers": scores[..., 1].tolist(),
            "best_layer": best + 1,
            "mean": float(scores[:, best, 1].mean()),
            "spread": float(scores[:, best, 1].std()),
        }
    return table


def format_table(table, num_seeds):
    """The table as a person reads it, within 80 columns."""
    lines = [f"Phones read from frozen frames, accuracy on the test set, {num_seeds} seeds:"]
    for name, row in table.items():
        layers = np.array(row["layers"]).mean(0)
        line = f"  {name:<19} {row['mean']:6.1%} +- {row['spread']:.1%}"
        if len(layers) > 1:
            by_layer = " ".join(f"{accuracy:.1%}" for accuracy in layers)
            line += f"  layer {row['best_layer']} of {by_layer}"
        lines.append(line)
    return "\n".join(lines)
