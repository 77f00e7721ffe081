"""From SpeechBrain manifests to loaders of audio."""

import csv
import os

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler

COLUMNS = ("ID", "duration", "wav")


class RankBatchSampler(DynamicBatchSampler):
    """SpeechBrain's dynamic batches, the same list on every rank, dealt out in turns.

    Batch k of an epoch goes to rank k modulo the number of ranks, so that the steps of several
    ranks are those of one rank that accumulates as many batches. The last turn begins again from
    the first batch, so that every rank has as many. (In SpeechBrain 1.1.2 the sampler makes the
    same batches in every epoch unless it is distributed, and its distributed wrapper
    shuffles the list again and yields single items where a rank has one batch.)

    Arguments
    ---------
    dataset : DynamicItemDataset
        Items with a ``duration``.
    rank : int
        This process.
    world_size : int
        Processes of the run.
    **kwargs : dict
        Arguments of ``speechbrain.dataio.sampler.DynamicBatchSampler``.
    """

    def __init__(self, dataset, *, rank=0, world_size=1, **kwargs):
        super().__init__(dataset, **kwargs)
        self.rank = rank
        self.world_size = world_size

    def __iter__(self):
        total = len(self) * self.world_size
        for index in range(self.rank, total, self.world_size):
            yield self._batches[index % len(self._batches)]

    def __len__(self):
        return -(-len(self._batches) // self.world_size)


def load_dataset(manifest, data_folder, min_seconds=0.0, max_seconds=float("inf")):
    """Audio of a manifest, after a check of the manifest itself.

    Arguments
    ---------
    manifest : str
        CSV file with the columns ID, duration (seconds) and wav.
    data_folder : str
        What ``$data_root`` in the manifest stands for.
    min_seconds : float
        Shorter clips are left out.
    max_seconds : float
        Longer clips are left out.

    Returns
    -------
    dataset : DynamicItemDataset
        Items ``id``, ``sig`` (the waveform, one-dimensional) and ``duration``.

    Raises
    ------
    ValueError
        Where the manifest is missing, lacks a column, has no row, or a first file that is not
        there.
    """
    rows = check_manifest(manifest)
    first = rows[0]["wav"].replace("$data_root", str(data_folder))
    if not os.path.isfile(first):
        raise ValueError(
            f"{manifest}: the audio file {first} of {rows[0]['ID']!r} does not exist; "
            f"set data_folder: to the folder that $data_root stands for"
        )
    dataset = DynamicItemDataset.from_csv(manifest, replacements={"data_root": str(data_folder)})
    dataset = dataset.filtered_sorted(
        key_min_value={"duration": min_seconds}, key_max_value={"duration": max_seconds}
    )
    if not len(dataset):
        raise ValueError(
            f"{manifest}: none of its {len(rows)} clips is between {min_seconds} and {max_seconds} "
            f"seconds long; change min_seconds: and max_seconds: in your YAML"
        )

    @sb.utils.data_pipeline.takes("wav")
    @sb.utils.data_pipeline.provides("sig")
    def audio_pipeline(wav):
        return sb.dataio.dataio.read_audio(wav)

    dataset.add_dynamic_item(audio_pipeline)
    dataset.set_output_keys(["id", "sig", "duration"])
    return dataset


def check_manifest(manifest):
    """Rows of a CSV manifest, or a ValueError that says what is wrong with it."""
    if not os.path.isfile(manifest):
        raise ValueError(
            f"there is no manifest {manifest}; set train_csv: and valid_csv: in your YAML to CSV "
            f"files with the columns {', '.join(COLUMNS)}"
        )
    with open(manifest, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns, rows = reader.fieldnames or [], list(reader)
    for column in COLUMNS:
        if column not in columns:
            raise ValueError(
                f"{manifest} lacks the column {column!r}, it has {', '.join(columns) or 'none'}; "
                f"add the column"
            )
    if not rows:
        raise ValueError(f"{manifest} has no rows: add a line for each audio file")
    return rows


def make_loaders(hparams):
    """Loaders of the training and validation audio that the YAML describes.

    Arguments
    ---------
    hparams : dict
        Reads ``train_csv``, ``valid_csv``, ``data_folder``, ``batch_seconds``, ``num_buckets``,
        ``min_seconds``, ``max_seconds``, ``num_workers`` and ``seed``.

    Returns
    -------
    train_loader : SaveableDataLoader
        Other batches in each epoch, dealt out to the ranks.
    valid_loader : SaveableDataLoader
        The same batches in each epoch and on each rank.
    """
    rank = sb.utils.distributed.get_rank() or 0
    distributed = sb.utils.distributed.is_distributed_initialized()
    world_size = torch.distributed.get_world_size() if distributed else 1

    def loader(manifest, shuffle, **ranks):
        dataset = load_dataset(
            manifest, hparams["data_folder"], hparams["min_seconds"], hparams["max_seconds"]
        )
        sampler = RankBatchSampler(
            dataset,
            max_batch_length=hparams["batch_seconds"],
            num_buckets=hparams["num_buckets"],
            shuffle=shuffle,
            batch_ordering="random" if shuffle else "ascending",
            seed=hparams["seed"],
            **ranks,
        )
        return SaveableDataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=PaddedBatch,
            num_workers=hparams["num_workers"],
            persistent_workers=hparams["num_workers"] > 0,
        )

    train_loader = loader(hparams["train_csv"], True, rank=rank, world_size=world_size)
    return train_loader, loader(hparams["valid_csv"], False)
