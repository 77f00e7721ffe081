"""Uploads an exported folder to the Hugging Face Hub."""

from __future__ import annotations

import os

from ..huggingface.folder import is_held_model
from ..huggingface.hub import FILES, OF_TRANSFORMERS, import_library, is_hub_id, one_line
from ..inference.folder import WEIGHTS, is_exported
from ..inference.loading import open_data


def push(
    folder: str | os.PathLike[str],
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Uploads an exported folder in one commit: all of its files or none.

    The login is huggingface_hub's own: ``hf auth login``, or the variable ``HF_TOKEN``.

    Arguments
    ---------
    folder : str
        The folder that ``brainquant export`` has written. It is opened first, as by
        ``load_pretrained``. Only the files of an export are uploaded.
    name : str
        The Hub id, ``user/name``. The repository is made if there is none.
    private : bool
        Whether only you and those whom you allow may read it. A public repository that exists
        already is refused, because it would stay public.
    revision : str or None
        A branch, which is made if there is none. None takes ``main``.

    Returns
    -------
    url : str
        Page of the repository on the Hub.

    Raises
    ------
    ValueError
        If the folder is no exported model, if ``name`` is no Hub id, if nobody is logged in or the
        login may not write there, or if the Hub cannot be reached.
    ImportError
        If huggingface_hub is not installed.
    """
    if not is_hub_id(name):
        raise ValueError(f"{name} is no Hub id; give user/name, as in somebody/best-rq-toy")
    if not is_exported(folder):
        raise ValueError(
            f"{folder} is not an exported folder; make one of the folder of a run with: brainquant "
            f"export RUN --output DIR"
        )
    library = import_library()
    files = OF_TRANSFORMERS if is_held_model(folder) else FILES
    open_data(folder)
    if not os.path.isfile(os.path.join(folder, WEIGHTS)):
        raise ValueError(
            f"{folder} has its weights in other files than {WEIGHTS}, the one that is uploaded; "
            f"write it again with save_pretrained of transformers"
        )
    if library.get_token() is None:
        raise ValueError(
            f"nobody is logged in on {library.constants.ENDPOINT}; log in with `hf auth login` or "
            f"set HF_TOKEN to a token that may write"
        )
    hub = library.HfApi()
    with one_line(library, name, revision):
        url = hub.create_repo(name, private=private or None, exist_ok=True)
        if private and not hub.model_info(name).private:
            raise ValueError(
                f"{name} exists already and is public, so nothing was uploaded; make it private on "
                f"{url} first, or leave out --private"
            )
        if revision:
            hub.create_branch(name, branch=revision, exist_ok=True)
        hub.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*files],
            revision=revision,
            commit_message="Upload a model of brainquant",
        )
    return str(url)
