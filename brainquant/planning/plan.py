"""Looks at a run before it starts: data, codes, memory, time and learning rate in two minutes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import torch

from .. import __version__
from ..data.prepare import write_whole
from ..errors import RunError, rank_from_environment
from ..recipe import build_brain, build_loaders
from ..training.hparams import load_hparams, parse_arguments
from .aside import Aside, opened_aside
from .codes import describe_codes
from .data import survey_data
from .duration import plan_duration
from .find_batch import describe_found, find_batch, found_facts
from .length import run_length
from .memory import plan_memory
from .quiet import info_is_hidden, lines_are_hidden
from .rates import check_rates
from .section import Section
from .status import status
from .step import describe_step
from .text import as_json, failed, format_findings, format_section
from .trial import run_trial
from .trial_steps import Trial

# The parts in their order, with their shares of the time and what they do.
PARTS = {
    "data": (15, "Data", "looking at the data"),
    "step": (3, "One step", "looking at one step"),
    "codes": (12, "Codes before training", "computing codes"),
    "memory": (50, "Memory", "training some steps"),
    "largest_batch": (0, "Largest batch", "training on ever larger batches"),
    "time": (20, "Time", "validating, reading and saving"),
    "learning_rate": (0, "Learning rate", "comparing with the recipe"),
}
LEAST_SECONDS = 1.0  # of a part for which no time is left


def plan(
    argv: Sequence[str],
    *,
    minutes: float = 2.0,
    output: str = "plan.json",
    search_batch: bool = False,
    show: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Plans a run: shows each part when it is known, then all findings, and writes a file.

    Nothing is written into the folder of the run. A corpus that its recipe makes in
    ``data_folder:`` is made, as in training.

    Arguments
    ---------
    argv : sequence of str
        What the recipe's ``train.py`` takes: the YAML file, then options.
    minutes : float
        Time for everything but the preparation of the corpus.
    output : str
        The JSON file.
    search_batch : bool
        Whether to find the largest batch that fits by real steps, which takes up to five minutes
        more.
    show : callable
        Is called with a text.

    Returns
    -------
    plan : dict
        What the file has.

    Raises
    ------
    ValueError
        If the recipe, an option or the corpus is wrong, as in training.
    """
    if rank_from_environment()[1] > 1:
        raise ValueError("brainquant plan looks at one process: start it without torchrun")
    began = time.monotonic()
    with opened_aside(argv) as aside:
        hparams_file, run_opts, overrides = parse_arguments(aside.argv)
        with info_is_hidden():
            hparams = load_hparams(hparams_file, overrides)
        before = time.monotonic()
        if hparams["prepare"]:
            with lines_are_hidden(str(aside.folder)):
                hparams["prepare"]()
        began += time.monotonic() - before
        with info_is_hidden():
            brain = build_brain(hparams, run_opts)
            loaders = build_loaders(brain, hparams)
            look = Look(argv, aside, brain, hparams, loaders, began + 60 * minutes)
            sections, took = {}, {}
            for name in PARTS:
                if name == "largest_batch" and not search_batch:
                    continue
                before = time.monotonic()
                sections[name] = look.part(name)
                took[name] = time.monotonic() - before
                show(format_section(sections[name]) + "\n")
    findings = [finding for section in sections.values() for finding in section.findings]
    show(
        format_findings(
            findings, unknown=[s.title for s in sections.values() if "error" in s.facts]
        )
    )
    content = {
        "recipe": str(argv[0]),
        "options": list(argv[1:]),
        "made_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "brainquant": __version__,
        "seconds": time.monotonic() - began,
        "seconds_of_parts": took,
        "findings": [finding._asdict() for finding in findings],
        **{name: section.facts for name, section in sections.items()},
    }
    write_whole(output, json.dumps(as_json(content), indent=2, ensure_ascii=False) + "\n")
    show(f"written to {output}")
    return content


class Look:
    """A look at a recipe, part by part.

    Arguments
    ---------
    argv : sequence of str
        The command line.
    aside : Aside
        The same with temporary folders.
    brain : RunBrain
        The Brain of the recipe.
    hparams : dict
        What ``load_hparams`` gives.
    loaders : tuple
        Of training and validation audio; the second may be None.
    end : float
        When everything should be done, on the clock of ``time.monotonic``.
    """

    def __init__(
        self,
        argv: Sequence[str],
        aside: Aside,
        brain: Any,
        hparams: dict[str, Any],
        loaders: tuple[Any, Any],
        end: float,
    ) -> None:
        self.argv, self.aside, self.brain, self.hparams = argv, aside, brain, hparams
        self.train_loader, self.valid_loader = loaders
        self.end = end
        self.trial: Trial | None = None

    def part(self, name: str) -> Section:
        """A part of the plan; if it fails, one line says why, and the others go on."""
        _, title, doing = PARTS[name]
        seconds = share_of_time(name, self.end - time.monotonic())
        try:
            with status(doing):
                return getattr(self, name)(seconds)
        except Exception as error:  # a Brain, quantiser or corpus of somebody else
            return failed(title, error)

    def data(self, seconds: float) -> Section:
        """What the corpus is like."""
        return survey_data(self.hparams, self.train_loader, self.valid_loader, seconds=seconds)

    def step(self, seconds: float) -> Section:
        """What a step computes."""
        return describe_step(self.brain, self.hparams, self.train_loader)

    def codes(self, seconds: float) -> Section:
        """What the codes are like before any training."""
        return describe_codes(self.brain, self.hparams, self.train_loader, seconds=seconds)

    def memory(self, seconds: float) -> Section:
        """What the training needs, from real steps."""
        with self.free_device():
            self.trial = run_trial(self.aside.argv, seconds=seconds)
        return plan_memory(self.hparams, self.train_loader, self.trial)

    def largest_batch(self, seconds: float) -> Section:
        """The largest batch that fits, by real steps; this takes no time from the other parts."""
        began = time.monotonic()
        with self.free_device():
            found = find_batch(self.aside.argv)
        self.end += time.monotonic() - began
        return Section(PARTS["largest_batch"][1], found_facts(found), describe_found(found))

    @contextmanager
    def free_device(self) -> Iterator[None]:
        """Leaves a GPU to a trial; what ends a trial would end the training, too."""
        device = self.brain.device
        self.brain.modules.to("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            yield
        except ValueError as error:
            raise RunError(str(error)) from error
        finally:
            self.brain.modules.to(device)

    def time(self, seconds: float) -> Section:
        """How long the run takes."""
        if self.trial is None:
            raise ValueError("no steps were made, see Memory")
        return plan_duration(
            self.brain,
            self.hparams,
            self.train_loader,
            self.valid_loader,
            self.trial,
            seconds=seconds,
            folder=self.aside.folder / "checkpoint",
            output_folder=self.aside.values["output_folder"],
        )

    def learning_rate(self, seconds: float) -> Section:
        """Whether learning rate, batch and warm-up fit each other."""
        hparams_file, _, overrides = parse_arguments(self.argv)
        length = run_length(self.brain, self.hparams, self.train_loader)
        return check_rates(hparams_file, overrides, self.hparams, length)


def share_of_time(name: str, left: float) -> float:
    """The seconds of a part; what earlier ones did not need goes to the later ones.

    Example
    -------
    >>> share_of_time("time", 30.0), share_of_time("memory", 70.0), share_of_time("time", -1.0)
    (30.0, 50.0, 1.0)
    """
    names = list(PARTS)
    still = sum(PARTS[other][0] for other in names[names.index(name) :])
    return max(left * PARTS[name][0] / still, LEAST_SECONDS) if still else LEAST_SECONDS
