"""Pages about runs: what is in the file, without a browser."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from brainquant.monitoring.page import (
    Chart,
    Curve,
    LoggedRun,
    chart,
    curve_sections,
    render_page,
    table,
)
from brainquant.monitoring.page.assets import text_of
from brainquant.monitoring.page.code_use import code_use_section
from brainquant.monitoring.page.thin import fair_share, thin
from brainquant.monitoring.points import read_points

NUMBERS = ("loss", "accuracy", "code_usage", "grad_norm", "lr", "temp", "speech_per_second")


def long_log(points, seed=0):
    """A log with all numbers, each a walk of its own."""
    draw = np.random.default_rng(seed)
    walks = {name: 5 + draw.standard_normal(points).cumsum() / 9 for name in NUMBERS}
    extra = {name: 3 + draw.standard_normal(points) for name in ("unigram_loss", "commonest_code")}
    lines = []
    for n in range(points):
        line = {"step": 1.0 + 137 * n, "stage": "train", "run_seconds": 4.2 * n}
        line |= {"speech_seconds": 390.0 * n, "perplexity_cap": 1024}
        line |= {name: float(values[n]) for name, values in (walks | extra).items()}
        line |= {"code_perplexity": [float(draw.uniform(100, 300))]}
        lines.append(line)
        if n % 4 == 0:
            layers = draw.uniform(10, 90, 12).tolist()
            more = {"effective_rank": layers, "start_effective_rank": layers}
            lines.append({**line, **more, "stage": "valid", "units_repeat": layers})
    return lines


def data_of(html):
    """The numbers of a chart, as the script of its page reads them."""
    return json.loads(re.search(r'application/json">(.*?)</script>', html).group(1))


values = st.one_of(st.none(), st.floats(width=32))


@given(st.lists(values, min_size=1, max_size=300), st.integers(2, 50))
def test_a_thinned_curve_keeps_its_ends_its_extremes_and_a_gap(y, most):
    kept_x, kept_y = thin(range(len(y)), y, most)
    finite = [v for v in y if v is not None and math.isfinite(v)]
    assert kept_x[0] == 0 and list(kept_x) == sorted(set(kept_x))
    assert len(kept_x) <= max(most, 1.5 * most + 5)
    for x, v in zip(kept_x, kept_y):
        original = math.nan if y[int(x)] is None else y[int(x)]
        assert v == original or (math.isnan(v) and not math.isfinite(original))
    if finite:
        assert np.nanmin(kept_y) == min(finite) and np.nanmax(kept_y) == max(finite)
    assert np.isnan(kept_y).any() == (len(finite) < len(y))


@given(st.lists(st.integers(0, 5000), min_size=1), st.integers(100, 20_000))
def test_the_curves_of_a_page_share_its_budget(lengths, budget):
    share = fair_share(lengths, budget, least=1)
    kept = sum(min(length, share) for length in lengths)
    assert kept <= max(budget, len(lengths))
    assert kept == sum(lengths) or kept > budget - len(lengths)  # nothing is given away


def test_a_page_of_five_long_runs_is_small():
    runs = [LoggedRun(f"run {n}", long_log(1500, n), ("fine", "good")) for n in range(5)]
    page = render_page("Runs", curve_sections(runs))
    assert 100_000 < len(page.encode()) < 200_000


def test_a_chart_has_its_last_values_as_text_and_its_gaps_as_null():
    curves = [
        Curve("train", [10, 20, 40], [0.25, math.nan, 0.5]),
        Curve("valid", [20], [None], run=1),
    ]
    html = chart(Chart("Accuracy", curves, runs=["a", "b"], percent=True, follows=True))
    train, valid = data_of(html)["curves"]
    assert train["x"] == [10, 10, 20] and train["y"] == [0.25, None, 0.5]
    assert valid["y"] == [None]
    assert re.findall(r"<td[^>]*>(.*?)</td>", html) == ["50 %", "", "", "–"]


def test_a_table_names_its_rows_and_shows_what_is_missing():
    html = table(["run", "loss"], [["<a>", 2.5], [Markup("<b>b</b>"), None]], caption="x & y")
    assert re.findall("<th scope=.row.>(.*?)</th>", html) == ["&lt;a&gt;", "<b>b</b>"]
    assert re.findall("<td.*?</td>", html) == ['<td class="number">2.5</td>', "<td>–</td>"]
    assert "<caption><span>x &amp; y</span></caption>" in html
    assert 'scope="row"' not in table(["n"], [[1]], caption="", row_headers=False)


def test_a_curve_of_one_point_is_seen():
    body = curve_sections([LoggedRun("short", long_log(1))])[-1].body
    assert all(curve["marks"] for curve in data_of(body.partition('class="plot"')[2])["curves"])


def test_runs_of_one_page_share_a_chart_and_a_run_alone_has_its_layers():
    runs = [LoggedRun("one", long_log(20)), LoggedRun("two", long_log(8))]
    titles = re.findall("<h3>(.*?)</h3>", curve_sections(runs)[-1].body)
    assert titles == [
        "Loss (nats)", "Accuracy", "Perplexity of the codes, mean of the codebooks",
        "Codes in use, share of the codebook", "Effective rank of the layers",
        "Units that repeat at another speed", "Learning rate", "Gradient norm",
        "Temperature of the quantiser", "Seconds of speech per second",
    ]  # fmt: skip
    assert "last layer" not in curve_sections(runs)[-1].body
    assert "last layer" in curve_sections(runs[:1])[-1].body


def test_a_fine_tuning_has_its_errors_and_no_codes():
    lines = [{"step": 5.0, "stage": "valid", "loss": 0.5, "cer": 10.5, "wer": 31.25}]
    (section,) = curve_sections([LoggedRun("ctc", lines)])
    titles = re.findall("<h3>(.*?)</h3>", section.body)
    assert titles == ["Loss (nats)", "Character errors (%)", "Word errors (%)"]
    assert "31.2" in section.body


def test_losses_of_different_objectives_are_not_to_be_compared():
    line = {"step": 5.0, "stage": "valid", "loss": 0.5}
    one, other = LoggedRun("a", [{**line, "unigram_loss": 5}]), LoggedRun("b", [{**line, "wer": 9}])
    assert "The objectives differ" in curve_sections([one, other])[0].body
    assert "The objectives differ" not in curve_sections([one, one])[0].body


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON\n[1]\n5\nnull\n",
        '{"step": 1}\n{"step": NaN, "loss": 2}\n{"step": 1e999, "loss": 2}\n',
        '{"step": 3, "stage": "train", "loss": "low", "accuracy": {"a": 1}, "lr": [[1], [2, 3]]}\n',
        '{"step": 3, "stage": "train", "loss": null, "accuracy": NaN, "grad_norm": Infinity}\n',
        '{"step": 3, "stage": ["train"], "loss": 2.0}\n',
        '{"step": 3, "stage": "train", "loss": [], "run_seconds": []}\n',
    ],
)
def test_a_log_without_a_number_gives_a_page_that_says_so(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    points = read_points(tmp_path / "metrics.jsonl")
    page = render_page("Foreign", curve_sections([LoggedRun("foreign", points)]))
    assert "Nothing was logged yet." in page


def test_old_and_odd_numbers_do_not_stop_the_others(tmp_path):
    lines = [
        '{"step": 1e15, "stage": "train", "loss": 1e-30, "lr": true}',
        '{"step": 1e15, "stage": "valid", "loss": -1e300, "run_seconds": "long"}',
        '{"step": 2e15, "stage": "train", "loss": 5, "speech_seconds": null, "lr": 0}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    points = read_points(tmp_path / "metrics.jsonl")
    body = curve_sections([LoggedRun("odd", points)])[-1].body
    assert re.findall("<h3>(.*?)</h3>", body) == ["Loss (nats)", "Learning rate"]
    assert re.findall('name="axis"[^>]*value="(.*?)"', body) == ["step"]


@pytest.mark.parametrize("counts", [np.zeros((1, 8), int), np.eye(9, 4096, dtype=int)])
def test_the_use_of_codes_says_how_many_are_dead(counts):
    body = code_use_section(counts).body
    assert ("8 of 8 codes" if len(counts) == 1 else "4,095 of 4,096 codes") in body
    assert ("3 codebooks are not shown" in body) == (len(counts) == 9)


# ---- colours -----------------------------------------------------------------------------------


def luminance(colour):
    """The relative luminance of WCAG 2."""
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_text_and_curves_stand_out_from_their_ground():
    found = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", text_of("page.css"))
    assert len(found) == 16
    for theme in (1, 2):
        colours = {variable[0]: luminance(variable[theme]) for variable in found}
        for name in set(colours) - {"ground", "raised", "line"}:
            for ground in ("ground", "raised"):
                low, high = sorted((colours[name], colours[ground]))
                least = 3 if name.startswith("run-") else 4.5
                assert (high + 0.05) / (low + 0.05) >= least, (name, ground, theme)
