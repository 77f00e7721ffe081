"""Runs beside each other: what is marked as better, what is not comparable, and how it is shown."""

import json
import os
import re
from pathlib import Path

import pytest
from made_runs import WAV2VEC2, leave_out, make_run, probe

from brainquant.cli import main
from brainquant.monitoring.page import render_page
from brainquant.reporting.columns import lay_out
from brainquant.reporting.comparable import may_mark, why_losses_differ
from brainquant.reporting.compare import compare_runs, format_comparison
from brainquant.reporting.results import result_rows
from brainquant.reporting.rows import Row
from brainquant.reporting.run_sections import run_sections
from brainquant.reporting.several_runs import read_runs


@pytest.fixture
def runs(tmp_path):
    """Runs of these values, read."""

    def read(*values):
        start = len(list(tmp_path.iterdir()))
        made = [make_run(tmp_path / f"run{start + n}", **v) for n, v in enumerate(values)]
        return read_runs(made)[0]

    return read


def row(rows, label, group=""):
    (found,) = [r for r in rows if r.label.strip() == label and r.group.startswith(group)]
    return found


def test_the_better_loss_is_marked_at_the_same_step_only(runs):
    rows = result_rows(runs({"loss": 3.0}, {"loss": 2.5}))
    assert row(rows, "loss") == Row("Last validation", "loss", ["3.000", "2.500"], {1})
    assert row(rows, "gain: reference - loss").cells == ["1.000", "1.500"]
    assert not any(r.group.startswith("Validation at") for r in rows)

    rows = result_rows(runs({"loss": 3.0}, {"loss": 2.9, "steps": 100}))
    assert row(rows, "loss", "Last validation").best == frozenset()
    assert row(rows, "loss", "Validation at step 100") == Row(
        "Validation at step 100", "loss", ["3.500", "2.900"], {1}
    )


@pytest.mark.parametrize(
    "other, reason",
    [
        (WAV2VEC2, "objective"),
        ({"quantiser": "RandomProjectionQuantizer {cb_vocab: 32, seed: 5}"}, "quantiser"),
        ({"quantiser": "RandomProjectionQuantizer {cb_vocab: 64, seed: 6}"}, "codes"),
        ({"more": "mask_ratio: 0.5\nunmasked_weight: 1"}, "unmasked weight"),
        ({"more": "mask_ratio: 0.6"}, "masks"),
        ({"data": "/other"}, "validation set"),
    ],
)
def test_losses_that_do_not_compare_are_named_and_not_marked(runs, other, reason):
    both = runs({"loss": 3.0}, {"loss": 2.5, **other})
    reasons = why_losses_differ(both)
    assert reason in reasons and not may_mark(both)["loss"]
    assert may_mark(both)["gain"] == (reason == "codes")  # of the same kind of codes
    assert row(result_rows(both), "loss").best == frozenset()
    assert reasons[reason] in format_comparison(both).replace("\n    ", " ")


def test_a_manifest_inside_the_run_is_known_by_its_text(runs):
    more = {"data": "{folder}/manifests", "limit": 200}
    one, other = (run.folder for run in runs(more, more))
    for folder in (one, other):
        text = open(f"{folder}/hyperparams.yaml").read().replace("{folder}", folder)
        open(f"{folder}/hyperparams.yaml", "w").write(text)
        os.mkdir(f"{folder}/manifests")
        open(f"{folder}/manifests/valid.csv", "w").write("ID,duration,wav\n")
    assert why_losses_differ(read_runs([one, other])[0]) == {}
    open(f"{other}/manifests/valid.csv", "a").write("a,1,a.wav\n")
    assert list(why_losses_differ(read_runs([one, other])[0])) == ["validation set"]


def test_a_probe_is_marked_beyond_its_spread_and_on_the_same_test_only(runs):
    name, group = "pretrained encoder", "Probe of phones"
    close, far = runs({"phones": 0.5}, {"phones": 0.505}), runs({"phones": 0.5}, {"phones": 0.52})
    assert row(result_rows(close), name, group).best == frozenset()
    assert row(result_rows(far), name, group).best == {1}
    assert row(result_rows(far), name, group).cells == ["50.0 +- 1.0 %", "52.0 +- 1.0 %"]
    table = probe(0.6)
    table["utterances"]["test"] = 6
    with open(f"{far[1].folder}/phones.json", "w", encoding="utf-8") as file:
        json.dump(table, file)
    again = read_runs([run.folder for run in far])[0]
    assert row(result_rows(again), name, group).best == frozenset()
    assert "have read other utterances" in format_comparison(again)


def test_a_table_fits_80_columns_whatever_the_names_and_the_number_of_runs():
    long = "an_extremely_long_name_without_an_end" * 3
    for count in (1, 2, 3, 4, 5, 12):
        cells = [f"{number}: {long}" for number in range(count)]
        rows = [Row("Group", long, cells, frozenset([0])), Row("Group", "b", ["1"] * count)]
        lines = lay_out([f"results/{long}/{n}" for n in range(count)], rows)
        assert max(map(len, lines)) <= 80
        text = "".join(lines).replace(" ", "")
        assert all(f"{number}:" in text for number in range(count)) and "*" in text


def test_the_command_prints_a_table_or_one_object_of_json(runs, capsys):
    folders = [run.folder for run in runs({}, {"lr": 0.002, "seed": 7}, {"steps": 100})]
    main(["compare", *folders])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for text in ("seed", "0.002", "interrupted", "perplexity", "units that repeat", "Health"):
        assert text in shown
    main(["compare", "--json", *folders])
    facts = json.loads(capsys.readouterr().out)
    assert facts["differences"] == {"seed": ["1", "7", "1"], "lr": ["0.001", "0.002", "0.001"]}
    assert facts["common_step"] == 100
    first = facts["runs"][0]
    assert first["validation"]["gain"] == 1.0 and first["at_common_step"]["gain"] == 0.5
    assert first["left_out"] == {"clips": 1, "steps": 1} and first["health"]["state"] == "good"
    assert first["codes"]["perplexity"] == 40 and first["codes"]["size"] == 64

    main(["compare", folders[0], folders[1], "nowhere"])  # the rest is shown
    assert "there is no folder nowhere" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="^error: there is no folder nowhere"):
        main(["compare", folders[0], "nowhere"])


def test_one_run_and_runs_without_any_log_are_shown(runs):
    (alone,) = runs({})
    assert "perplexity" in format_comparison([alone])
    empty = runs({"steps": 0}, {"steps": 0})
    assert "not started" in format_comparison(empty)
    assert compare_runs(empty)["runs"][0]["validation"] is None


def test_a_loss_that_is_not_finite_and_runs_that_do_not_differ_are_said(runs):
    rows = result_rows(runs({"log": {"loss": None}}, {"seed": 7}))
    assert row(rows, "loss").cells == ["not finite", "3.000"]
    for count in (2, 5):
        text = format_comparison(runs(*[{}] * count))
        assert "What differs: nothing\n\nRun\n" in text


def test_a_fine_tuning_has_its_error_rates(runs):
    log, brain = {"wer": 20.0, "cer": 10.0}, "CTCBrain"
    both = runs({"brain": brain, "log": log}, {"brain": brain, "log": {**log, "wer": 18.0}})
    assert row(result_rows(both), "word errors (%)").cells == ["20.00", "18.00"]
    assert row(result_rows(both), "word errors (%)").best == {1}


def test_a_run_of_a_recipe_has_no_remark(pretrained_run):
    (run,), remarks = read_runs([pretrained_run("best_rq")])
    assert (run.remarks, remarks, run.state, run.steps) == ([], [], "finished", 1)
    assert run.objective == "BEST-RQ" and run.values["cb_vocab"]
    assert "gain" in format_comparison([run])


def test_a_page_has_the_same_facts_and_nothing_of_a_stranger_is_html(runs, tmp_path):
    two = runs({"loss": 3.0}, {"loss": 2.5, "seed": 7})
    for run in two:
        leave_out(Path(run.folder), *[("clip", f"<b>{n}</b>", "<script>") for n in range(150)])
    (tmp_path / "<i>").mkdir()
    read, remarks = read_runs([*(run.folder for run in two), tmp_path / "<i>"])
    sections = {section.anchor: section for section in run_sections(read, remarks)}
    assert list(sections) == ["results", "differences", "probe-1", "left-out", "remarks"]
    assert "2.500" in sections["results"].body and "better" in sections["results"].body
    assert "seed" in sections["differences"].body and "lr" not in sections["differences"].body
    assert "50.0 %" in sections["probe-1"].body
    assert "&lt;b&gt;0&lt;/b&gt;" in sections["left-out"].body
    assert "52 more are in" in sections["left-out"].body
    page = render_page("runs", list(sections.values()))
    assert not re.search("<b>|<i>|<script>(?!.use strict)", page.replace("<script>\n", ""))
    assert len(page.encode()) < 300_000

    (same,) = [s for s in run_sections(runs({}, {})) if s.anchor == "differences"]
    assert "says the same" in same.body
