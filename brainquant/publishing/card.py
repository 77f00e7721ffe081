"""The model card of an exported folder, as the Hugging Face Hub shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..huggingface.hub import is_hub_id
from .facts import REPORT, Facts

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")

SMALL_HOURS = 1000
REPORT_LINE = f"![Loss, accuracy and codes over the training]({REPORT})\n"


def model_card(
    facts: Facts,
    about: Mapping[str, Any],
    how_to_load: str,
    *,
    library: str = "brainquant",
    title: str | None = None,
    license: str | None = None,
    language: str | None = None,
) -> str:
    """The text of a ``README.md``.

    Arguments
    ---------
    facts : Facts
        What is known of the run.
    about : Mapping
        What ``about_model`` gives.
    how_to_load : str
        The section that says it.
    library : str
        The library whose form the folder has, as the Hub writes it.
    title, license, language : str or None
        As for ``export``.

    Raises
    ------
    ValueError
        If the licence or a language is not written as the Hub writes it.
    """
    training = about["training"]
    name = _default_title(training) if title is None else _one_line("--title", title)
    parts = [
        _front_matter(training, library, license, language),
        f"# {name}\n",
        _summary(facts, about, license),
        _training(training, about),
        *([REPORT_LINE] if facts.draw_report else []),
        *[f"## Probe\n\n```text\n{table}\n```\n" for table in facts.probes],
        how_to_load,
        _limits(facts, about),
    ]
    return "\n".join(parts)


def _default_title(training: Mapping[str, Any]) -> str:
    corpus = training.get("corpus") or []
    name = training["objective"]
    if base := training.get("base_model"):
        name = f"{base}, continued"
    return f"{name} on {corpus[0]}" if corpus else name


def _one_line(option: str, text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{option} must be one line of text, got {text!r}")
    return text


def _front_matter(
    training: Mapping[str, Any], library: str, license: str | None, language: str | None
) -> str:
    """The YAML at the head of the card, which the Hub reads."""
    lines = ["---"]
    if license is not None:
        if not LICENCE.fullmatch(license):
            raise ValueError(
                f"--license must be written as the Hub does, got {license!r}; for instance "
                f"apache-2.0, cc-by-4.0 or other"
            )
        lines.append(f"license: {license}")
    if language is not None:
        lines.append("language:")
        for code in language.split(","):
            if not LANGUAGE.fullmatch(code):
                raise ValueError(
                    f"--language must be codes of languages, got {code!r}; for instance en, or "
                    f"en,de"
                )
            lines.append(f'- "{code}"')  # no is a language, and false in YAML
    if is_hub_id(base := training.get("base_model", "")):
        lines.append(f"base_model: {base}")
    tag = re.sub(r"[^a-z0-9]+", "-", training["objective"].lower()).strip("-")
    tags = ["audio", "speech", "self-supervised", "speechbrain", tag]
    if library != "brainquant":
        tags.append("brainquant")
    lines += [f"library_name: {library}", "pipeline_tag: feature-extraction", "tags:"]
    lines += [f"- {tag}" for tag in tags]
    return "\n".join([*lines, "---", ""])


def _summary(facts: Facts, about: Mapping[str, Any], license: str | None) -> str:
    parameters = sum(parameter.numel() for parameter in facts.encoder.encoder.parameters())
    text = (
        f"A speech encoder of {parameters / 1e6:.1f} million parameters and {about['num_layers']} "
        f"layers. It reads waveforms of {about['sample_rate']} Hz and gives "
        f"{about['frame_rate']:g} vectors of {about['dim']} values a second."
    )
    if about["num_codebooks"]:
        quantiser = type(facts.encoder.quantiser).__name__
        one = about["num_codebooks"] == 1
        codes = "a code" if one else f"{about['num_codebooks']} codes, each"
        text += (
            f" Its quantiser, a `{quantiser}`, gives each frame {codes} out of "
            f"{about['codebook_size']}."
        )
    if base := about["training"].get("base_model"):
        link = f"[{base}](https://huggingface.co/{base})" if is_hub_id(base) else f"`{base}`"
        text += (
            f"\n\nIts training began with the weights of {link}. The licence of that model holds "
            f"for these weights, too: keep its terms and its notices."
        )
    if license is None:
        text += "\n\nThe authors have named no licence: ask them before you use it."
    return f"{text} Made with {about['made_by']}.\n"


def _training(training: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    rows = {
        "Objective": training["objective"],
        "Continued from": training.get("base_model", ""),
        "Corpus": ", ".join(training.get("corpus") or ()),
    }
    if "hours_seen" in training:
        rows["Speech seen, in all epochs"] = f"{training['hours_seen']:g} hours"
    if about["step"] is not None:
        rows["Optimiser steps"] = f"{about['step']:,}"
    for key, value in training.get("validation", {}).items():
        rows[f"Validation, {key.replace('_', ' ')}"] = f"{value:.4g}"
    versions = training["versions"].items()
    rows["Versions"] = ", ".join(f"{name} {version}" for name, version in versions)
    cells = {name: value.replace("|", "\\|") for name, value in rows.items() if value}
    lines = [f"| {name} | {value} |" for name, value in cells.items()]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines, ""])


def _limits(facts: Facts, about: Mapping[str, Any]) -> str:
    training = about["training"]
    corpus, hours = training.get("corpus"), training.get("hours_seen")
    base = training.get("base_model")
    heard = f"speech of {', '.join(corpus)}" if corpus else "the speech of its training"
    lines = [
        f"It has heard {heard} {f'since {base}' if base else 'only'}. Other languages, rooms and "
        f"microphones are not tested.",
        f"Audio of another rate than {about['sample_rate']} Hz has to be resampled first; "
        f"`encode_file` does that.",
    ]
    if hours is not None and hours < SMALL_HOURS and not base:
        lines.append(
            f"{hours:g} hours of training, repetitions included, are few: this is a model to try "
            f"things with."
        )
    if not facts.probes:
        lines.append("No probe has measured what its layers know.")
    quantiser = facts.modules.get("quantiser")
    if not getattr(quantiser, "reads_inputs", True):
        lines.append(
            "The quantiser of the pretraining is not here: it read more than the encoder's inputs."
        )
    elif not about["num_codebooks"]:
        trained = "continued training" if base else "pretraining"
        head = "head" if base else "head of the fine-tuning"
        lines.append(f"The {head} and the quantiser of the {trained} are not here.")
    return "\n".join(["## Limits", "", *[f"- {line}" for line in lines], ""])
