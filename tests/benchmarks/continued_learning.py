"""What continuing a model on another domain gives: beside from scratch, and beside not continuing.

> python tests/benchmarks/continued_learning.py wav2vec2 --seed 0 \
    --old <LibriSpeech/train-clean-100> --new <speechocean/wavs> --data_folder <corpus> \
    --output results/continued --new_probe speechocean.csv spk_id \
    --old_probe test-other.csv <folder of phone alignments>

A seed pretrains a small wav2vec 2.0 of transformers on the old folder, from random weights, and
writes it as a folder of transformers. That model is then continued on the new folder, once for each
row of the table, with continue_wav2vec2.yaml or, as an encoder without heads, continue_masked.yaml.
Another one is trained there from random weights for the same seconds of speech. Each is validated
on the new and on the old folder's validation speech, with the same masks and negatives, and probed
on both. A row of masked prediction begins with a new head; "not continued" trains that head alone.

Speakers (spk_id) are read from means over time, of utterances that the classifier has not seen.
Other columns, and phones frame by frame, are read from speakers whom it has not heard
(speakers.py). The layer is chosen on other utterances or speakers than it is tested on. Seeds may
run side by side, on one thread each (OMP_NUM_THREADS=1). What is finished is not done again, and
the table of all seeds whose files are in the output folder is printed. --key=value changes a key
of all runs.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from measure import machine, print_table
from speakers import SpeakersProbe

from brainquant.evaluation import probe_layers
from brainquant.evaluation.frozen import encode
from brainquant.evaluation.utterances import load_utterances
from brainquant.huggingface.library import import_transformers
from brainquant.recipe import build_brain, build_loaders
from brainquant.training.hparams import load_hparams, parse_arguments

HPARAMS = Path(__file__).resolve().parents[2] / "recipes/OwnSpeech/hparams"
SIZES = {
    "hidden_size": 144, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 576,
    "conv_dim": [32, 32, 64, 64, 128, 128, 128], "num_conv_pos_embeddings": 64,
    "num_conv_pos_embedding_groups": 8, "num_codevectors_per_group": 320, "codevector_dim": 128,
    "proj_codevector_dim": 128, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0,
    "activation_dropout": 0.0, "feat_proj_dropout": 0.0, "feat_extract_norm": "layer",
    "do_stable_layer_norm": True, "conv_bias": True,
}  # fmt: skip
# Of all runs. Small batches of short clips, since at this size the number of steps counts.
SHARED = {
    "batch_seconds": 5, "max_seconds": 5, "mask_length": 6, "valid_share": 0.15, "num_workers": 0,
    "grad_accumulation_factor": 1, "log_interval": 100, "hang_minutes": 0, "keep_checkpoints": 1,
}  # fmt: skip
# Weights of wav2vec 2.0 as in recipes/ToySpeech: the paper's collapse at this size.
KEYS = {
    "wav2vec2": {**SHARED, "aux_weight": 0.5, "penalty_weight": 0.1},
    "masked": {**SHARED, "unmasked_weight": 1, "min_seconds": 0.3},
}
FROM_SCRATCH = {
    "wav2vec2": {"lr": 0.0005, "parts": "{temp_tuple: [2.0, 0.5, 0.999]}"},
    "masked": {"lr": 0.0008, "freeze_steps": 0},
}
CONTINUED = {
    "wav2vec2": {"lr": 0.0001, "warmup_steps": 30},
    "masked": {"lr": 0.0002, "warmup_steps": 30, "freeze_steps": 30},
}
NOT_CONTINUED = "not continued"  # of masked prediction only the new head is trained
FASTER = "continued, lr as from scratch"


def rows_of(recipe):
    """What each row of the table changes in the YAML."""
    scratch = {**FROM_SCRATCH[recipe], "warmup_steps": 100}
    faster = {**CONTINUED[recipe], "lr": scratch["lr"]}
    return {
        NOT_CONTINUED: {**faster, "freeze_steps": 10**6},
        "from scratch": scratch,
        "continued": CONTINUED[recipe],
        FASTER: faster,
        "continued, that and pull_to_start 20": {**faster, "pull_to_start": 20},
        "continued, that and layer_decay 0.5": {**faster, "layer_decay": 0.5},
    }


def open_recipe(options, folder, source, model, change, steps=1000):
    """The Brain of a recipe that continues models and its loaders, for one source of speech."""
    keys = {
        "seed": options.seed, "output_folder": folder, "source": source, "model": model,
        "manifest_folder": f"{options.output}/manifests/{Path(source).name}",
        "optimizer_step_limit": steps, **KEYS[options.recipe], **change,
        **dict(argument.removeprefix("--").split("=", 1) for argument in options.change),
    }  # fmt: skip
    argv = [f"{HPARAMS}/continue_{options.recipe}.yaml", "--noprogressbar"]
    for key, value in keys.items():
        argv += [f"--{key}", str(value)]
    hparams_file, run_opts, overrides = parse_arguments(argv)
    hparams = load_hparams(hparams_file, overrides)
    os.makedirs(folder, exist_ok=True)
    hparams["prepare"]()
    brain = build_brain(hparams, run_opts)
    return brain, build_loaders(brain, hparams)


def count_steps(train_loader, seconds):
    """Steps that see so many seconds of speech, over epochs."""
    durations = [float(clip["duration"]) for clip in train_loader.dataset.data.values()]
    return round(seconds / sum(durations) * len(train_loader.batch_sampler))


def train(options, name, source, model, seconds, change):
    """Trains for so many seconds of speech; the Brain, its loaders, and the processor's seconds."""
    folder = f"{options.output}/runs/{options.seed}_{name.replace(' ', '_').replace(',', '')}"
    _, (train_loader, _) = open_recipe(options, folder, source, model, change)
    steps = count_steps(train_loader, seconds)
    brain, loaders = open_recipe(options, folder, source, model, change, steps)
    began = time.process_time()
    brain.fit(brain.hparams.epoch_counter, *loaders)
    return brain, loaders, time.process_time() - began


def save_random(folder, seed):
    """Writes a Wav2Vec2ForPreTraining of random weights."""
    transformers = import_transformers()
    torch.manual_seed(seed)
    config = transformers.Wav2Vec2Config(**SIZES)
    transformers.Wav2Vec2ForPreTraining(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


@torch.no_grad()
def save_trained(brain, like, folder):
    """Writes the modules of a Brain as the Wav2Vec2ForPreTraining that they came from."""
    transformers = import_transformers()
    model = transformers.Wav2Vec2ForPreTraining.from_pretrained(like)
    model.wav2vec2.load_state_dict(brain.raw("encoder").model.state_dict())
    if "target_proj" in brain.modules:
        model.project_q.load_state_dict(brain.raw("target_proj").state_dict())
        model.project_hid.load_state_dict(brain.raw("context_proj").state_dict())
        model.quantizer.codevectors.copy_(brain.quantiser.vars)
        model.quantizer.weight_proj.load_state_dict(brain.quantiser.weight_proj.state_dict())
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def probe(encoder, manifest, of, options):
    """Accuracy of the layer that other utterances or speakers chose, in per cent."""
    if of != "spk_id":
        speakers = SpeakersProbe(encoder, manifest, of, options.data_folder, options.seed)
        chosen = [max(layers) for layers in speakers.of_encoder(encoder).values()]
        return 100 * float(np.mean([test for _, test in chosen]))
    utterances, _ = load_utterances(manifest, options.data_folder, encoder, label=of)
    means = zip(*([x.mean(0, keepdims=True) for x in encode(encoder, u.sig)] for u in utterances))
    layers, folds, accuracies = [list(layer) for layer in means], 5, []
    for fold in range(folds):
        splits = {"train": [], "valid": [], "test": []}
        for index in range(len(utterances)):
            place = {fold: "test", (fold + 1) % folds: "valid"}.get(index % folds, "train")
            splits[place].append(index)
        by_layer = probe_layers(
            {s: [[layer[i] for i in chosen] for layer in layers] for s, chosen in splits.items()},
            {s: [utterances[i].labels for i in chosen] for s, chosen in splits.items()},
            seed=options.seed,
        )
        accuracies.append(max(by_layer)[1])
    return 100 * float(np.mean(accuracies))


def measure(options, brain, loaders, old_valid):
    """Validation losses on both domains, use of the codes, and probes."""
    brain.prepare_fit(*loaders)
    new, old = (brain.validate_between_steps(loader) for loader in (loaders[1], old_valid))
    encoder = brain.raw("encoder")
    numbers = {"new loss": new["loss"], "old loss": old["loss"], "new accuracy": new["accuracy"],
               "perplexity": new["code_perplexity_sum"]}  # fmt: skip
    for name in ("new_probe", "old_probe"):
        if getattr(options, name):
            numbers[name.replace("_", " ")] = probe(encoder, *getattr(options, name), options)
    return numbers


def run_seed(options):
    """Trains and measures what is not done yet of a seed."""
    output, seed = Path(options.output), options.seed
    random, trained = output / f"models/random_{seed}", output / f"models/old_{seed}"
    if not (random / "config.json").exists():
        save_random(random, seed)
    rows = rows_of(options.recipe)
    if not (trained / "config.json").exists():
        args = "old", options.old, random, options.old_seconds, rows["from scratch"]
        brain, *_ = train(options, *args)
        save_trained(brain, random, trained)
    folder = output / "runs" / f"{seed}_validation"
    _, (_, old_valid) = open_recipe(options, folder, options.old, trained, rows["continued"])
    for row in options.rows:
        path = output / f"{seed}_{row.replace(' ', '_')}.json"
        if path.exists():
            continue
        if row == NOT_CONTINUED and options.recipe == "wav2vec2":
            opened = open_recipe(options, folder, options.new, trained, rows["continued"])
            brain, loaders, seconds = *opened, 0.0
        else:
            model = random if row == "from scratch" else trained
            args = row, options.new, model, options.new_seconds, rows[row]
            brain, loaders, seconds = train(options, *args)
        numbers = measure(options, brain, loaders, old_valid)
        numbers |= {"row": row, "steps": brain.optimizer_step, "seconds": seconds}
        path.write_text(json.dumps(numbers), "utf-8")


def summarise(results, names):
    """A row for each way: means, and spreads over seeds."""
    rows = []
    for name in names:
        if found := [r for r in results if r["row"] == name]:
            columns = {"row": name, "seeds": len(found)}
            for key in found[0]:
                values = [r[key] for r in found]
                if key != "row":
                    columns[key] = f"{np.mean(values):.3f} +- {np.std(values):.3f}"
            rows.append(columns)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=KEYS)
    parser.add_argument("--seed", type=int, required=True)
    for option in ("old", "new", "data_folder", "output"):
        parser.add_argument(f"--{option}", required=True)
    parser.add_argument("--old_seconds", type=float, default=4000, help="of speech, over epochs")
    parser.add_argument("--new_seconds", type=float, default=2000, help="of speech, over epochs")
    for option in ("old_probe", "new_probe"):
        parser.add_argument(f"--{option}", nargs=2, metavar=("CSV", "OF"),
                            help="OF is a column, or a folder of phone alignments")  # fmt: skip
    names = list(rows_of("wav2vec2"))
    parser.add_argument("--rows", nargs="*", choices=names, default=names)
    options, options.change = parser.parse_known_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    run_seed(options)
    print(machine())
    results = [json.loads(p.read_text()) for p in sorted(Path(options.output).glob("*.json"))]
    print_table(
        "continued on another domain: means and spreads over seeds", summarise(results, names)
    )


if __name__ == "__main__":
    main()
