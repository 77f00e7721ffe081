"""The folder of a run keeps its teacher, so that the run goes on when the teacher is gone."""

from __future__ import annotations

import fnmatch
import os
import shutil
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..huggingface.checks import MASK_VECTOR
from ..huggingface.folder import is_held_model
from ..huggingface.source import CONFIG, PICKLED, PREPROCESSOR, SAFE, download_model
from ..inference import load_pretrained
from ..inference.describing import describe_run
from ..inference.folder import is_exported
from ..publishing.export import write_model
from ..training.checkpoint_folder import remove_tree
from ..training.needed_files import FOLDER
from ..training.resolve import HPARAMS

SAVED = "save"  # the checkpoints of a run


def keep_teacher(argument: str, teacher: str, kept: str) -> dict[str, Any] | None:
    """Copies a teacher into the folder of a run: ``files_needed`` of TeacherCodes.

    Of a run it keeps the encoder, as exported data. If the classes of the run cannot be exported,
    it keeps the run without its log.

    Arguments
    ---------
    argument : str
        The argument that names the teacher.
    teacher : str
        What ``load_pretrained`` opens.
    kept : str
        The path of the copy, which is made once.

    Returns
    -------
    arguments : dict or None
        The path of the copy; None if there is neither a teacher nor a copy.

    Raises
    ------
    RunError
        If the teacher is another one than the copy. The targets would change within the run.
    """
    is_kept = os.path.exists(kept)
    if os.path.exists(teacher) or not is_kept:  # a Hub id is asked for once
        try:
            source = teacher if os.path.exists(teacher) else download_model(teacher)
        except ValueError:
            return None
        if is_kept:
            _refuse_another(source, kept)
        else:
            part = kept + ".part"
            remove_tree(Path(part))
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            _copy(source, part)
            os.replace(part, kept)
    return {argument: kept}


def _copy(teacher: str, part: str) -> None:
    """Copies what ``load_pretrained`` reads of a teacher."""
    if os.path.isfile(teacher):
        shutil.copyfile(teacher, part)
        return
    os.makedirs(part)
    if is_exported(teacher) or is_held_model(teacher):
        patterns = [CONFIG, PREPROCESSOR, *SAFE]
        if not any(fnmatch.filter(os.listdir(teacher), SAFE[n]) for n in (0, 1)):
            patterns += PICKLED
        for name in os.listdir(teacher):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                shutil.copyfile(os.path.join(teacher, name), os.path.join(part, name))
        return
    try:
        describe_run(os.path.join(teacher, HPARAMS))
    except ValueError:  # a class of somebody's own, or a model of transformers
        _copy_run(teacher, part)
    else:
        write_model(part, load_pretrained(teacher), {})


def _copy_run(run: str, part: str) -> None:
    """Copies the YAML of a run, the files that it needs, and its checkpoints."""
    shutil.copyfile(os.path.join(run, HPARAMS), os.path.join(part, HPARAMS))
    for name in (FOLDER, SAVED):
        if os.path.isdir(folder := os.path.join(run, name)):
            shutil.copytree(folder, os.path.join(part, name))


def _refuse_another(teacher: str, kept: str) -> None:
    """Raises a RunError if a teacher does not have the tensors of its copy."""
    now, then = (load_pretrained(path).encoder.state_dict() for path in (teacher, kept))
    for state in (now, then):  # it may be drawn when a model is loaded, and is not used
        state.pop(f"model.{MASK_VECTOR}", None)
    if now.keys() != then.keys() or any(not now[name].equal(then[name]) for name in then):
        raise RunError(
            f"teacher: {teacher} has changed since the run began, so its targets would change; go "
            f"on with its copy: set teacher: {kept} under the quantiser, or begin in a new "
            f"output_folder:"
        )
