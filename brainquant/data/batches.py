"""Batches of audio for the ranks of a run: each clip once an epoch, and bad ones left out."""

import functools
import itertools

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.sampler import DynamicBatchSampler, ReproducibleRandomSampler
from speechbrain.utils.logger import get_logger
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler

from ..ranks import rank, world_size
from .audio import AudioReader
from .manifests import load_dataset
from .workers import AudioLoader, LeftOutClip, ReadableClips, leave_signals_to_main

logger = get_logger(__name__)


class RankBatchSampler(Sampler):
    """The batches of an epoch, the same list on every rank, dealt out in turns.

    Batch k of an epoch goes to rank k modulo the number of ranks, so that the steps of several
    ranks are those of one rank that accumulates as many batches. Each batch is dealt out once:
    where a last turn has too few, the last ranks get an empty one. (In SpeechBrain 1.1.2 the
    sampler makes the same batches in every epoch unless it is distributed, and other ones after
    it was iterated; its distributed wrapper shuffles the list again, repeats batches, and yields
    single items where a rank has one batch.)

    Arguments
    ---------
    batches : torch.utils.data.Sampler
        SpeechBrain's ``DynamicBatchSampler``, or torch's ``BatchSampler`` over SpeechBrain's
        ``ReproducibleRandomSampler``: what has a ``set_epoch`` and is a function of seed and epoch.
    rank : int
        This process.
    world_size : int
        Processes of the run.

    Attributes
    ----------
    start : int
        Batches of the epoch, over all ranks, that were dealt out before: 0, or what a resumed
        epoch has behind it, whatever the number of ranks was then.

    Example
    -------
    >>> batches = BatchSampler(ReproducibleRandomSampler(range(5)), 2, drop_last=False)
    >>> ranks = [RankBatchSampler(batches, rank=rank, world_size=2) for rank in range(2)]
    >>> [[len(batch) for batch in sampler] for sampler in ranks]
    [[2, 1], [2, 0]]
    """

    def __init__(self, batches, *, rank=0, world_size=1):
        self.batches = batches
        self.rank = rank
        self.world_size = world_size
        self.start = 0
        self._made_for = None
        self._list_batches()

    @property
    def total(self):
        """Batches of the whole epoch, over all ranks."""
        return len(self._epoch)

    def set_epoch(self, epoch):
        """Makes the batches of an epoch, once: SpeechBrain's loop calls it again."""
        if epoch == self._made_for:
            return
        self._made_for = epoch
        getattr(self.batches, "sampler", self.batches).set_epoch(epoch)
        self._list_batches()

    def _list_batches(self):
        # Only so many: at its end, SpeechBrain's sampler would make all of them again.
        self._epoch = list(itertools.islice(self.batches, len(self.batches)))

    def __iter__(self):
        for first in range(self.start, self.total, self.world_size):
            index = first + self.rank
            yield self._epoch[index] if index < self.total else []

    def __len__(self):
        """Turns that are left, the same on every rank."""
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
    """Clips padded to the longest, without those that were skipped.

    A batch without any clip holds silence as a placeholder, of ID "", so that its rank can go
    through the step with the others.

    Arguments
    ---------
    items : list
        Of a ``ReadableClips``; may be empty.
    placeholder_samples : int
        Length of the silence.
    columns : sequence of str
        Items that are text, of which the placeholder has "".

    Attributes
    ----------
    left_out : list of LeftOutClip
        ID and reason of each clip that was left out.
    is_empty : bool
        Whether there is nothing but the placeholder.

    Example
    -------
    >>> batch = AudioBatch([LeftOutClip("a", "a.wav: cannot be read")], placeholder_samples=160)
    >>> batch.is_empty, batch.sig.data.shape, batch.left_out[0].id
    (True, torch.Size([1, 160]), 'a')
    """

    def __init__(self, items, *, placeholder_samples, columns=()):
        clips = [item for item in items if not isinstance(item, LeftOutClip)]
        self.left_out = [item for item in items if isinstance(item, LeftOutClip)]
        self.is_empty = not clips
        silence = {"id": "", "sig": torch.zeros(placeholder_samples), "duration": 0.0}
        super().__init__(clips or [{**silence, **dict.fromkeys(columns, "")}])


def is_empty(batch):
    """Whether a batch is a placeholder; those of SpeechBrain's own loaders never are."""
    return getattr(batch, "is_empty", False)


def make_loaders(hparams, *, min_samples=1, columns=()):
    """Loaders of the training and validation audio that the YAML describes.

    Arguments
    ---------
    hparams : dict
        Reads ``train_csv``, ``valid_csv``, ``data_folder``, ``min_seconds``, ``max_seconds``,
        ``sample_rate``, ``resample``, ``mix_down``, ``batch_seconds`` and ``num_buckets`` or, where
        it is not null, ``batch_clips`` (clips of a batch, whatever their length),
        ``num_workers`` and ``seed``.
    min_samples : int
        Shorter clips are left out, as those below ``min_seconds`` are.
    columns : sequence of str
        Further columns of both manifests, which a batch has as lists of str.

    Returns
    -------
    train_loader : torch.utils.data.DataLoader
        Of ``AudioBatch``; other batches in each epoch, dealt out to the ranks by a
        ``RankBatchSampler``.
    valid_loader : torch.utils.data.DataLoader or None
        The same batches in each epoch and on each rank. None where ``valid_csv`` is.
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
        logger.info(f"min_seconds: {min_seconds:g} is taken, nothing shorter can be trained on")
        remedy = f"a masked span needs {min_seconds:g} seconds, so set mask_length: lower"

    def loader(manifest, shuffle):
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
            # Each iterator draws a seed for its workers: not from what dropout draws from.
            generator=torch.Generator().manual_seed(hparams["seed"]),
        )

    train_loader = loader(hparams["train_csv"], True)
    return train_loader, loader(hparams["valid_csv"], False) if hparams["valid_csv"] else None


def make_batches(dataset, hparams, shuffle):
    """The sampler of an epoch's batches, for one rank that takes them all."""
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
