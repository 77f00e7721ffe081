"""Batches of audio for the ranks of a run: each clip once an epoch, without bad ones."""

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler, ReproducibleRandomSampler
from speechbrain.utils.logger import get_logger
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler
from typing_extensions import override

from ..ranks import rank, world_size
from .audio import AudioReader
from .manifests import load_dataset
from .workers import AudioLoader, LeftOutClip, ReadableClips, leave_signals_to_main

logger = get_logger(__name__)


class RankBatchSampler(Sampler):
    """The batches of an epoch for one rank, from a list that is the same on every rank.

    Batch k of an epoch goes to rank k modulo the number of ranks. So a step of several ranks has
    the batches of a step of one rank that accumulates as many. Each batch is used once: if the last
    step has too few, the last ranks get an empty batch.

    (SpeechBrain 1.1.2's sampler makes the same batches in every epoch unless the run is
    distributed, and other batches after it was iterated. Its distributed wrapper shuffles the list
    again, repeats batches, and yields single items if a rank has one batch.)

    Arguments
    ---------
    batches : torch.utils.data.Sampler
        SpeechBrain's ``DynamicBatchSampler``, or torch's ``BatchSampler`` over SpeechBrain's
        ``ReproducibleRandomSampler``. It needs a ``set_epoch``, and depends on seed and epoch only.
    rank : int
        This process.
    world_size : int
        The number of processes of the run.

    Attributes
    ----------
    start : int
        The number of batches of the epoch, over all ranks, that are done already. A resumed epoch
        starts after them, even with another number of ranks.

    Example
    -------
    >>> batches = BatchSampler(ReproducibleRandomSampler(range(5)), 2, drop_last=False)
    >>> ranks = [RankBatchSampler(batches, rank=rank, world_size=2) for rank in range(2)]
    >>> [[len(batch) for batch in sampler] for sampler in ranks]
    [[2, 1], [2, 0]]
    """

    def __init__(
        self, batches: DynamicBatchSampler | BatchSampler, *, rank: int = 0, world_size: int = 1
    ):
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.start = 0
        self._made_for: int | None = None
        self._list_batches()

    @property
    def total(self) -> int:
        """The number of batches of the whole epoch, over all ranks."""
        return len(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Makes the batches of an epoch, once, although SpeechBrain's loop calls it again."""
        if epoch == self._made_for:
            return
        self._made_for = epoch
        sampler: Any = getattr(self.batches, "sampler", self.batches)
        sampler.set_epoch(epoch)
        self._list_batches()

    def _list_batches(self) -> None:
        # islice: at its end, SpeechBrain's sampler would make all batches again.
        self._epoch: list[list[int]] = list(itertools.islice(self.batches, len(self.batches)))

    @override
    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start, self.total, self.world_size):
            index = first + self.rank
            yield self._epoch[index] if index < self.total else []

    def __len__(self) -> int:
        """The number of steps that are left, the same on every rank."""
        return len(range(self.start, self.total, self.world_size))


def check_sampler(loader: DataLoader) -> None:
    """Raises a ValueError if the batches of a loader have no number in their epoch."""
    if not isinstance(loader.batch_sampler, RankBatchSampler):
        raise ValueError(
            f"the batch_sampler of train_set is a {type(loader.batch_sampler).__name__}, whose "
            f"place in an epoch cannot be kept; use brainquant.data.batches.make_loaders, or "
            f"put yours into a RankBatchSampler"
        )


class AudioBatch(PaddedBatch):
    """Clips padded to the longest one, without those that were left out.

    A batch without clips has silence as a placeholder, with the ID "", so that its rank can take
    part in the step.

    Arguments
    ---------
    items : iterable
        Items of ``ReadableClips``; may be empty.
    placeholder_samples : int
        Length of the silence.
    columns : sequence of str
        Items that are text; in the placeholder they are "".

    Attributes
    ----------
    left_out : list of LeftOutClip
        ID and reason of each clip that was left out.
    is_empty : bool
        Whether the batch has only the placeholder.

    Example
    -------
    >>> batch = AudioBatch([LeftOutClip("a", "a.wav: cannot be read")], placeholder_samples=160)
    >>> batch.is_empty, batch.sig.data.shape, batch.left_out[0].id
    (True, torch.Size([1, 160]), 'a')
    """

    def __init__(
        self, items: Iterable[Any], *, placeholder_samples: int, columns: Sequence[str] = ()
    ):
        items = list(items)
        clips = [item for item in items if not isinstance(item, LeftOutClip)]
        self.left_out = [item for item in items if isinstance(item, LeftOutClip)]
        self.is_empty = not clips
        silence = {"id": "", "sig": torch.zeros(placeholder_samples), "duration": 0.0}
        super().__init__(clips or [{**silence, **dict.fromkeys(columns, "")}])


def is_empty(batch: Any) -> bool:
    """Whether a batch is a placeholder; a batch of SpeechBrain's own loaders never is."""
    return getattr(batch, "is_empty", False)


def make_loaders(
    hparams: Mapping[str, Any], *, min_samples: int = 1, columns: Sequence[str] = ()
) -> tuple[AudioLoader, AudioLoader | None]:
    """Makes the loaders of the training and validation audio that the YAML describes.

    Arguments
    ---------
    hparams : dict
        Reads ``train_csv``, ``valid_csv``, ``data_folder``, ``min_seconds``, ``max_seconds``,
        ``sample_rate``, ``resample``, ``mix_down``, ``num_workers``, ``seed``, and
        ``batch_clips`` (the number of clips in a batch, whatever their length) or, if that is null,
        ``batch_seconds`` and ``num_buckets``.
    min_samples : int
        Shorter clips are left out, like those below ``min_seconds``.
    columns : sequence of str
        Further columns of both manifests; a batch has each as a list of str.

    Returns
    -------
    train_loader : torch.utils.data.DataLoader
        Yields ``AudioBatch``; its ``RankBatchSampler`` makes other batches in each epoch.
    valid_loader : torch.utils.data.DataLoader or None
        Yields the same batches in each epoch and on each rank. None if ``valid_csv`` is null.
    """
    sample_rate, num_workers = hparams["sample_rate"], hparams["num_workers"]
    reader = AudioReader(
        sample_rate,
        resample=hparams["resample"],
        mix_down=hparams["mix_down"],
        min_samples=min_samples,
    )
    min_seconds, remedy = hparams["min_seconds"], "change min_seconds: and max_seconds:"
    if min_seconds < min_samples / sample_rate:
        min_seconds = min_samples / sample_rate
        logger.info(f"min_seconds: {min_seconds:g} is used; nothing shorter can be trained on")
        remedy = f"a masked span needs {min_seconds:g} seconds, so set mask_length: lower"

    def loader(manifest: str | os.PathLike, shuffle: bool) -> AudioLoader:
        dataset = load_dataset(
            manifest,
            hparams["data_folder"],
            min_seconds,
            hparams["max_seconds"],
            reader=reader,
            columns=columns,
            remedy=remedy,
        )
        batches = make_batches(dataset, hparams, shuffle)
        if shuffle:
            batches = RankBatchSampler(batches, rank=rank(), world_size=world_size())
        return AudioLoader(
            ReadableClips(dataset, num_workers),
            batch_sampler=batches,
            collate_fn=functools.partial(
                AudioBatch, placeholder_samples=max(sample_rate, min_samples), columns=columns
            ),
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            worker_init_fn=leave_signals_to_main,
            # Each iterator draws a seed for its workers. It must not change dropout's draws.
            generator=torch.Generator().manual_seed(hparams["seed"]),
        )

    train_loader = loader(hparams["train_csv"], True)
    return train_loader, loader(hparams["valid_csv"], False) if hparams["valid_csv"] else None


def make_batches(
    dataset: DynamicItemDataset, hparams: Mapping[str, Any], shuffle: bool
) -> DynamicBatchSampler | BatchSampler:
    """The sampler of an epoch's batches, all of them for one rank."""
    clips, seed = hparams["batch_clips"], hparams["seed"]
    if clips is None:
        return DynamicBatchSampler(
            dataset,
            max_batch_length=hparams["batch_seconds"],
            num_buckets=hparams["num_buckets"],
            shuffle=shuffle,
            batch_ordering="random" if shuffle else "ascending",
            seed=seed,
        )
    order = ReproducibleRandomSampler(dataset, seed) if shuffle else SequentialSampler(dataset)
    return BatchSampler(order, clips, drop_last=False)
