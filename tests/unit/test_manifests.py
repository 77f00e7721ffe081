"""Manifests become batches that are the same everywhere, or one clear error."""

import pytest

from brainquant.data.manifests import RankBatchSampler, load_dataset, make_loaders

HEADER = "ID,duration,wav,spk_id,text\n"


def batches(dataset, epoch, rank=0, world_size=1):
    sampler = RankBatchSampler(
        dataset, max_batch_length=10, num_buckets=4, seed=7, rank=rank, world_size=world_size
    )
    sampler.set_epoch(epoch)
    listed = list(sampler)
    assert len(listed) == len(sampler)
    return listed


@pytest.fixture(scope="module")
def dataset(corpus):
    return load_dataset(f"{corpus}/train.csv", corpus)


def test_an_epoch_has_each_clip_once_and_other_batches_than_the_last(dataset):
    first, second = batches(dataset, 1), batches(dataset, 2)
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(len(dataset)))
    assert first != second and first == batches(dataset, 1)


@pytest.mark.parametrize("world_size", [2, 3, 100])
def test_ranks_take_the_batches_of_one_rank_in_turns_and_have_as_many(dataset, world_size):
    whole = batches(dataset, 1)
    ranks = [batches(dataset, 1, rank, world_size) for rank in range(world_size)]
    assert len({len(listed) for listed in ranks}) == 1
    dealt = [batch for turn in zip(*ranks) for batch in turn]
    assert dealt[: len(whole)] == whole


def test_loaders_read_audio_and_keep_validation_the_same(corpus):
    hparams = {
        "train_csv": f"{corpus}/train.csv", "valid_csv": f"{corpus}/valid.csv",
        "data_folder": corpus, "min_seconds": 0.0, "max_seconds": 60.0, "batch_seconds": 10,
        "num_buckets": 4, "num_workers": 0, "seed": 1,
    }  # fmt: skip
    train_loader, valid_loader = make_loaders(hparams)
    batch = next(iter(train_loader))
    assert batch.sig.data.dim() == 2 and batch.sig.data.abs().max() > 0.01
    assert [b.id for b in valid_loader] == [b.id for b in valid_loader]


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "there is no manifest"),
        ("", "lacks the column 'ID', it has none"),
        ("ID,wav\n", "lacks the column 'duration', it has ID, wav"),
        (HEADER, "has no rows"),
        (HEADER + "a,1.0,$data_root/nothing.wav,s,t\n", "nothing.wav of 'a' does not exist"),
    ],
)
def test_a_wrong_manifest_gets_one_clear_error(tmp_path, text, message):
    manifest = tmp_path / "train.csv"
    if text is not None:
        manifest.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        load_dataset(str(manifest), tmp_path)


def test_clips_of_no_fitting_length_are_an_error(corpus):
    with pytest.raises(ValueError, match="none of its .* clips is between 100 and 200"):
        load_dataset(f"{corpus}/train.csv", corpus, 100, 200)
