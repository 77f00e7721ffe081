"""Reads a recipe's YAML and command line: all of it is in force, or there is one clear error."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import speechbrain as sb
import torch
from speechbrain.utils.logger import get_logger
from speechbrain.utils.run_opts import RunOptions

from ..old_addresses import UNTIL, new_address
from .defaults import add_defaults, keys_read, references
from .keys import ALL, OPTIONS, RECIPE, check_single_values, check_values
from .log_config import IN_FILE_ONLY
from .needed_files import with_kept_files
from .overrides import read_overrides
from .ranges import REQUIRED
from .resolve import build, read_yaml, resolve
from .values_by_key import values_by_key

logger = get_logger(__name__)
in_file = get_logger(IN_FILE_ONLY)

PROBE = "brainquant.evaluation.after_training"
RUN_OPTIONS = set(RunOptions().as_dict())
COMMAND_LINE_ONLY = ("debug", "debug_persistently", "log_config")
OPTIONS_SHOWN = (
    "device", "precision", "eval_precision", "max_grad_norm", "grad_accumulation_factor",
    "optimizer_step_limit", "nonfinite_patience", "ckpt_interval_minutes", "ckpt_interval_steps",
    "find_unused_parameters", "distributed_backend",
)  # fmt: skip


def parse_arguments(argv: Sequence[str]) -> tuple[str, RunOptions, dict[str, Any]]:
    """Reads the command line of a recipe.

    It has SpeechBrain's options, without four faults of SpeechBrain 1.1.2:
    ``--optimizer_step_limit`` stays a string and ends in a TypeError; options may be abbreviated,
    so that ``--optimizer``, a key of the YAML, sets ``--optimizer_step_limit``; all other values
    become one YAML text, in which a path ends at ``#`` or ``=``; and ``torchrun`` on a machine
    without a GPU needs ``--distributed_backend gloo``.

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
        What the command line changes in the YAML, including run options that the YAML has as keys.

    Raises
    ------
    ValueError
        If a key is in neither the YAML nor the run options, or an override cannot work.

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
    add_defaults(document)
    overrides = read_overrides(rest, document)
    _check_overrides(overrides, document, hparams_file)
    for option in run_opts.overridden_args & set(document):
        overrides[option] = run_opts[option]
    # SpeechBrain refuses both at once: the one on the command line wins over the one in the YAML.
    by_time, by_steps = "ckpt_interval_minutes", "ckpt_interval_steps"
    if by_steps in run_opts.overridden_args and by_time not in run_opts.overridden_args:
        overrides[by_time] = 0
    return hparams_file, run_opts, overrides


def _refuse(message: str) -> NoReturn:
    raise ValueError(f"{message}; see --help")


def _check_overrides(
    overrides: Mapping[str, Any], document: Mapping[str, Any], hparams_file: str
) -> None:
    """Refuses overrides of keys that nothing reads."""
    known = {*document, *(name for name, key in ALL.items() if key.default is not REQUIRED)}
    for key in overrides:
        if key not in known:
            raise ValueError(
                f"unknown key {key!r} on the command line: it is neither in {hparams_file} nor "
                f"an option of SpeechBrain{_did_you_mean(key, known | RUN_OPTIONS)}"
            )


def load_hparams(
    hparams_file: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    refuse_unused: bool = True,
) -> dict[str, Any]:
    """Loads a recipe's YAML with the defaults of the keys that it lacks; refuses unused keys.

    Arguments
    ---------
    hparams_file : str
        The YAML file.
    overrides : dict
        What to change in it.
    refuse_unused : bool
        Whether a key that nothing reads is an error. False for the ``hyperparams.yaml`` of a run:
        its references are resolved, so keys that only other lines refer to look unused.

    Returns
    -------
    hparams : dict
        Also has ``values_by_key`` (what the YAML says after its references are resolved),
        ``hparams_file`` and ``overrides``.

    Raises
    ------
    ValueError
        If a key is missing, or nothing reads it. Most such keys are misspelt, and a default would
        stay in force.
    """
    document = read_yaml(hparams_file)
    for key, options in keys_read(document, overrides).items():
        if options.default is REQUIRED and key not in document and key not in (overrides or {}):
            raise ValueError(f"{hparams_file}: the YAML lacks the key {key!r}: add it")
    resolved = resolve(hparams_file, overrides)
    for address in sorted(set(re.findall(r"!\w+:(brainquant[\w.]+)", resolved))):
        if new := new_address(address):
            logger.warning(f"{hparams_file}: {address} is {new} now; {UNTIL}")
    try:
        hparams = build(resolved, hparams_file)
    except ValueError:  # perhaps a file is gone, but the run has kept a copy
        kept = with_kept_files(resolved)
        if kept is None:
            raise
        hparams = build(kept, hparams_file)
    read = {**RECIPE, **getattr(hparams.get("brain_class"), "hparams_read", {})}
    try:
        checked = check_values(hparams, read)
    except ValueError as error:
        raise ValueError(f"{hparams_file}: {error}") from error
    evaluation = checked["evaluate"]
    probes = getattr(getattr(evaluation, "func", None), "__module__", None) == PROBE
    if probes and not evaluation.keywords.get("valid") and checked.get("valid_csv", "") is None:
        raise ValueError(
            f"{hparams_file}: evaluate: chooses a layer on valid_csv, which is null; set "
            f"evaluate: null too"
        )
    checked["values_by_key"] = values_by_key(resolved)
    checked["hparams_file"], checked["overrides"] = hparams_file, overrides or {}
    if not refuse_unused:
        return checked
    for option in COMMAND_LINE_ONLY:  # they are read before the YAML is
        if hparams.get(option) and option not in (overrides or {}):
            raise ValueError(
                f"{hparams_file}: {option}: counts on the command line only, got "
                f"{option}: {hparams[option]}; remove the key, and say --{option} there"
            )
    add_defaults(document, overrides)
    known = RUN_OPTIONS | set(read) | references(document)
    for key in hparams:
        if key not in known:
            raise ValueError(
                f"unknown key {key!r} in {hparams_file}: nothing reads it"
                f"{_did_you_mean(key, known)}"
            )
    return checked


def _did_you_mean(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else "; remove it or correct its name"


def run_folder(output_folder: str, options: Any) -> str:
    """The folder that a run writes into; with --debug, ``debug`` in it, beside the real run.

    Arguments
    ---------
    output_folder : str
        As in the YAML.
    options : RunOptions or speechbrain.Brain
        Has ``debug`` and ``debug_persistently``.
    """
    trial = options.debug and not options.debug_persistently
    return os.path.join(output_folder, "debug") if trial else output_folder


def show_options(brain: sb.Brain) -> None:
    """Logs what is in force: the run options on the terminal, every key in ``log.txt``.

    Arguments
    ---------
    brain : speechbrain.Brain
        Has taken its options from the command line, the YAML and SpeechBrain's defaults, in this
        order.
    """
    options = {name: str(getattr(brain, name)) for name in OPTIONS_SHOWN}
    logger.info(f"In force:\n{_in_lines(options)}")
    keys = {k: v for k, v in getattr(brain.hparams, "values_by_key", {}).items() if "." not in k}
    values = {key: re.sub(r"^!\w+:", "", value) for key, value in {**keys, **options}.items()}
    in_file.info(f"All keys in force, defaults included:\n{_in_lines(values)}")


def _in_lines(values: Mapping[str, str], width: int = 80) -> str:
    """Keys and values in lines of a terminal's width, several in one.

    Example
    -------
    >>> print(_in_lines({"lr": "0.1", "seed": "7", "source": "talks"}, width=20))
      lr: 0.1  seed: 7
      source: talks
    """
    lines = [""]
    for key in sorted(values):
        item = f"  {key}: {values[key]}"
        if lines[-1] and len(lines[-1]) + len(item) > width:
            lines.append("")
        lines[-1] += item
    return "\n".join(lines)
