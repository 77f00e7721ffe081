"""How well a linear classifier reads labels from frozen features, layer by layer.

Nothing here knows of audio or of a Brain: features are arrays, so those of any encoder will do.
Shape suffixes: T frames of one utterance, D dim, R rows: frames, or one per utterance.
"""

import numpy as np

from ..functional.imports import import_late

ALPHA = 100.0  # of the ridge, on features of unit variance


def probe_layers(layers, labels, *, seed, context=0, progress=iter):
    """Accuracies of a ridge classifier on each layer, with two thirds of the training utterances.

    Arguments
    ---------
    layers : dict
        For ``train``, ``valid`` and ``test``: a list of layers, each a list of utterances, each an
        array (rows, dim). An utterance has a row per frame, or one row, its mean over time.
    labels : dict
        For the same three: a list of utterances, each an array (rows,) of labels.
    seed : int
        Draws the training utterances; the same for any features.
    context : int
        Rows on both sides of each row that the classifier also gets.
    progress : callable
        Iterates over the numbers of the layers and shows its progress, as ``tqdm`` does.

    Returns
    -------
    accuracies : list of tuple
        (valid, test) of each layer, shares of the rows.

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


def summarise(accuracies):
    """Test accuracies: of each layer by seed, and of the layer that is best on validation.

    Arguments
    ---------
    accuracies : list
        By seed, by layer: (valid, test), as ``probe_layers`` gives them for each seed.

    Returns
    -------
    summary : dict
        ``valid_layers`` and ``layers`` (of the test set), seeds x layers; ``best_layer`` (from 1),
        chosen on validation; ``mean`` and ``spread`` (standard deviation over seeds) of its test
        accuracy.

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


def majority_accuracy(labels):
    """Test accuracy of always saying the commonest label of the training utterances.

    Example
    -------
    >>> majority_accuracy({"train": [np.array(["a", "a", "b"])], "test": [np.array(["b", "a"])]})
    0.5
    """
    names, counts = np.unique(np.concatenate(labels["train"]), return_counts=True)
    return float((np.concatenate(labels["test"]) == names[counts.argmax()]).mean())


def windows(frames_TD, context):
    """Each frame with its neighbours side by side; the edges are repeated.

    Example
    -------
    >>> windows(np.array([[1], [2], [3]]), 1).tolist()
    [[1, 1, 2], [1, 2, 3], [2, 3, 3]]
    """
    index = np.arange(len(frames_TD))[:, None] + np.arange(-context, context + 1)
    return frames_TD[index.clip(0, len(frames_TD) - 1)].reshape(len(frames_TD), -1)
