"""Every key of a recipe's YAML that this package knows: its range, its default, its meaning.

A Brain names the groups that it reads in ``hparams_read``. A YAML states the keys without a default
and those whose value is particular to it; ``defaults.py`` adds the others.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping
from typing import Any

from .ranges import (
    REQUIRED,
    InYaml,
    Key,
    anything,
    called,
    choice,
    flag,
    number,
    several,
    text,
    texts,
    whole,
)

# What brainquant.recipe.main reads.
RECIPE = {
    "brain_class": called("the Brain that trains"),
    "modules": anything("the modules of the Brain by name"),
    "optimizer": called("what makes the optimiser from parameters", default=InYaml(
        "!name:torch.optim.AdamW {lr: !ref <lr>, betas: [0.9, 0.98], weight_decay: 0.01, "
        "fused: True}")),
    "checkpointer": anything("what saves the run", null=True, default=InYaml(
        "!new:brainquant.training.checkpoints.Checkpointer "
        "{checkpoints_dir: !ref <output_folder>/save}")),
    "epoch_counter": anything("what counts the epochs", default=InYaml(
        "!new:speechbrain.utils.epoch_loop.EpochCounter {limit: !ref <number_of_epochs>}")),
    "output_folder": text("the folder that the run writes into"),
    "seed": whole("the seed of all random draws", default=1234, low=0, high=2**32 - 1),
    "prepare": called("the function that makes the manifests", null=True, default=None),
    "evaluate": called("the function that is called after the training, with the Brain and the "
                       "hyperparameters", null=True, default=None),
}  # fmt: skip

LOADERS = {
    "train_csv": text("the manifest of the training clips"),
    "valid_csv": text("the manifest of the validation clips, null for no validation", null=True),
    "data_folder": text("the folder that $data_root in the manifests stands for", null=True,
                        default=None),
    "batch_seconds": number("the seconds of speech in a batch, on each rank", default=200, above=0),
    "batch_clips": whole("the clips of a batch, instead of batch_seconds", low=1, null=True,
                         default=None),
    "num_buckets": whole("the number of length classes that batches are made of", default=50,
                         low=1, high=10_000),
    "min_seconds": number("the length below which clips are left out", default=1.0, low=0),
    "max_seconds": number("the length above which clips are left out", default=20.0, above=0,
                          finite=False),
    "num_workers": whole("the processes that read audio, on each rank", default=4, low=0,
                         high=1000),
    "sample_rate": whole("the samples of a second of audio", default=16000, low=100),
    "resample": flag("whether files of other rates are resampled instead of left out",
                     default=False),
    "mix_down": choice("what several channels become: their mean, the first of them, or a clip "
                       "each; False leaves such files out", False, "mean", "first", "each", True,
                       default=False),
}  # fmt: skip

RUN = {
    "lr_schedule": anything("what sets the learning rate of each step, null for the optimiser's "
                            "own rate", null=True, default=InYaml(
        "!new:speechbrain.nnet.schedulers.WarmCoolDecayLRSchedule {lr: !ref <lr>, "
        "warmup: !ref <warmup_steps>, cooldown: !ref <cooldown_steps>, "
        "total_steps: !ref <optimizer_step_limit>}")),
    "warmup_steps": whole("the first steps, in which the learning rate rises", low=0,
                          default=InYaml("!ref <optimizer_step_limit> // 10")),
    "lr_batch_seconds": number("the seconds of speech in a step, over all ranks, that lr is chosen "
                               "for, which brainquant plan compares with those of a run; null for "
                               "what one rank sees", above=0, null=True, default=None),
    "log_interval": whole("the steps from one log point to the next", default=100, low=1),
    "train_loggers": several("SpeechBrain's loggers", default=InYaml(
        "\n- !new:speechbrain.utils.train_logger.FileTrainLogger "
        "{save_file: !ref <output_folder>/train_log.txt}")),
    "keep_checkpoints": whole("the number of checkpoints that are kept", default=2, low=1),
    "hang_minutes": number("the minutes without progress after which the run ends, 0 for never",
                           default=10, low=0, null=True),
    "resume_with_changes": flag("whether a run may go on with other clips, batches or steps than "
                                "its checkpoint has", default=False),
    "max_bad_audio": number("the share of clips that may be left out because they cannot be read",
                            default=0.001, low=0, high=1),
    "quick_layers": flag("whether SpeechBrain's layers are computed by faster code of the same "
                         "results", default=True),
    "activation_checkpointing": flag("whether the backward computes activations of the encoder "
                                     "again, which takes less memory and longer", default=False),
}  # fmt: skip

PRETRAIN = {
    "begin_from": text("the folder of the run whose weights this one begins with; all else is new",
                       null=True, default=None),
    "freeze_steps": whole("the first steps, in which all but the encoder is trained", default=0,
                          low=0),
    "layer_decay": number("the factor of the learning rate from a layer to the one below",
                          default=1.0, above=0, high=1),
    "pull_to_start": number("the strength with which each step pulls the encoder towards the "
                            "weights that it began with, 0 for none", default=0.0, low=0),
    "quality_minutes": number("the minutes of validation speech on which the layers are measured "
                              "without labels, 0 for none", default=1.0, low=0),
    "keep_best_by": choice("whether the best checkpoints that are kept have the lowest validation "
                           "loss, or the units that repeat best at another speed", "loss", "units",
                           default="loss"),
}  # fmt: skip

BEST_RQ = {
    "mask_ratio": number("the share of frames that are masked", default=0.5, above=0, below=1),
    "mask_length": whole("the frames of a masked span", default=12, low=1),
    "noise_mean": number("the mean of the noise in masked frames", default=0.0),
    "noise_std": number("the standard deviation of the noise in masked frames", default=0.1,
                        low=0),
    "unmasked_weight": number("the weight of the loss on unmasked frames, 0 for BEST-RQ's own loss",
                              default=1.0, low=0),
}  # fmt: skip

ONLINE_CODEBOOKS = {
    "student_layers": choice("the layers of the encoder that predict the codes: each one those of "
                             "the teacher's layer of its number, or the last one all of them",
                             "each", "last", default="each"),
    "ema_decay": number("the share of the old teacher in the new one, at the first step",
                        default=0.999, low=0, high=1),
    "ema_decay_end": number("that share after ema_steps, up to which it changes evenly",
                            default=0.9999, low=0, high=1),
    "ema_steps": whole("the steps in which ema_decay becomes ema_decay_end", default=30_000, low=0),
}  # fmt: skip

WAV2VEC2 = {
    "mask_ratio": number("the share of frames that are masked", default=0.49, above=0, below=1),
    "mask_length": whole("the frames of a masked span", default=10, low=1),
    "num_negatives": whole("the number of frames that a target is compared with", default=100,
                           low=1),
    "same_code_negatives": choice("whether the loss keeps negatives that have the codes of their "
                                  "target, or leaves them out as fairseq and transformers do",
                                  "keep", "leave_out", default="keep"),
    "logit_temp": number("the temperature that divides similarities in the loss", default=0.1,
                         above=0),
    "aux_weight": number("the weight of the quantiser's own loss", default=0.1, low=0),
    "penalty_weight": number("the weight of the mean square of the extractor's activations",
                             default=10, low=0),
}  # fmt: skip

CTC = {
    "mask_ratio": number("the share of the waveform that is silenced in training", default=0.05,
                         low=0, below=1),
    "mask_length": whole("the length of a silenced span, in units of 10 ms", default=10, low=1),
    "lr": number("the learning rate of the last layer", default=0.00005, above=0),
    "layer_decay": number("the factor of the learning rate from a layer to the one below",
                          default=0.9, above=0, high=1),
    "lr_head": number("the learning rate of the head", default=0.0003, above=0),
    "freeze_steps": whole("the first steps, in which only the head is trained", default=0, low=0),
}  # fmt: skip

# Keys that only other lines of a YAML refer to. They are checked if the YAML has them; a default is
# added only if a line refers to the key.
REFERENCED = {
    "source": text("the folder or the manifest of your audio"),
    "valid_source": text("the folder or the manifest of your audio for validation", null=True),
    "valid_share": number("the share of the seconds that is kept for validation", 0.05, above=0,
                          high=0.5),
    "speaker_level": whole("the level of the folders that are speakers", low=0, null=True),
    "manifest_folder": text("the folder that manifests are written into"),
    "train_splits": texts("the splits of the corpus to train on"),
    "valid_splits": texts("the splits of the corpus to validate on"),
    "test_splits": texts("the splits of the corpus to test on"),
    "test_csv": texts("the manifests of the test clips"),
    "train_minutes": number("the minutes of speech to make", 30, above=0),
    "pretrained": text("the folder of the run whose encoder is taken"),
    "model": text("the model that is continued: a folder of transformers, a Hub id, a .pt file of "
                  "fairseq, or the folder of a run of SpeechBrain"),
    "freeze_extractor": flag("whether the convolutions below the layers are not trained",
                             default=False),
    "gradient_scale": number("the factor of the gradient that reaches the convolutions below the "
                             "layers", default=0.1, low=0),
    "target_layer": whole("the layer of the public model that the quantiser reads, null for "
                          "log-mel features", low=1, null=True),
    "from_scratch": flag("whether the encoder begins with random weights"),
    "number_of_epochs": whole("the most epochs of the training", default=1000, low=1),
    "lr": number("the highest learning rate", default=0.0005, above=0),
    "cooldown_steps": whole("the last steps, in which the learning rate falls", low=0,
                            default=InYaml("!ref <optimizer_step_limit> // 2")),
    "n_mels": whole("the features of a frame", 80, low=1),
    "cb_vocab": whole("the codes of a codebook", 8192, low=2),
    "vq_dim": whole("the size of the quantiser's vectors", 256, low=1),
    "num_target_layers": whole("the teacher's last layers whose codes are the targets", 8, low=1),
    "stack": whole("the frames that make one target", default=4, low=1),
    "normalise_targets": flag("whether the quantiser gets latents that are normalised over each "
                              "utterance", default=False),
    "channels": whole("the channels of the latents", 512, low=1),
    "d_model": whole("the size of the encoder's outputs", 256, low=1),
    "d_ffn": whole("the size of the encoder's feed-forward layers", 1024, low=1),
    "num_layers": whole("the layers of the encoder", 12, low=1),
    "dropout": number("the share of values that dropout sets to 0", 0.1, low=0, below=1),
    "head_dropout": number("the share of values that dropout sets to 0", 0.1, low=0, below=1),
}  # fmt: skip

# Options of SpeechBrain 1.1.2, from the command line or the YAML. It checks none of these ranges.
PRECISIONS = ("fp32", "fp16", "bf16")
OPTIONS = {
    "device": text("the device that computes", null=True),
    "precision": choice("the precision of the training", *PRECISIONS, default="fp32"),
    "eval_precision": choice("the precision of the validation", *PRECISIONS),
    "max_grad_norm": number("the norm that gradients are clipped to, 0 for never", default=5.0,
                            finite=False),
    "nonfinite_patience": whole("the steps in a row that may be left out as not finite", default=3,
                                low=0),
    "grad_accumulation_factor": whole("the batches of a step on each rank", default=1, low=1),
    "optimizer_step_limit": whole("the steps of the whole run", 100_000, low=1, null=True),
    "ckpt_interval_minutes": number("the minutes from one checkpoint to the next, 0 for none",
                                    default=15, low=-1),
    "ckpt_interval_steps": whole("the steps from one checkpoint to the next, 0 for none", 0,
                                 low=-1),
    "debug_batches": whole("the batches of an epoch with --debug", 2, low=1),
    "debug_epochs": whole("the epochs with --debug, 0 for all", 2, low=-1),
    "find_unused_parameters": flag("whether layers may be left out of a step on several ranks"),
    "log_config": text("the file that configures the logs", null=True),
}  # fmt: skip

# The command line reads a name that two groups have by either of them.
ALL = {
    **REFERENCED, **OPTIONS, **RECIPE, **LOADERS, **RUN, **PRETRAIN, **ONLINE_CODEBOOKS, **BEST_RQ,
    **WAV2VEC2, **CTC
}  # fmt: skip


def check_values(hparams: Mapping[str, Any], read: Mapping[str, Key]) -> dict[str, Any]:
    """Checks the values of keys, and fills in what has a default.

    Arguments
    ---------
    hparams : dict
        Values by key.
    read : dict of str to Key
        The keys that code reads: each has to be there, or to have a default. Other keys of this
        file are checked if they are there and hold a single value.

    Returns
    -------
    hparams : dict
        With every key of ``read``; whole numbers are ints.

    Raises
    ------
    ValueError
        If a key is absent and has no default, or its value is not allowed.

    Example
    -------
    >>> check_values({"lr": 1}, {"lr": CTC["lr"], "prepare": RECIPE["prepare"]})
    {'lr': 1, 'prepare': None}
    """
    checked = dict(hparams)
    for name, key in read.items():
        if name in hparams:
            checked[name] = key.read(name, hparams[name])
        elif key.default is REQUIRED or isinstance(key.default, InYaml):
            raise ValueError(f"the YAML lacks the key {name!r}: add it")
        else:
            checked[name] = key.default
    return checked | check_single_values(hparams, {**REFERENCED, **OPTIONS}, besides=read)


def check_single_values(
    values: Mapping[str, Any], keys: Mapping[str, Key], besides: Collection[str] = ()
) -> dict[str, Any]:
    """Checks the values that are no objects, and returns them by key."""
    return {
        name: keys[name].read(name, values[name])
        for name in sorted(keys.keys() & values.keys() - set(besides))
        if values[name] is None or isinstance(values[name], (str, numbers.Number))
    }
