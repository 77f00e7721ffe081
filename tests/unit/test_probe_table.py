"""The table of a probe and its figure, whatever was measured."""

import numpy as np
import pytest
from matplotlib.image import imread

from brainquant.evaluation import format_table, summarise
from brainquant.evaluation.figure import draw_probe
from brainquant.evaluation.over_steps import format_steps
from brainquant.evaluation.steps_figure import draw_steps


def table_of(layers=3, of="phones", seeds=3, accuracy=0.5, **more):
    rng = np.random.default_rng(0)

    def summary(layers):
        scores = accuracy * rng.uniform(0.9, 1, (seeds, layers, 2))
        return {**summarise(scores), "inputs": 144}

    rank = np.linspace(100, 50, layers).tolist()
    return {
        "of": of, "num_seeds": seeds, "majority": 0.2,
        "utterances": {"train": 100_000, "valid": 5, "test": 1_000_000},
        "accuracies": {"log-mel": summary(1), "untrained front end": summary(1),
                       "untrained encoder": summary(layers),
                       "pretrained encoder": summary(layers)},
        "effective_rank": {"untrained encoder": rank, "pretrained encoder": rank[::-1]},
        **more,
    }  # fmt: skip


def codes(**more):
    measures = {"phone_purity": 0.5, "cluster_purity": 0.2, "pnmi": 0.4, **more}
    shuffled = {key: value / 2 for key, value in measures.items()}
    return {**measures, "shuffled": shuffled, "code_perplexity": 400.0, "frames": 12_345_678}


def abx(layers=3, across=True):
    errors = {
        "codes": [0.3],
        "log-mel": [0.2],
        "untrained front end": [0.25],
        "untrained encoder": [0.4] * layers,
        "pretrained encoder": [0.123] * layers,
    }
    return {
        "phones": 1_234_567,
        "speakers": 40,
        "within": errors,
        "across": {name: [0.45] * len(e) for name, e in errors.items()} if across else None,
    }


TABLES = {
    "ABX beside codes": table_of(codes=codes(), abx=abx()),
    "ABX of one speaker": table_of(abx=abx(across=False)),
    "phones": table_of(codes=codes()),
    "one layer, one seed, a label with odd characters": table_of(1, "a $ very_odd $ label", 1),
    "24 layers, nothing is read": table_of(24, accuracy=0.0),
    "all is read": table_of(accuracy=1.0, codes=codes(pnmi=1.0)),
    "no rank": {**table_of(1), "effective_rank": {"untrained encoder": [0.0],
                                                 "pretrained encoder": [0.0]}},
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", TABLES)
def test_any_probe_has_its_table_and_figure(name, tmp_path):
    table = TABLES[name]
    lines = format_table(table).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith(" ") for line in lines)
    draw_probe(table, tmp_path / "probe.png")
    image = imread(tmp_path / "probe.png")
    assert image.shape[0] == 552 and [path.name for path in tmp_path.iterdir()] == ["probe.png"]
    dark = (image[..., :3].min(-1) < 0.9).any(0)
    assert not dark[:2].any() and not dark[-2:].any()  # nothing is cut at the sides


def test_the_table_says_what_was_measured():
    table = table_of(2, codes=codes())
    row = table["accuracies"]["pretrained encoder"]
    row |= {"layers": [[0.5, 0.7], [0.6, 0.9]], "best_layer": 2, "mean": 0.8, "spread": 0.1}
    lines = [" ".join(line.split()) for line in format_table(table).splitlines()]
    assert "pretrained encoder 80.0 +- 10.0 of 144 inputs layer 2" in lines
    assert "majority class 20.0" in lines and "PNMI 0.400 0.200" in lines
    (layer,) = (line for line in lines if line.startswith("layer 1 "))
    assert " 55.0 +- 5.0 " in layer and layer.endswith(" 100.0 50.0")


def test_the_table_has_abx_errors_of_all_that_was_compared():
    lines = [" ".join(line.split()) for line in format_table(table_of(abx=abx())).splitlines()]
    assert "ABX error in % of 1,234,567 test phones of 40 speakers; chance 50" in lines
    for line in ("within a speaker across speakers", "codes 30.0 45.0", "log-mel 20.0 45.0",
                 "untrained front end 25.0 45.0", "layer 3 40.0 12.3 45.0 45.0"):  # fmt: skip
        assert line in lines
    one = format_table(table_of(abx=abx(across=False)))
    lines = [" ".join(line.split()) for line in one.splitlines()]
    assert "across speakers" not in one and {"log-mel 20.0", "layer 3 40.0 12.3"} <= {*lines}


def steps_of(count, kinds):
    """The result of a probe of so many checkpoints."""
    table = table_of(2, abx=abx(2)) if kinds else table_of(2)
    encoder, rank = table["accuracies"].pop("pretrained encoder"), [9.0, 12.3]
    errors = dict.fromkeys(kinds, [0.2, 0.256])
    table["steps"] = [{"step": 100_000 * (k + 1), "accuracy": encoder, "effective_rank": rank,
                       **errors} for k in range(count)]  # fmt: skip
    return table


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kinds", [(), ("within",), ("within", "across")], ids=len)
@pytest.mark.parametrize("count", [1, 20])
def test_steps_of_a_run_have_their_table_and_figure(count, kinds, tmp_path):
    table = steps_of(count, kinds)
    lines = format_steps(table).splitlines()
    assert max(map(len, lines)) <= 80 and not any(line.endswith(" ") for line in lines)
    row = table["steps"][0]["accuracy"]
    last = np.array(row["layers"])[:, -1]
    shown = f"(layer {row['best_layer']:>2})  {100 * last.mean():.1f} +- {100 * last.std():.1f}"
    numbers = ["12.3", *["25.6"] * len(kinds)]
    steps = [line for line in lines if "00,000" in line and "(layer" in line]
    assert (
        len(steps) == count and shown in steps[0] and steps[0].split()[-len(numbers) :] == numbers
    )
    draw_steps(table, tmp_path / "steps.png")
    assert imread(tmp_path / "steps.png").shape[0] == 552
