"""From a command line to hyperparameters: what the YAML and the command line say is what runs."""

import difflib
import os
import re

import torch
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

from ..ranks import world_size
from .keys import ALL, OPTIONS, RECIPE, check_single_values, check_values
from .needed_files import with_kept_files
from .overrides import read_overrides
from .ranges import REQUIRED
from .resolve import build, read_yaml, resolve
from .values_by_key import values_by_key

logger = get_logger(__name__)

RUN_OPTIONS = set(RunOptions().as_dict())
COMMAND_LINE_ONLY = ("debug", "debug_persistently", "log_config")
OPTIONS_SHOWN = (
    "device", "precision", "eval_precision", "max_grad_norm", "grad_accumulation_factor",
    "optimizer_step_limit", "nonfinite_patience", "ckpt_interval_minutes", "ckpt_interval_steps",
    "find_unused_parameters", "distributed_backend",
)  # fmt: skip


def parse_arguments(argv):
    """Reads the command line of a recipe.

    SpeechBrain's own options, with four faults of 1.1.2 mended: ``--optimizer_step_limit`` stays
    a string and ends in a TypeError; an abbreviated option is accepted (``--optimizer``, a key of
    the YAML, sets ``--optimizer_step_limit``); all other values are joined to one YAML text, in
    which a path loses what follows a ``#`` or an ``=``; ``torchrun`` on a machine without GPU needs
    ``--distributed_backend gloo``.

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
    parser = RunOptions._create_parser()
    parser.allow_abbrev = False
    parser.error = _refuse
    options, rest = parser.parse_known_args(argv)
    hparams_file, options = options.param_file, vars(options)
    given = {argument.split("=", 1)[0][2:] for argument in argv if argument.startswith("--")}
    if (limit := options["optimizer_step_limit"]) is not None:
        options["optimizer_step_limit"] = int(limit) if limit.lstrip("-").isdigit() else limit
    check_single_values({name: options[name] for name in given & options.keys()}, OPTIONS)
    on_cpu = options["device"] == "cpu" or not torch.accelerator.is_available()
    if on_cpu and "distributed_backend" not in given:
        options["distributed_backend"] = "gloo"
        given.add("distributed_backend")
    run_opts = RunOptions(**options, overridden_args=given & options.keys())

    document = read_yaml(hparams_file)
    overrides = read_overrides(rest, document)
    _check_overrides(overrides, document, hparams_file)
    for option in run_opts.overridden_args & set(document):
        overrides[option] = run_opts[option]
    # SpeechBrain refuses to have both: the one of the command line wins over that of the YAML.
    by_time, by_steps = "ckpt_interval_minutes", "ckpt_interval_steps"
    if by_steps in run_opts.overridden_args and by_time not in run_opts.overridden_args:
        overrides.update({by_time: 0} if by_time in document else {})
    return hparams_file, run_opts, overrides


def _refuse(message):
    raise ValueError(f"{message}; see --help")


def _check_overrides(overrides, document, hparams_file):
    """Refuses what hyperpyyaml would take and then not do."""
    known = {*document, *(name for name, key in ALL.items() if key.default is not REQUIRED)}
    for key in overrides:
        if key not in known:
            raise ValueError(
                f"unknown key {key!r} on the command line: it is neither in {hparams_file} nor "
                f"an option of SpeechBrain{_did_you_mean(key, known | RUN_OPTIONS)}"
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
        Also has ``values_by_key`` (what the YAML says after its references are resolved),
        ``hparams_file`` and ``overrides``.

    Raises
    ------
    ValueError
        Where a key is missing, or is read by nothing: most often a misspelt one, which
        would leave a default in force.
    """
    resolved = resolve(hparams_file, overrides)
    try:
        hparams = build(resolved, hparams_file)
    except ValueError:  # a file may be gone that the run has a copy of
        kept = with_kept_files(resolved)
        if kept is None:
            raise
        hparams = build(kept, hparams_file)
    read = {**RECIPE, **getattr(hparams.get("brain_class"), "hparams_read", {})}
    try:
        checked = check_values(hparams, read)
    except ValueError as error:
        raise ValueError(f"{hparams_file}: {error}") from error
    evaluation = getattr(checked["evaluate"], "keywords", {})
    if checked.get("valid_csv", "") is None and evaluation.get("valid", "") is None:
        raise ValueError(
            f"{hparams_file}: evaluate: chooses a layer on valid_csv, which is null; set "
            f"evaluate: null too"
        )
    checked["values_by_key"] = values_by_key(resolved)
    checked["hparams_file"], checked["overrides"] = hparams_file, overrides or {}
    if not refuse_unused:
        return checked
    for option in COMMAND_LINE_ONLY:  # what reads them has not read the YAML yet
        if hparams.get(option) and option not in (overrides or {}):
            raise ValueError(
                f"{hparams_file}: {option}: counts on the command line only, got "
                f"{option}: {hparams[option]}; take the key out, and say --{option} there"
            )
    known = RUN_OPTIONS | set(read)
    with open(hparams_file, encoding="utf-8") as file:
        referenced = set(re.findall(r"<(\w+)", re.sub(r"#.*", "", file.read())))
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
