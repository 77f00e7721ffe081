"""The model card of an exported folder, as the Hugging Face Hub shows it."""

from __future__ import annotations

import re
from typing import Any

from .facts import REPORT, Facts

LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{1,40}")
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")

NAME = "user/name"
SMALL_HOURS = 1000
TOKENS = f"brainquant tokens {NAME} FOLDER_OF_AUDIO --format npz --output codes.npz\n"
REPORT_LINE = f"![Loss, accuracy and codes over the training]({REPORT})\n"

LOADING = """\
## How to load it

`{name}` stands for the id of this model on the Hub, or for the path of this folder.

With brainquant, which reads data only, so nothing in this folder is executed:

```python
import brainquant, torch

encoder = brainquant.load_pretrained("{name}")
wavs = torch.randn(1, {sample_rate})  # (batch, samples) at {sample_rate} Hz
hidden, frames = encoder(wavs)  # ({example})
```

With SpeechBrain:

```python
from speechbrain.inference import WaveformEncoder

encoder = WaveformEncoder.from_hparams(source="{name}")
```

SpeechBrain executes `hyperparams.yaml`: **YAML of this form is code that runs on your machine.** \
Use `from_hparams` only for folders of people whom you trust.

Without Python code of your own: features and {units} in files for other tools, or an encoder for \
ONNX Runtime:

```bash
brainquant encode {name} FOLDER_OF_AUDIO --output features.npz
{tokens}brainquant export {name} --output onnx --format onnx
```
"""


def model_card(
    facts: Facts,
    config: dict[str, Any],
    *,
    title: str | None = None,
    license: str | None = None,
    language: str | None = None,
) -> str:
    """The text of a ``README.md``.

    Arguments
    ---------
    facts : Facts
        What is known of the run.
    config : dict
        The ``config.json`` of the folder.
    title, license, language : str or None
        As for ``export``.

    Raises
    ------
    ValueError
        If the licence or a language is not written as the Hub writes it.
    """
    training = config["training"]
    name = _default_title(training) if title is None else _one_line("--title", title)
    parts = [
        _front_matter(training["objective"], license, language),
        f"# {name}\n",
        _summary(facts, config, license),
        _training(training, config),
        *([REPORT_LINE] if facts.draw_report else []),
        *[f"## Probe\n\n```text\n{table}\n```\n" for table in facts.probes],
        _loading(config),
        _limits(facts, config),
    ]
    return "\n".join(parts)


def _default_title(training: dict[str, Any]) -> str:
    corpus = training.get("corpus") or []
    return f"{training['objective']} on {corpus[0]}" if corpus else training["objective"]


def _one_line(option: str, text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{option} must be one line of text, got {text!r}")
    return text


def _front_matter(objective: str, license: str | None, language: str | None) -> str:
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
    tag = re.sub(r"[^a-z0-9]+", "-", objective.lower()).strip("-")
    lines += ["library_name: brainquant", "pipeline_tag: feature-extraction", "tags:"]
    lines += [f"- {tag}" for tag in ("audio", "speech", "self-supervised", "speechbrain", tag)]
    return "\n".join([*lines, "---", ""])


def _summary(facts: Facts, config: dict[str, Any], license: str | None) -> str:
    parameters = sum(parameter.numel() for parameter in facts.encoder.encoder.parameters())
    text = (
        f"A speech encoder of {parameters / 1e6:.1f} million parameters and {config['num_layers']} "
        f"layers. It reads waveforms of {config['sample_rate']} Hz and gives "
        f"{config['frame_rate']:g} vectors of {config['dim']} values a second."
    )
    if config["num_codebooks"]:
        quantiser = config["architecture"]["quantiser"]["class"].rpartition(".")[2]
        one = config["num_codebooks"] == 1
        codes = "a code" if one else f"{config['num_codebooks']} codes, each"
        text += (
            f" Its quantiser, a `{quantiser}`, gives each frame {codes} out of "
            f"{config['codebook_size']}."
        )
    if license is None:
        text += "\n\nThe authors have named no licence: ask them before you use it."
    return f"{text} Made with {config['made_by']}.\n"


def _training(training: dict[str, Any], config: dict[str, Any]) -> str:
    rows = {"Objective": training["objective"], "Corpus": ", ".join(training.get("corpus") or ())}
    if "hours_seen" in training:
        rows["Speech seen, in all epochs"] = f"{training['hours_seen']:g} hours"
    if config["step"] is not None:
        rows["Optimiser steps"] = f"{config['step']:,}"
    for key, value in training.get("validation", {}).items():
        rows[f"Validation, {key.replace('_', ' ')}"] = f"{value:.4g}"
    versions = training["versions"].items()
    rows["Versions"] = ", ".join(f"{name} {version}" for name, version in versions)
    cells = {name: value.replace("|", "\\|") for name, value in rows.items() if value}
    lines = [f"| {name} | {value} |" for name, value in cells.items()]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines, ""])


def _loading(config: dict[str, Any]) -> str:
    has_codes = config["num_codebooks"] > 0
    frames = int(config["frame_rate"])
    return LOADING.format(
        name=NAME,
        sample_rate=config["sample_rate"],
        example=f"1, about {frames}, {config['dim']}",
        units="codes" if has_codes else "features of any layer",
        tokens=TOKENS if has_codes else "",
    )


def _limits(facts: Facts, config: dict[str, Any]) -> str:
    training = config["training"]
    corpus, hours = training.get("corpus"), training.get("hours_seen")
    heard = f"speech of {', '.join(corpus)}" if corpus else "the speech of its training"
    lines = [
        f"It has heard {heard} only. Other languages, rooms and microphones are not tested.",
        f"Audio of another rate than {config['sample_rate']} Hz has to be resampled first; "
        f"`encode_file` does that.",
    ]
    if hours is not None and hours < SMALL_HOURS:
        lines.append(
            f"{hours:g} hours of training, repetitions included, are few: this is a model to try "
            f"things with."
        )
    if not facts.probes:
        lines.append("No probe has measured what its layers know.")
    if not config["num_codebooks"]:
        lines.append(
            "The head of the fine-tuning and the quantiser of the pretraining are not here."
        )
    return "\n".join(["## Limits", "", *[f"- {line}" for line in lines], ""])
