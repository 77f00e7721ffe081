"""All parts become the output: in the order of the corpus, by the writer of a format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from ..data.own_speech.left_out import on_one_line
from ..data.prepare import to_csv
from ..inference import PretrainedEncoder
from .corpus import Corpus, LeftOut
from .formats import FORMATS, Writer
from .job import Job
from .parts import Parts
from .plan import Plan
from .results import collapse

# Of the files that the formats write: the name of a layer stands before them.
ENDINGS = {end for formats in FORMATS.values() for made in formats.values() for end in made.endings}


class Output:
    """One of the files that the user wants, or a few that belong together.

    Arguments
    ---------
    path : str
        Where it is written.
    writer : type
        The class that writes the format.
    meta : dict
        What the writer needs to know.
    """

    def __init__(self, path: str, writer: type[Writer], meta: dict[str, Any]) -> None:
        self.path, self.writer, self.meta = path, writer, meta


def make_outputs(job: Job, encoder: PretrainedEncoder, corpus: Corpus) -> dict[str, Output]:
    """The outputs of a job by name; a ValueError if the format cannot hold them.

    Arguments
    ---------
    job : Job
        With several layers, each has a file of its own.
    encoder : PretrainedEncoder
        The model.
    corpus : Corpus
        What it encodes.
    """
    writer, names = FORMATS[job.results.kind][job.format], job.results.names()
    if os.path.splitext(job.output)[1] in ENDINGS - {*writer.endings}:
        raise ValueError(
            f"--output {job.output} ends as other files than those of --format {job.format}: "
            f"{' or '.join(writer.endings)}; give another --format, or another name"
        )
    outputs = {}
    for name in names:
        meta = {
            "kind": job.results.kind,
            "sample_rate": encoder.sample_rate,
            "frame_rate": encoder.frame_rate,
            "frame_shift": 1 / encoder.frame_rate,
            "pooled": False,
            **job.results.meta(encoder, name),
        }
        path = path_of(job.output, name) if len(names) > 1 else job.output
        outputs[name] = Output(path, writer, {**meta, "root": corpus.root})
    for output in outputs.values():
        writer.check(output.path, output.meta, corpus.clips)
    return outputs


def files_in_the_way(outputs: Mapping[str, Output]) -> list[str]:
    """The files that exist already and would be replaced."""
    paths = (path for output in outputs.values() for path in output.writer.paths(output.path))
    return [path for path in dict.fromkeys(paths) if os.path.exists(path)]


def path_of(output: str, name: str) -> str:
    """The path of one output of several.

    Example
    -------
    >>> path_of("a/f.npz", "layer2"), path_of("a/f", "layer2")
    ('a/f.layer2.npz', 'a/f.layer2')
    """
    root, ending = os.path.splitext(output)
    return f"{root}.{name}{ending}" if ending in ENDINGS else f"{output}.{name}"


def merge(
    job: Job, outputs: Mapping[str, Output], corpus: Corpus, plan: Plan, parts: Parts
) -> dict[str, Any]:
    """Writes all files of a job, except its provenance.

    Arguments
    ---------
    job : Job
        What was encoded.
    outputs : dict
        Those of ``make_outputs``.
    corpus, plan : Corpus, Plan
        Clips and parts.
    parts : Parts
        All of them are there.

    Returns
    -------
    summary : dict
        The number of clips, of frames, of clips that were left out, and the files, relative to
        the folder of the output.

    Raises
    ------
    ValueError
        If all clips were left out.
    """
    part_of, frames, reasons = {}, {}, {}
    for part in range(len(plan.parts)):
        part_of.update(dict.fromkeys(plan.clips_of(part), part))
        for whole, of_part in zip((frames, reasons), parts.about(part)):
            whole.update(of_part)
    left_out = [
        *corpus.left_out,
        *(LeftOut(plan.clips[n].id, plan.clips[n].path, reasons[n]) for n in sorted(reasons)),
    ]
    if not frames:
        parts.remove()  # the files may be mended
        raise ValueError(
            f"none of the {len(left_out)} clips of {job.source} can be encoded; the first is "
            f"{left_out[0].path}: it {left_out[0].reason}"
        )
    writers = {name: output.writer(output.path, output.meta) for name, output in outputs.items()}
    dedup = any(output.meta.get("dedup") for output in outputs.values())
    for number in tqdm(sorted(frames), "writing", unit=" clip", disable=None):
        arrays = parts.read(part_of[number], number, list(writers))
        for name, writer in writers.items():
            if dedup:
                writer.add(plan.clips[number], *collapse(arrays[name]))
            else:
                writer.add(plan.clips[number], arrays[name])
    files = []
    for writer in writers.values():
        writer.close()
        files += writer.files
    list_of_left_out = f"{job.output}.left_out.csv"
    if left_out:
        rows = [(clip.id, on_one_line(clip.path), clip.reason) for clip in left_out]
        parts.publish(list_of_left_out, to_csv([("ID", "path", "reason"), *rows]))
    elif os.path.exists(list_of_left_out):
        os.remove(list_of_left_out)
    folder = os.path.dirname(job.output)
    return {
        "clips": len(frames),
        "frames": sum(frames.values()),
        "left_out": len(left_out),
        "files": [os.path.relpath(file, folder or ".") for file in dict.fromkeys(files)],
    }
