"""The report of a run: what its heading claims, and that every odd log still gives a picture."""

import json
import math

import numpy as np
import pytest
from matplotlib.image import imread

from brainquant.monitoring import health, report
from brainquant.monitoring.report import plot_report, read_points, values_by_step

ROUGH = np.random.default_rng(0)


def best_rq_lines(epochs=6, steps=20, interval=500):
    """A healthy BEST-RQ run with one codebook of 1,024 codes."""
    lines = []
    for index in range(1, epochs * steps + 1):
        noise = 1 + 0.01 * ROUGH.standard_normal()
        progress = 1 - math.exp(-index / 40)
        line = {"step": index * interval, "epoch": 1 + (index - 1) // steps, "stage": "train"}
        line |= {"loss": (6.9 - 2.7 * progress) * noise, "accuracy": 0.18 * progress * noise}
        line |= {"unigram_loss": 5.0 * noise, "commonest_code": 0.03 * noise, "dead_codes": 30}
        line |= {"code_perplexity": [412 * noise], "code_perplexity_sum": 412 * noise}
        line |= {"perplexity_cap": 1024.0, "code_usage": 0.97, "speech_per_second": 320.0}
        line |= {"lr": 5e-4 * min(index / 20, (20 / index) ** 0.5), "grad_norm": 3 / index + noise}
        lines.append(line)
        if index % steps == 0:
            lines.append({**line, "code_usage": None})  # the epoch's end, at the same step
            lines.append({**line, "stage": "valid", "loss": 1.01 * line["loss"]})
            for key in ("lr", "grad_norm"):
                del lines[-1][key]
    lines[-1] |= {"loss": 4.17, "unigram_loss": 5.0, "accuracy": 0.18, "commonest_code": 0.03}
    lines[-1] |= {"code_perplexity": [412.0]}
    return lines


def wav2vec2_lines(second=200.0, **last):
    """A healthy wav2vec 2.0 run with two codebooks of 320 codes."""
    lines = []
    for line in best_rq_lines(interval=1000):
        del line["unigram_loss"]
        index = line["step"] / 1000
        line |= {"chance_loss": math.log(101), "chance_accuracy": 1 / 101, "perplexity_cap": 320}
        line |= {
            "code_perplexity": [10 + 210 * (1 - 0.97**index), second],
            "temp": 2 * 0.995**index,
        }
        line |= {"loss": line["loss"] - 2.4, "accuracy": 4 * line["accuracy"]}
        lines.append(line)
    lines[-1] |= {"loss": 2.0, "accuracy": 0.55, "code_perplexity": [230.0, second], **last}
    return lines


def zipf_counts(codebooks, codes, dead):
    counts_GV = np.tile(1_000_000 // np.arange(1, codes + 1), (codebooks, 1))
    counts_GV[:, codes - dead :] = 0
    return counts_GV


def one_code(codes):
    return np.eye(1, codes, dtype=int) * 5000


def write_lines(folder, lines, tail=""):
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def collapsed_lines():
    """All targets equal: loss 0 and accuracy 1, which looks like success."""
    lines = best_rq_lines()
    for line in lines:
        gone = math.exp(-line["step"] / 4000)
        line |= {"loss": 7 * gone, "accuracy": 1 - gone, "commonest_code": 1 - gone / 2}
        line |= {
            "unigram_loss": 3 * gone,
            "code_perplexity": [1 + 400 * gone**2],
            "code_usage": 0.01,
        }
    return lines


def verdict(lines, counts_GV, folder):
    return health.verdict(read_points(write_lines(folder, lines)), counts_GV)


def is_figure(path):
    image = imread(path)
    return image.shape == (960, 1440, 4) and path.read_bytes()[1:4] == b"PNG"


def test_verdict_of_healthy_best_rq(tmp_path):
    text, state = verdict(best_rq_lines(), zipf_counts(1, 1024, 31), tmp_path)
    assert text == (
        "valid loss 4.17, 0.83 nats below the unigram · accuracy 18 % (commonest code 3 %)"
        " · perplexity 412 of 1,024 · 3 % dead codes"
    )
    assert state == "good"


def test_verdict_of_healthy_wav2vec2(tmp_path):
    text, state = verdict(wav2vec2_lines(), zipf_counts(2, 320, 16), tmp_path)
    assert text == (  # accuracy beside chance, not beside the commonest code, which is logged too
        "valid loss 2.00, 2.62 nats below chance · accuracy 55 % (chance 0.99 %)"
        " · perplexity 215 of 320 per codebook · 5 % dead codes"
    )
    assert state == "good"


@pytest.mark.parametrize(
    "loss, words, state",
    [
        (4.89, "valid loss 4.89, 0.11 nats below the unigram", "good"),
        (4.95, "not learning: after warm-up, at step 60,000 (valid), the loss 4.950", "bad"),
        (5.50, "not learning: after warm-up, at step 60,000 (valid), the loss 5.500", "bad"),
    ],
)
def test_verdict_weighs_the_loss_against_its_reference(tmp_path, loss, words, state):
    lines = best_rq_lines()
    lines[-1]["loss"] = loss
    text, got = verdict(lines, zipf_counts(1, 1024, 0), tmp_path)
    assert text.startswith(words)
    assert got == state


def test_collapse_is_named_however_low_the_loss(tmp_path):
    text, state = verdict(collapsed_lines(), one_code(1024), tmp_path)
    assert text.startswith("codes have collapsed at step 60,000 (valid): perplexity 1.0 of 1,024")
    assert state == "bad"
    lines = wav2vec2_lines(second=1.05)  # the mean over the two codebooks looks well
    text, state = verdict(lines, zipf_counts(2, 320, 0), tmp_path)
    assert "perplexity 1.1 of 320 (codebook 2 of 2)" in text
    assert state == "bad"


def test_collapse_since_the_last_validation_is_seen(tmp_path):
    lines = best_rq_lines()
    lines.append({**lines[-2], "step": 60500, "code_perplexity": [1.2]})
    assert verdict(lines, zipf_counts(1, 1024, 0), tmp_path)[0].startswith("codes have collapsed")


@pytest.mark.parametrize("codes, perplexity, state", [(2, 1.9, "good"), (2, 1.1, "bad")])
def test_two_codes_can_be_healthy(tmp_path, codes, perplexity, state):
    line = {"step": 1, "stage": "valid", "loss": 0.3, "unigram_loss": 0.6}
    lines = [{**line, "code_perplexity": [perplexity]}]
    assert verdict(lines, np.ones((1, codes), int), tmp_path)[1] == state


def test_few_frames_lower_the_ceiling(tmp_path):
    lines = best_rq_lines()
    lines[-1]["perplexity_cap"] = 500
    text, _ = verdict(lines, zipf_counts(1, 1024, 0), tmp_path)
    assert "perplexity 412 of at most 500 (few frames)" in text


def test_verdict_without_validation_or_reference(tmp_path):
    lines = [{"step": 10, "stage": "train", "loss": 3.0, "accuracy": 0.1}]
    text, state = verdict(lines, np.zeros((1, 8), int), tmp_path)
    assert (text, state) == ("train loss 3.00 · accuracy 10 %", "unknown")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_is_named(tmp_path, bad):
    lines = best_rq_lines()
    lines.append({"step": 61000, "stage": "train", "loss": bad})
    text, state = verdict(lines, zipf_counts(1, 1024, 0), tmp_path)
    assert (text, state) == ("diverged: the loss at step 61,000 (train) is not finite", "bad")


def test_an_empty_interval_at_the_epochs_end_is_no_divergence(tmp_path):
    lines = best_rq_lines()[:5]
    lines.append({**lines[-1], "loss": math.nan, "frames": 0})
    assert "diverged" not in verdict(lines, zipf_counts(1, 1024, 0), tmp_path)[0]
    assert verdict([], one_code(4), tmp_path) == ("nothing was logged yet", "unknown")


def test_damaged_lines_are_skipped_and_a_resumed_run_replaces_its_past(tmp_path):
    lines = [{"step": step, "stage": "train", "loss": float(step)} for step in (1, 2, 3, 4, 3)]
    lines[-1]["loss"] = 30.0
    path = write_lines(tmp_path, lines, tail='null\n7\n{"stage": "train"}\n\n{"step": 5, "lo')
    losses = values_by_step(read_points(path), "loss", "train")
    assert {step: value[0] for step, value in losses.items()} == {1: 1, 2: 2, 3: 30}


def test_pictures_of_healthy_and_collapsed_runs_differ(tmp_path):
    runs = {
        "best_rq": (best_rq_lines(), zipf_counts(1, 1024, 31)),
        "wav2vec2": (wav2vec2_lines(), zipf_counts(2, 320, 3)),
        "collapsed": (collapsed_lines(), one_code(1024)),
    }
    images = []
    for name, (lines, counts_GV) in runs.items():
        path = tmp_path / f"{name}.png"
        plot_report(write_lines(tmp_path, lines), counts_GV, path, title="a $ run_1")
        assert is_figure(path)
        images.append(imread(path)[..., :3])
    heading = slice(35, 70)  # rows
    for image, colour in zip(images, [(0, 115, 79), (0, 115, 79), (192, 74, 0)], strict=True):
        assert (np.abs(image[heading] * 255 - colour).max(-1) < 2).any()
        dark = (image.min(-1) < 0.9).any(0)
        assert not dark[:2].any() and not dark[-2:].any()  # nothing is cut at the sides
    assert (images[0] != images[2]).any(-1).mean() > 0.01
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


ODD = {
    "empty": [],
    "one point": best_rq_lines()[:1],
    "train only": [line for line in best_rq_lines() if line["stage"] == "train"],
    "valid only": [line for line in wav2vec2_lines() if line["stage"] == "valid"],
    "all nan": [{"step": s, "stage": "train", "loss": math.nan, "lr": None} for s in range(3)],
    "nan codes": [{"step": 0, "stage": "train", "loss": 1.0, "code_perplexity": [math.nan] * 2}],
    "no keys": [{"step": 0, "epoch": 0, "stage": "train", "unheard_of": {"a": 1}}],
    "zero gradient": [{"step": s, "stage": "train", "grad_norm": 0.0} for s in range(3)],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ODD)
def test_odd_logs_give_a_picture(tmp_path, name):
    path = write_lines(tmp_path, ODD[name], tail='{"step": 9')
    plot_report(path, np.zeros((5, 16), int), tmp_path / "report.png")
    assert is_figure(tmp_path / "report.png")


def test_the_loss_of_the_model_as_it_came_is_a_line_of_its_own(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(report, "save_figure", lambda figure, _: figures.append(figure))
    lines = [{**line, "start_loss": 5.5} if line["stage"] == "valid" else line
             for line in best_rq_lines()]  # fmt: skip
    for chosen in (lines, best_rq_lines()):
        plot_report(write_lines(tmp_path, chosen), one_code(1024), tmp_path / "report.png")
    with_start, without = ({line.get_label(): line for line in f.axes[0].lines} for f in figures)
    start = with_start.pop("the model as it came")
    assert with_start.keys() == without.keys() == {"train", "valid", "unigram"}
    assert set(start.get_ydata()) == {5.5} and start.get_xdata()[-1] == lines[-1]["step"]
    assert start.get_color() not in {line.get_color() for line in with_start.values()}
    assert "the model as it came" in [t.get_text() for t in figures[0].axes[0].get_legend().texts]


def test_no_log_yet_and_codes_of_the_wrong_shape(tmp_path):
    plot_report(tmp_path / "not_there.jsonl", one_code(8), tmp_path / "report.png")
    assert is_figure(tmp_path / "report.png")
    with pytest.raises(ValueError, match=r"code_counts must have .* got shape \(8,\); pass"):
        plot_report(tmp_path / "not_there.jsonl", np.ones(8, int), tmp_path / "report.png")
