"""The speech of a run: what its manifests say, and what a sample of its audio is like."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .corpus.copies import find_copies
from .corpus.heard import hear
from .corpus.heard_findings import heard_findings
from .corpus.heard_lines import heard_facts, heard_lines
from .corpus.listed import list_clips
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
    listed = list_clips(hparams, train_loader, valid_loader)
    loaders = [loader for loader in (train_loader, valid_loader) if loader is not None]
    splits = [split for split in (listed.train, listed.valid) if split]
    sample = read_sample(
        loaders,
        splits,
        sample_rate=hparams["sample_rate"],
        seconds=seconds - (time.monotonic() - began),
        seed=hparams["seed"],
    )
    parts = [[it for it in sample.readings if it.split == number] for number in range(len(splits))]
    heard = [hear(part) for part in parts]
    bad = [[it for it in part if not it.sound] for part in parts]
    copies = find_copies(sample)
    facts = listed_facts(listed)
    for name, found, unreadable in zip(("train", "valid"), heard, bad):
        facts[name]["audio"] = {
            **heard_facts(found),
            "unreadable": len(unreadable),
            "reasons": {it.clip: it.reason for it in unreadable[:SHOWN]},
        }
    facts["copies"] = copies._asdict()
    lines = heard_lines(
        heard[0],
        bad[0],
        copies,
        clips=len(listed.train.clips),
        seconds=sample.seconds,
        rate=hparams["sample_rate"],
    )
    all_bad = [it for part in bad for it in part]
    return Section(
        TITLE,
        facts,
        [*listed_lines(listed, hparams), *lines],
        [
            *heard_findings(heard[0], copies, len(sample.readings), all_bad, listed, hparams),
            *listed_findings(listed, hparams),
        ],
    )
