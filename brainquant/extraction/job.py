"""What to encode, and how; and the model that does it."""

from __future__ import annotations

import dataclasses

import torch

from ..inference import PretrainedEncoder, load_pretrained
from .results import Results
from .shares import alone, local_rank


@dataclasses.dataclass(frozen=True)
class Job:
    """What to encode, and how.

    Arguments
    ---------
    model : str
        For ``load_pretrained``.
    source : str
        An audio file, a folder or a manifest, for ``find_source``.
    output : str
        The file to write; its provenance is ``<output>.json``, and what is left out is in
        ``<output>.left_out.csv``.
    results : Results
        ``Features``, ``QuantiserTokens`` or ``KMeansTokens``.
    format : str
        A key of ``FORMATS``.
    batch_seconds : float
        Seconds of speech in a batch, with its padding.
    device : str
        Where to compute. ``cuda``: of several GPUs each process of a machine takes another.
    num_workers : int
        Threads that read audio.
    data_folder : str or None
        What ``$data_root`` in a manifest stands for. None: the folder of the manifest.
    """

    model: str
    source: str
    output: str
    results: Results
    format: str
    batch_seconds: float = 20.0
    device: str = "cpu"
    num_workers: int = 2
    data_folder: str | None = None

    def open_model(self) -> PretrainedEncoder:
        """Loads the model; a ValueError if it cannot give these results."""
        device = self.device
        if device != "cpu":
            from ..training.device_options import check_device

            check_device({"device": device})
        if device == "cuda":
            device = f"cuda:{local_rank() % torch.cuda.device_count()}"
        with alone():
            encoder = load_pretrained(self.model, device=device)
        self.results.prepare(encoder)
        return encoder
