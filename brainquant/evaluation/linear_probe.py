"""Predicts labels from frozen features with a linear classifier, layer by layer.

Features are arrays, so they can come from any encoder; nothing here needs audio or a Brain.
Shape suffixes: T frames of one utterance, D dim, R rows: frames, or one per utterance.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..functional.imports import import_late

ALPHA = 100.0  # strength of the ridge penalty, for features of unit variance

# For each split: layers, utterances, arrays.
Layers = Mapping[str, Sequence[Sequence[np.ndarray]]]
# For each split: utterances, arrays.
Labels = Mapping[str, Sequence[np.ndarray]]


def probe_layers(
    layers: Layers,
    labels: Labels,
    *,
    seed: int,
    context: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[tuple[float, float]]:
    """Fits a ridge classifier to each layer, on two thirds of the training utterances.

    Arguments
    ---------
    layers : dict
        For ``train``, ``valid`` and ``test``: a list of layers, each a list of utterances, each an
        array (rows, dim). An utterance has one row per frame, or a single row, its mean over time.
    labels : dict
        For the same three: a list of utterances, each an array (rows,) of labels.
    seed : int
        Draws the training utterances. The draw does not depend on the features.
    context : int
        How many rows on each side of a row the classifier gets as well.
    progress : callable
        Iterates over the layer numbers and may show the progress, as ``tqdm`` does.

    Returns
    -------
    accuracies : list of tuple
        (valid, test) for each layer: shares of the rows that are classified correctly.

    Example
    -------
    >>> utterances = [np.eye(3), np.eye(3), 2 * np.eye(3)]
    >>> names = [np.array(["a", "b", "c"])] * 3
    >>> splits = ("train", "valid", "test")
    >>> probe_layers({s: [utterances] for s in splits}, {s: names for s in splits}, seed=0)
    [(1.0, 1.0)]
    """
    chosen = np.random.default_rng(seed).permutation(len(labels["train"]))
    chosen = chosen[: max(1, len(chosen) * 2 // 3)]

    def rows(split, layer, indices):
        utterances = layers[split][layer]
        x_RD = np.concatenate([windows(utterances[index], context) for index in indices])
        return x_RD, np.concatenate([labels[split][index] for index in indices])

    RidgeClassifier = import_late("sklearn.linear_model").RidgeClassifier
    StandardScaler = import_late("sklearn.preprocessing").StandardScaler
    make_pipeline = import_late("sklearn.pipeline").make_pipeline
    accuracies = []
    for layer in progress(range(len(layers["train"]))):
        classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=ALPHA))
        classifier.fit(*rows("train", layer, chosen))
        valid, test = (
            float(classifier.score(*rows(split, layer, range(len(labels[split])))))
            for split in ("valid", "test")
        )
        accuracies.append((valid, test))
    return accuracies


def summarise(accuracies: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Chooses the layer that is best on validation and summarises its test accuracy over seeds.

    Arguments
    ---------
    accuracies : list
        The result of ``probe_layers`` for each seed.

    Returns
    -------
    summary : dict
        ``valid_layers`` and ``layers``: accuracies on the validation and the test set, seeds x
        layers. ``best_layer``: the chosen layer, from 1. ``mean`` and ``spread``: mean and standard
        deviation of its test accuracy over seeds.

    Example
    -------
    >>> summarise([[(0.5, 0.4), (0.3, 0.9)], [(0.5, 0.6), (0.3, 0.9)]])["mean"]
    0.5
    """
    scores = np.array(accuracies)  # seeds, layers, (valid, test)
    best = int(scores[..., 0].mean(0).argmax())
    return {
        "valid_layers": scores[..., 0].tolist(),
        "layers": scores[..., 1].tolist(),
        "best_layer": best + 1,
        "mean": float(scores[:, best, 1].mean()),
        "spread": float(scores[:, best, 1].std()),
    }


def majority_accuracy(labels: Labels) -> float:
    """Test accuracy of a classifier that always gives the most common training label.

    Example
    -------
    >>> majority_accuracy({"train": [np.array(["a", "a", "b"])], "test": [np.array(["b", "a"])]})
    0.5
    """
    names, counts = np.unique(np.concatenate(labels["train"]), return_counts=True)
    return float((np.concatenate(labels["test"]) == names[counts.argmax()]).mean())


def windows(frames_TD: np.ndarray, context: int) -> np.ndarray:
    """Joins each frame with its neighbours; repeats the first and last frame at the edges.

    Example
    -------
    >>> windows(np.array([[1], [2], [3]]), 1).tolist()
    [[1, 1, 2], [1, 2, 3], [2, 3, 3]]
    """
    index = np.arange(len(frames_TD))[:, None] + np.arange(-context, context + 1)
    return frames_TD[index.clip(0, len(frames_TD) - 1)].reshape(len(frames_TD), -1)
