"""The speech of a run: what its manifests say, and what a sample of its audio is like."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .corpus.copies import find_copies
from .corpus.heard import hear
from .corpus.heard_findings import heard_findings
from .corpus.heard_lines import heard_facts, heard_lines
from .corpus.listed import list_clips, split_of
from .corpus.listed_findings import listed_findings
from .corpus.listed_lines import listed_facts, listed_lines
from .corpus.sample import read_sample
from .section import Section

TITLE = "Data"
SHOWN = 10  # clips in the facts that cannot be read


def manifest_facts(hparams: Mapping[str, Any], train_loader: Any, valid_loader: Any) -> Section:
    """What the manifests of a run say, without a look at any audio.

    Arguments
    ---------
    hparams : dict
        Those that made the loaders.
    train_loader, valid_loader : torch.utils.data.DataLoader, or None for validation
        From ``brainquant.data.batches.make_loaders``.
    """
    listed = list_clips(hparams, train_loader, valid_loader)
    return Section(
        TITLE,
        listed_facts(listed),
        [*listed_lines(listed, hparams)],
        [*listed_findings(listed, hparams)],
    )


def survey_data(
    hparams: Mapping[str, Any], train_loader: Any, valid_loader: Any, *, seconds: float
) -> Section:
    """What the manifests of a run say, and what its audio is like.

    Clips are drawn with ``seed`` and read as training reads them, until the time is over. What is
    reported of audio is true of the clips that were read.

    Arguments
    ---------
    hparams : dict
        Those that made the loaders.
    train_loader, valid_loader : torch.utils.data.DataLoader, or None for validation
        From ``brainquant.data.batches.make_loaders``.
    seconds : float
        The time that this may take. A clip that is being read then is read to its end.
    """
    began = time.monotonic()
    section = manifest_facts(hparams, train_loader, valid_loader)
    loaders = [loader for loader in (train_loader, valid_loader) if loader is not None]
    splits = [split_of(loader) for loader in loaders]
    clips = [len(split.clips) for split in splits]
    rate, seed = hparams["sample_rate"], hparams["seed"]
    left = seconds - (time.monotonic() - began)
    sample = read_sample(loaders, splits, sample_rate=rate, seconds=left, seed=seed)
    copies = find_copies(sample)

    facts, heard, bad = {**section.facts, "copies": copies._asdict()}, [], []
    for number, name in enumerate(("train", "valid")[: len(splits)]):
        readings = [reading for reading in sample.readings if reading.split == number]
        heard.append(hear(readings))
        bad.append([reading for reading in readings if not reading.sound])
        facts[name]["audio"] = {
            **heard_facts(heard[-1]),
            "unreadable": len(bad[-1]),
            "reasons": {reading.clip: reading.reason for reading in bad[-1][:SHOWN]},
        }
    lines = heard_lines(heard[0], bad[0], copies, clips=clips[0], seconds=sample.seconds, rate=rate)
    found = heard_findings(
        heard[0], copies, len(sample.readings), sum(bad, []), sum(clips), hparams
    )
    known = {finding.name for finding in section.findings}
    findings = [finding for finding in found if finding.name not in known]
    return Section(TITLE, facts, [*section.lines, *lines], [*findings, *section.findings])
