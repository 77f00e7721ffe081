"""Folders of runs as brainquant writes them, with numbers that are made up."""

import json

HPARAMS = """# Generated 2026-01-01 from:
# {recipe}
# yamllint disable
seed: {seed}
brain_class: !name:brainquant.brains.{brain}
output_folder: {folder}
train_loggers:
- !new:speechbrain.utils.train_logger.FileTrainLogger {{save_file: {folder}/train_log.txt}}
data_folder: {data}
valid_csv: {data}/valid.csv
optimizer_step_limit: {limit}
lr: {lr}
warmup_steps: {warmup}
optimizer: !name:torch.optim.AdamW {{lr: {lr}, betas: [0.9, 0.98]}}
{more}
make_quantiser: &id001 !name:brainquant.{quantiser}
quantiser: !apply:brainquant.quantisers.make_quantiser {{make: *id001, input_dim: 320}}
"""
BEST_RQ = {
    "brain": "BestRQBrain",
    "more": "mask_ratio: 0.5",
    "quantiser": "RandomProjectionQuantizer {cb_vocab: 64, seed: 5}",
}
WAV2VEC2 = {
    "brain": "Wav2Vec2Brain",
    "more": "mask_ratio: 0.49\nnum_negatives: 100",
    "quantiser": "GumbelVectorQuantizer {num_vars: 32, groups: 2}",
}


def make_run(folder, steps=200, *, loss=3.0, phones=0.5, log=None, **values):
    """Writes a run of a number of steps; every hundredth has a validation.

    Arguments
    ---------
    folder : pathlib.Path
        A new folder.
    steps : int
        Steps that are done.
    loss : float
        Of the last validation; each earlier one is 0.5 higher.
    phones : float
        Accuracy of the probe.
    log : dict
        More fields of each log point.
    **values : object
        Of its YAML: ``seed``, ``limit``, ``lr``, ``warmup``, ``data``, ``recipe``, ``brain``,
        ``quantiser`` and ``more``, which is text.
    """
    values = {
        "seed": 1, "limit": 200, "lr": 0.001, "warmup": 20, "data": "/data", "recipe": "nowhere",
        **BEST_RQ, **values,
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "hyperparams.yaml").write_text(HPARAMS.format(folder=folder, **values), "utf-8")
    lines = []
    for step in range(50, steps + 1, 50):
        point = {"step": step, "epoch": step // 100 + 1, "stage": "train", "span": "interval"}
        point |= {"loss": loss + (steps - step) / 200, "unigram_loss": 4.0, "accuracy": 0.25}
        point |= {"commonest_code": 0.125, "code_perplexity": [40.0], "perplexity_cap": 64}
        point |= {"code_usage": 0.75, "dead_codes": 16, "frames": 5000, "speech_per_second": 90.0}
        point |= {
            "run_seconds": 2.0 * step,
            "speech_seconds": 36.0 * step,
            "lr": 0.001,
            **(log or {}),
        }
        point |= log or {}
        lines.append(point)
        if step % 100 == 0:
            lines.append({**point, "stage": "valid", "span": "epoch"})
    if lines:
        for name, value, start in (("effective_rank", 50.0, 90.0), ("units_repeat", 0.25, 0.125)):
            lines[-1] |= {name: [value, value], f"mean_{name}": value}
            lines[-1] |= {f"start_{name}": [start, start], f"start_mean_{name}": start}
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, "utf-8")
    (folder / "phones.json").write_text(json.dumps(probe(phones)), "utf-8")
    (folder / "log.txt").write_text(
        "00:00 - a - INFO - In force:\n  device: cpu  precision: fp32\n"
    )
    (folder / "env.log").write_text("Python version:\n3.11.7 (main)\n====\ntorch==2.11.0\n")
    checkpoint = folder / "save" / "CKPT+2026-01-01+00-00-00+00"
    checkpoint.mkdir(parents=True)
    (checkpoint / "CKPT.yaml").write_text(f"end-of-epoch: true\nstep: {steps}\nunixtime: 1.5\n")
    (checkpoint / "encoder.ckpt").write_bytes(bytes(20_000))
    leave_out(folder, ("clip", "a", "a.wav: cannot be read"), ("step", 150, "loss is not finite"))
    return folder


def leave_out(folder, *entries):
    """Writes clips and steps that were left out."""
    with open(folder / "left_out.jsonl", "a", encoding="utf-8") as file:
        for kind, what, reason in entries:
            record = {"kind": kind, "step": 100, "reason": reason}
            record |= {"id": what} if kind == "clip" else {"step": what, "epoch": 1, "ids": [[]]}
            file.write(json.dumps(record) + "\n")


def probe(mean, of="phones"):
    """What a probe of an encoder of two layers writes."""

    def row(mean, layers):
        by_seed = [[mean] * layers, [mean] * layers]
        best = {"best_layer": layers, "mean": mean, "spread": 0.01}
        return {"layers": by_seed, "valid_layers": by_seed, "inputs": 80, **best}

    return {
        "of": of, "utterances": {"train": 9, "valid": 5, "test": 7}, "left_out": {}, "num_seeds": 2,
        "majority": 0.125,
        "accuracies": {
            "log-mel": row(0.375, 1), "untrained front end": row(0.4375, 1),
            "untrained encoder": row(0.4, 2), "pretrained encoder": row(mean, 2),
        },
        "effective_rank": {"untrained encoder": [9.0, 8.0], "pretrained encoder": [7.0, 6.0]},
        "codes": {
            "phone_purity": 0.5, "cluster_purity": 0.25, "pnmi": 0.5, "code_perplexity": 40.0,
            "frames": 700, "shuffled": {},
        },
        "abx": {
            "phones": 99, "speakers": 4, "across": None,
            "within": {
                "log-mel": [0.25], "untrained encoder": [0.3, 0.3],
                "pretrained encoder": [0.2, 0.21], "codes": [0.35],
            },
        },
    }  # fmt: skip
