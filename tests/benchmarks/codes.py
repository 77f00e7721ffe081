"""Which codes are worth predicting: what the targets of BEST-RQ say about phones, and how evenly.

> python tests/benchmarks/codes.py --train_csv t.csv --labelled_csv l.csv --data_folder <corpus> \
    --alignments <folder>

Nothing is trained: the frames of the first manifest fit what is to be fitted, those of the second
have phones. Features are those of recipes/ToySpeech, 4 frames of 80 bins each 40 ms. Each row is a
mean over three draws of the tables. PNMI is the part of the phones' entropy that a code takes away,
beside that of the same codes shuffled: what many codes on few frames show by chance. The effective
dimension is (sum of variances)^2 / sum of their squares, of the projected vectors.
"""

import argparse
import itertools

import numpy as np
import torch
from measure import machine, print_table
from sklearn.cluster import MiniBatchKMeans
from speechbrain.lobes.features import Fbank

from brainquant import RandomProjectionQuantizer, RefinedProjectionQuantizer
from brainquant.data.alignments import find_alignments, phones_at, read_alignment
from brainquant.data.audio import AudioReader
from brainquant.data.manifests import load_dataset
from brainquant.evaluation import code_phone_statistics
from brainquant.models.features import stack_frames
from brainquant.quantisers import Clips

STACK, RATE, HOP = 4, 16000, 0.01
SEEDS = range(3)
QUANTISERS = {
    "8192 (stock)": {"cb_dim": 16, "cb_vocab": 8192},
    "1024": {"cb_dim": 16, "cb_vocab": 1024},
    "256": {"cb_dim": 16, "cb_vocab": 256},
    "4 x 2048": {"cb_dim": 16, "cb_vocab": 2048, "num_codebooks": 4},
    **{
        f"{codes}, whitened, {dim} of 320": {"cb_dim": dim, "cb_vocab": codes, "whiten": True}
        for dim, codes in itertools.product((4, 8, 16, 32), (256, 1024, 8192))
    },
    "1024, refined, 8 of 320": {
        "cb_dim": 8, "cb_vocab": 1024, "whiten": True, "refine_steps": [25, 50, 100, 200]
    },
}  # fmt: skip
FRAMES_PER_STEP = 600  # of batches of 24 s


def read_features(manifest, data_folder):
    """Log-mel frames of each clip, by ID."""
    reader = AudioReader(RATE, resample=True, mix_down=True)
    compute = Fbank(sample_rate=RATE, n_fft=400, n_mels=80)
    clips = load_dataset(manifest, data_folder, reader=reader)
    with torch.no_grad():
        return {clip["id"]: compute(clip["sig"][None])[0] for clip in clips}


def normalisers(feats):
    """Ways to normalise the features of a clip; the last one knows the whole corpus."""
    frames_NF = torch.cat(list(feats.values()))
    mean_F, std_F = frames_NF.mean(0), frames_NF.std(0)
    return {
        "sentence": lambda feats_TF: (feats_TF - feats_TF.mean(0)) / feats_TF.std(0),
        "bins over the corpus": lambda feats_TF: (feats_TF - mean_F) / std_F,
    }


def stacked(feats, normalise):
    """Normalised frames of all clips in whole stacks, shape (frames, 320)."""
    whole = [f[: len(f) // STACK * STACK] for f in map(normalise, feats.values())]
    return torch.cat([stack_frames(f[None], STACK)[0] for f in whole])


def phones_of(feats, folder):
    """The phone at the middle of each stack of all clips."""
    alignments, phones = find_alignments(folder), []
    for name, feats_TF in feats.items():
        times = (np.arange(len(feats_TF) // STACK) + 0.5) * STACK * HOP - HOP / 2
        phones.append(phones_at(times, read_alignment(alignments[name])))
    return np.concatenate(phones)


def effective_dim(x_ND):
    """Of the directions in which vectors vary."""
    variances_D = torch.linalg.eigvalsh(x_ND.double().T.cov()).clamp(min=0)
    return float(variances_D.sum() ** 2 / variances_D.square().sum())


def build(arguments, seed, x_NI):
    """A quantiser that is fitted to frames, and refined by steps of them."""
    kind = RefinedProjectionQuantizer if "refine_steps" in arguments else RandomProjectionQuantizer
    quantiser = kind(x_NI.shape[1], **arguments, seed=seed)
    if quantiser.frames_to_fit:
        quantiser.fit(x_NI[torch.randperm(len(x_NI))[: quantiser.frames_to_fit]])
    for step in range(max(arguments.get("refine_steps", [0]))):
        quantiser.update_temp(step)
        x_1NI = x_NI[torch.randperm(len(x_NI))[:FRAMES_PER_STEP]][None]
        quantiser.encode_clips(Clips(["all"], x_1NI, torch.ones(1), x_1NI))
    return quantiser


def row(normalisation, codes, draws, phones, dims):
    """A row of the table, from the codes (frames, codebooks) of each draw."""
    found = [code_phone_statistics(codes_NG, phones) for codes_NG in draws]
    shares = [np.sort(np.bincount(c[:, 0]))[::-1] / len(c) for c in draws]
    pnmi, shuffled = (np.mean(x) for x in zip(*((f["pnmi"], f["shuffled"]["pnmi"]) for f in found)))
    return {
        "features normalised by": normalisation,
        "codes": codes,
        "effective dim": float(np.mean(dims)) if dims else None,
        "perplexity": float(np.mean([f["code_perplexity"] for f in found])),
        "commonest %": 100 * float(np.mean([s[0] for s in shares])),
        "ten commonest %": 100 * float(np.mean([s[:10].sum() for s in shares])),
        "PNMI": float(pnmi),
        "shuffled": float(shuffled),
        "above it": float(pnmi - shuffled),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option in ("train_csv", "labelled_csv", "data_folder", "alignments"):
        parser.add_argument(f"--{option}", required=True)
    options = parser.parse_args()
    train = read_features(options.train_csv, options.data_folder)
    labelled = read_features(options.labelled_csv, options.data_folder)
    phones = phones_of(labelled, options.alignments)
    print(machine(), f"{len(phones)} labelled frames", sep="; ")
    rows = []
    for normalisation, normalise in normalisers(train).items():
        x_NI, y_NI = stacked(train, normalise), stacked(labelled, normalise)
        for name, arguments in QUANTISERS.items():
            draws, dims = [], []
            for seed in SEEDS:
                quantiser = build(arguments, seed, x_NI)
                draws.append(quantiser.encode(y_NI[None])[0].numpy())
                P_ID = quantiser.P if quantiser.num_codebooks == 1 else quantiser.P[0]
                dims.append(effective_dim(x_NI @ P_ID))
            rows.append(row(normalisation, name, draws, phones, dims))
        for clusters in (100, 500):
            kmeans = MiniBatchKMeans(clusters, batch_size=5000, random_state=0, n_init=1)
            codes_NG = kmeans.fit(x_NI.numpy()).predict(y_NI.numpy())[:, None]
            rows.append(row(normalisation, f"{clusters}, k-means", [codes_NG], phones, []))
    print_table("targets of BEST-RQ", rows)


if __name__ == "__main__":
    main()
