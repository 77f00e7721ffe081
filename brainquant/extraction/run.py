"""Encodes a corpus, alone or as one of several processes; goes on where another run has ended."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from speechbrain.utils.logger import get_logger

from .. import __version__
from ..data.own_speech.sources import Source
from ..errors import RunError
from ..inference import PretrainedEncoder
from ..own_files import NO_SPACE
from ..processes.signals import Stopped
from .compute import Timing, one_thread, work
from .corpus import find_source, read_corpus
from .job import Job
from .merge import files_in_the_way, make_outputs, merge
from .parts import Parts
from .plan import Plan, make_plan
from .provenance import Provenance
from .shares import Share, other_processes, share_of_launcher

logger = get_logger(__name__)

GRACE_SECONDS = 10.0  # in which a shared disk shows the files of other machines
POLL_SECONDS = 0.2


def extract(job: Job, num_processes: int | None = None) -> None:
    """Encodes a corpus and writes it in a format that other tools read.

    Processes that torchrun or srun has started each take a share; the last to end its share writes
    the output. The bytes of the output are the same for any number of processes, and for a run that
    was interrupted and started again.

    Arguments
    ---------
    job : Job
        What to encode, and how.
    num_processes : int or None
        Processes on this machine. None: on the CPU as many as torch has threads (elsewhere than on
        Linux one); on a GPU one.

    Raises
    ------
    ValueError
        If the input is wrong, nothing can be read, the disk is full, or there is an output or
        unfinished work of another model or of other options.
    """
    share = share_of_launcher()
    if share and num_processes is not None:
        raise ValueError(
            "--num_processes is for one machine without torchrun or srun; leave it out"
        )
    with _explained(job), one_thread() as num_threads:
        encoder, source = job.open_model(), find_source(job.source, job.data_folder)
        made_of = identity_of(job, encoder, source)
        provenance, parts = Provenance(job.output), Parts(job.output)
        if provenance.is_complete(made_of):
            parts.remove()
            logger.info(f"{job.output} is complete; {provenance.path} says what it was made of")
            return
        corpus = read_corpus(job.source, source, encoder.sample_rate, encoder.min_samples)
        outputs = make_outputs(job, encoder, corpus)
        if not parts.exist() and (files := files_in_the_way(outputs)):
            if provenance.is_complete(made_of):  # other processes have just written it
                return
            raise ValueError(
                f"{files[0]} exists, and nothing says that it was made of the same; give another "
                f"--output, or remove {' '.join(files)}"
            )
        plan = make_plan(corpus.clips, job.batch_seconds, job.results.bytes_per_second(encoder))
        parts.open({**made_of, "plan": plan.digest()})
        for part in parts.remove_damaged(len(plan.parts)):
            logger.warning(f"part {part} of {parts.folder} is damaged; it is computed again")
        if share:
            timing = work(job, plan, share, encoder)
        else:
            share, timing = _work_here(job, plan, parts, encoder, num_processes, num_threads)
        _say_how_fast(share, timing)
        if missing := _wait_for_others(parts, plan):
            logger.info(
                f"this share is done, {missing} of {len(plan.parts)} parts are missing; whoever "
                f"ends its share last writes {job.output}"
            )
            return
        with parts.locked() as mine:
            if not mine:
                logger.info(f"another process writes {job.output}, or has written it")
                return
            if not provenance.is_complete(made_of):
                summary = merge(job, outputs, corpus, plan, parts)
                content = {"made_of": made_of, **facts_of(job, encoder), **summary}
                # From now on the output is complete.
                parts.publish(provenance.path, json.dumps(content, indent=2) + "\n")
                logger.info(describe(job, summary))
            parts.remove()


def _work_here(
    job: Job,
    plan: Plan,
    parts: Parts,
    encoder: PretrainedEncoder,
    num_processes: int | None,
    num_threads: int,
) -> tuple[Share, Timing]:
    """Computes all that is missing, in several processes."""
    # A fork has the model at once, and in the same memory; a process that uses a GPU must not fork.
    fork = sys.platform == "linux" and encoder.device.type == "cpu"
    most = len(parts.missing(len(plan.parts)))
    share = Share(0, max(1, min(num_processes or (num_threads if fork else 1), most)))
    work_on = functools.partial(_work_on, job, plan, encoder if fork else None)
    with other_processes(work_on, share.ranks, fork=fork):
        return share, work(job, plan, share, encoder)


def _work_on(job: Job, plan: Plan, encoder: PretrainedEncoder | None, share: Share) -> None:
    with _explained(job):
        work(job, plan, share, encoder)


def _say_how_fast(share: Share, timing: Timing) -> None:
    if share.rank or not timing.speech:
        return
    each = f" in each of {share.ranks} processes" if share.ranks > 1 else ""
    logger.info(
        f"{timing.speech:.0f} s of speech in {timing.elapsed:.1f} s, "
        f"{timing.speech / timing.elapsed:.0f} times real time{each}; "
        f"{timing.waited / timing.elapsed:.1%} of the time waited for reading"
    )


def identity_of(job: Job, encoder: PretrainedEncoder, source: Source) -> dict[str, Any]:
    """What decides about the content of an output. Outputs with the same are the same."""
    return {
        "command": job.results.kind,
        "model": encoder.fingerprint(),
        **job.results.identity(),
        "format": job.format,
        "batch_seconds": job.batch_seconds,
        "source": source.state,
        "brainquant": __version__,
        "torch": torch.__version__,
    }


def facts_of(job: Job, encoder: PretrainedEncoder) -> dict[str, Any]:
    """What a reader of the output wants to know beside its identity."""
    sizes = {}
    if job.results.kind == "tokens":
        meta = job.results.meta(encoder, job.results.names()[0])
        sizes = {"num_codebooks": meta["num_codebooks"], "codebook_size": meta["num_codes"]}
    return {
        "model": job.model,
        "steps": encoder.step,
        "source": job.source,
        "sample_rate": encoder.sample_rate,
        "frame_rate": encoder.frame_rate,
        **sizes,
    }


def describe(job: Job, summary: dict[str, Any]) -> str:
    """The last line of a run."""
    folder = os.path.dirname(job.output)
    files = ", ".join(os.path.join(folder, name) for name in summary["files"])
    text = f"{files}: {summary['clips']} clips, {summary['frames']} frames"
    if summary["left_out"]:
        text += f"; {summary['left_out']} clips left out, listed in {job.output}.left_out.csv"
    return text


def _wait_for_others(parts: Parts, plan: Plan) -> int:
    """Waits a moment for the parts of other processes, and returns how many are missing."""
    until = time.monotonic() + GRACE_SECONDS
    while parts.exist() and (missing := len(parts.missing(len(plan.parts)))):
        if time.monotonic() > until:
            return missing
        time.sleep(POLL_SECONDS)
    return 0


@contextlib.contextmanager
def _explained(job: Job) -> Iterator[None]:
    """Says in one line what to do when the work ends early."""
    try:
        yield
    except Stopped:
        if os.path.exists(Parts(job.output).folder):
            logger.info("the same command goes on from here")
        raise
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise RunError(
            f"{job.output}: {error.strerror}; make room on this disk: the same command goes on"
        ) from error
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"--batch_seconds {job.batch_seconds:g} needs more memory than {job.device} has; give "
            f"less, and remove {Parts(job.output).folder}"
        ) from error
