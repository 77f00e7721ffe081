"""From a command line to hyperparameters: what the YAML and the command line say is what runs."""

import dataclasses
import difflib
import os
import re

import ruamel.yaml
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

from ..ranks import world_size
from .keys import RECIPE, check_values

logger = get_logger(__name__)

RUN_OPTIONS = set(RunOptions().as_dict())
OPTIONS_SHOWN = (
    "device", "precision", "eval_precision", "max_grad_norm", "grad_accumulation_factor",
    "optimizer_step_limit", "nonfinite_patience", "ckpt_interval_minutes", "ckpt_interval_steps",
    "find_unused_parameters", "distributed_backend",
)  # fmt: skip


def parse_arguments(argv):
    """Reads the command line of a recipe.

    SpeechBrain's own parser, with three faults of 1.1.2 mended: ``--optimizer_step_limit`` stays
    a string and ends in a TypeError; an abbreviated option (``--max_grad``) is accepted and then
    has no effect; ``torchrun`` on a machine without GPU needs ``--distributed_backend gloo``.

    Arguments
    ---------
    argv : list of str
        The arguments after the program's name.

    Returns
    -------
    hparams_file : str
        The YAML file.
    run_opts : RunOptions
        SpeechBrain's run options that the command line gives.
    overrides : dict
        What the command line changes in the YAML, run options that it has as keys included.

    Raises
    ------
    ValueError
        Where a key is in neither the YAML nor the run options, or an override cannot work.

    Example
    -------
    >>> yaml = getfixture("tmpdir") / "x.yaml"
    >>> yaml.write_text("lr: 0.1\\nprecision: fp32", "utf-8")
    >>> _, run_opts, overrides = parse_arguments([str(yaml), "--lr", "0.2", "--precision=bf16"])
    >>> overrides["lr"], overrides["precision"], run_opts.precision
    (0.2, 'bf16', 'bf16')
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    changes = {}
    if (limit := run_opts.optimizer_step_limit) is not None:
        if not limit.isdigit():
            raise ValueError(
                f"--optimizer_step_limit must be a number of steps, got {limit!r}; say for "
                f"instance --optimizer_step_limit 1000"
            )
        changes["optimizer_step_limit"] = int(limit)
    on_cpu = run_opts.device == "cpu" or not torch.accelerator.is_available()
    if on_cpu and "distributed_backend" not in run_opts.overridden_args:
        changes["distributed_backend"] = "gloo"
        changes["overridden_args"] = run_opts.overridden_args | {"distributed_backend"}
    run_opts = dataclasses.replace(run_opts, **changes)

    if not os.path.isfile(hparams_file):
        raise ValueError(f"there is no file {hparams_file}; give the path of a recipe's YAML")
    yaml = ruamel.yaml.YAML()
    with open(hparams_file, encoding="utf-8") as file:
        document = yaml.load(file)
    try:
        overrides = yaml.load(overrides) or {} if overrides else {}
    except ruamel.yaml.constructor.DuplicateKeyError as error:
        key = re.search(r'duplicate key "(\w+)"', str(error)).group(1)
        raise ValueError(f"--{key} is there twice on the command line: keep one") from error
    _check_overrides(argv, overrides, document, hparams_file)
    for option in run_opts.overridden_args & set(document):
        overrides[option] = run_opts[option]
    # SpeechBrain refuses to have both: the one of the command line wins over that of the YAML.
    by_time, by_steps = "ckpt_interval_minutes", "ckpt_interval_steps"
    if by_steps in run_opts.overridden_args and by_time not in run_opts.overridden_args:
        overrides.update({by_time: 0} if by_time in document else {})
    return hparams_file, run_opts, overrides


def _check_overrides(argv, overrides, document, hparams_file):
    """Refuses what argparse or hyperpyyaml would take and then not do."""
    given = [arg.split("=", 1)[0][2:] for arg in argv if arg.startswith("--")]
    for key in [*overrides, *given]:
        if key not in document and key not in RUN_OPTIONS:
            raise ValueError(
                f"unknown key {key!r} on the command line: it is neither in {hparams_file} nor "
                f"an option of SpeechBrain{_did_you_mean(key, [*document, *RUN_OPTIONS])}"
            )
    for key, value in overrides.items():
        tag = getattr(getattr(value, "tag", None), "value", None) or ""
        if isinstance(value, dict) and tag.startswith(("!new:", "!name:", "!apply:")):
            raise ValueError(
                f"--{key} '{tag} {{...}}' would keep the class of {hparams_file} and give it the "
                f"new arguments (hyperpyyaml 1.2.3); put the object into a file and say "
                f"--{key} '!include:<path of the file, seen from {hparams_file}>'"
            )


def load_hparams(hparams_file, overrides=None, *, refuse_unused=True):
    """Loads a recipe's YAML and refuses keys that nothing reads.

    Arguments
    ---------
    hparams_file : str
        The YAML file.
    overrides : dict
        What to change in it.
    refuse_unused : bool
        Whether a key that nothing reads is an error. In the copy of the YAML in a run's folder,
        what read a key is gone: SpeechBrain writes it with all references resolved.

    Returns
    -------
    hparams : dict

    Raises
    ------
    ValueError
        Where a key is missing, or is read by nothing: most often a misspelt one, which
        would leave a default in force.
    """
    with open(hparams_file, encoding="utf-8") as file:
        text = file.read()
        file.seek(0)
        try:
            hparams = load_hyperpyyaml(file, overrides)
        except (AttributeError, KeyError, TypeError) as error:  # a key that does not exist
            raise ValueError(f"{hparams_file}: {' '.join(map(str, error.args))}") from error
    read = {**RECIPE, **getattr(hparams.get("brain_class"), "hparams_read", {})}
    try:
        checked = check_values(hparams, read)
    except ValueError as error:
        raise ValueError(f"{hparams_file}: {error}") from error
    if not refuse_unused:
        return checked
    known = RUN_OPTIONS | set(read)
    referenced = set(re.findall(r"<(\w+)", re.sub(r"#.*", "", text)))
    for key in hparams:
        if key not in known | referenced:
            raise ValueError(
                f"unknown key {key!r} in {hparams_file}: nothing reads it"
                f"{_did_you_mean(key, known | referenced)}"
            )
    return checked


def _did_you_mean(key, known):
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else "; remove it or correct its name"


def run_folder(output_folder, options):
    """Where a run writes: a try with --debug must not touch the real run beside it.

    Arguments
    ---------
    output_folder : str
        Of the YAML.
    options : RunOptions or speechbrain.Brain
        Has ``debug`` and ``debug_persistently``.
    """
    trial = options.debug and not options.debug_persistently
    return os.path.join(output_folder, "debug") if trial else output_folder


def show_options(brain):
    """Logs the run options that are in force, and what one step sees.

    Arguments
    ---------
    brain : speechbrain.Brain
        Has taken them from the command line, the YAML and SpeechBrain's defaults, in this order.
    """
    options = ", ".join(f"{name} {getattr(brain, name)}" for name in OPTIONS_SHOWN)
    logger.info(f"In force: {options}")
    size, unit = brain.hparams.batch_seconds, "s of speech"
    if brain.hparams.batch_clips is not None:
        size, unit = brain.hparams.batch_clips, "clips"
    total = size * world_size() * brain.grad_accumulation_factor
    logger.info(
        f"One step sees up to {total:g} {unit}: {size:g} x {world_size()} rank(s) x "
        f"{brain.grad_accumulation_factor} accumulated"
    )
