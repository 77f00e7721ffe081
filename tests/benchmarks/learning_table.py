"""The table and the figure of learning.py."""

import numpy as np
from matplotlib.figure import Figure

ABX = ("within", "across")


def accuracies(by_speaker, layer=None):
    """Test accuracy of each speaker: of a layer, or else of the one that another speaker chose."""
    layers = {speaker: np.array(pairs) for speaker, pairs in by_speaker.items()}
    return {s: x[x[:, 0].argmax() if layer is None else layer, 1] for s, x in layers.items()}


def mean_of(by_speaker, speakers=None):
    """Mean over speakers: over all, or some."""
    chosen = [x for speaker, x in by_speaker.items() if speakers is None or speaker in speakers]
    return 100 * float(np.mean(chosen))


def shown(values):
    """Mean and spread."""
    spread = f" +- {np.std(values):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def summarise(results, references, budgets, tuning_speakers):
    """A row for each encoder and probe: means over speakers, and their spread over seeds."""

    def row(probe, encoder, by_seed, **columns):
        chosen, last = ([accuracies(x, layer) for x in by_seed] for layer in (None, -1))
        telling = set(chosen[0]) - set(tuning_speakers)
        choosing = set(chosen[0]) - telling
        layers = range(len(next(iter(by_seed[0].values()))))
        by_layer = [shown([mean_of(accuracies(x, n)) for x in by_seed]) for n in layers]
        parts = {"choosing": choosing, "telling": telling} if choosing else {}
        return {
            "probe": probe,
            "encoder": encoder,
            **{
                f"{layer}{', ' if part else ''}{part}": shown([mean_of(x, who) for x in found])
                for layer, found in (("last layer", last), ("chosen layer", chosen))
                for part, who in {"": None, **parts}.items()
            },
            "by layer": " ".join(x.split()[0] for x in by_layer),
            "seeds": len(by_seed),
            **{key: columns.get(key) for key in ("steps", "seconds")},
            **{f"ABX {key}": columns.get(key) for key in ABX},  # of the last layer
        }

    rows = []
    kinds = dict.fromkeys((r["method"], r["budget"]) for r in results)
    for probe in references["log-mel"]:
        rows += [
            row(probe, name, references[name][probe]) for name in references if references[name]
        ]
        for kind in sorted(kinds, key=lambda kind: budgets.index(kind[1])):
            found = [r for r in results if (r["method"], r["budget"]) == kind]
            columns = {key: float(np.mean([r[key] for r in found])) for key in ("steps", "seconds")}
            name = ", ".join(kind)
            if all(probe in r["abx"] for r in found):
                errors = [r["abx"][probe][-1] for r in found]
                columns |= {key: shown([100 * e[key] for e in errors]) for key in ABX}
            rows.append(row(probe, name, [r["probes"][probe] for r in found], **columns))
    return rows


def draw_curve(results, file):
    """Accuracy of the last layer over seconds, a panel for each probe, a line for each method."""
    names = list(results[0]["probes"])
    figure = Figure(figsize=(5.5 * len(names), 4.4), dpi=120, layout="constrained")
    kinds = dict.fromkeys((r["method"], r["budget"]) for r in results)
    for axis, probe in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        for kind in kinds:
            runs = [r["points"] for r in results if (r["method"], r["budget"]) == kind]
            runs = [[p for p in points if "probes" in p] for points in runs]
            seconds = np.mean([[p["seconds"] for p in points] for points in runs], 0)
            scores = [
                [mean_of(accuracies(p["probes"][probe], -1)) for p in points] for points in runs
            ]
            axis.plot(seconds, np.mean(scores, 0), marker="o", ms=4, label=", ".join(kind))
        axis.set(title=probe, xlabel="seconds of one thread", ylabel="last layer, % correct")
        axis.legend()
    figure.savefig(file)
