"""The page about runs: sizes, escaping, sounds in a browser, and what is missing or damaged."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from tiny_ctc import pretrain

from brainquant import __version__
from brainquant.cli import main
from brainquant.data.alignments import find_alignments
from brainquant.recipe import open_run
from brainquant.reporting.code_sections import code_sections

HOSTILE = "\"'<img src=x onerror=alert(1)>&"  # an ID, a speaker and a phone


def files(folder):
    """The files of a folder with their times and sizes."""
    stats = {path: path.stat() for path in Path(folder).rglob("*")}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def text_of(html):
    return " ".join(re.sub("<[^>]*>", " ", str(html)).split())


@pytest.fixture(scope="module")
def hostile(corpus, tmp_path_factory):
    """A manifest and alignments with HTML in the names; one clip has no alignment."""
    folder = tmp_path_factory.mktemp("hostile")
    with open(corpus / "valid.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    phones = find_alignments(corpus / "phones")
    for number, row in enumerate(rows):
        text = Path(phones[row["ID"]]).read_text("utf-8").replace("SIL", HOSTILE)
        row["wav"] = row["wav"].replace("$data_root", str(corpus))
        if number < 2:
            row["ID"], row["spk_id"] = f"{number}{HOSTILE}", HOSTILE
        if number != 1:
            (folder / f"{row['ID']}.tsv").write_text(text, "utf-8")
    with open(folder / "valid.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def change(pretrained_run, corpus, tmp_path):
    """Gives a copy of a run of one step on the corpus, with other values in its YAML."""

    def copy(name, **values):
        folder = tmp_path / "<b>run" / name
        shutil.copytree(pretrained_run(name), folder)
        values = {"data_folder": corpus, "valid_csv": corpus / "valid.csv", **values}
        text = (folder / "hyperparams.yaml").read_text("utf-8")
        for key, value in values.items():
            text, found = re.subn(f"(?m)^{key}:.*$", lambda _: f"{key}: {value}", text)  # noqa: B023
            assert found == 1
        (folder / "hyperparams.yaml").write_text(text, "utf-8")
        return folder

    return copy


def test_the_command_writes_a_page_that_plays_the_codes(change, hostile, tmp_path, open_page):
    run = change("best_rq", valid_csv=hostile / "valid.csv")
    before, output = files(run), tmp_path / "page.html"
    arguments = ["report", str(run), "--output", str(output), "--alignments", str(hostile)]
    main([*arguments, "--audio", "2"])
    assert files(run) == before
    html = output.read_text("utf-8")
    assert "<img" not in html and len(html) < 1_000_000
    assert f"UTC by brainquant {__version__}" in html
    assert html.index('id="health"') < html.index('id="results"')

    page = open_page(output)
    buttons = page.locator("table button.play")
    names = [button.get_attribute("aria-label") for button in buttons.all()]
    assert len(names) == len(set(names)) > 20
    assert re.match(r"Play segment 1 of code \d+, clip .", names[0])
    hostile_button = page.get_by_role("button", name=f"clip 0{HOSTILE}").first
    hostile_button.click()
    page.wait_for_function("() => document.querySelector('audio').currentTime > 0")
    assert 0.1 < page.evaluate("() => document.querySelector('audio').duration") < 1
    said = page.locator(".player p").inner_text()
    assert f"clip 0{HOSTILE}, " in said and f"speaker {HOSTILE}" in said and " s, " in said

    buttons.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")  # the first sound ends
    assert names[1].split(",")[0].removeprefix("Play ") in page.locator(".player p").inner_text()
    page.keyboard.press("Escape")
    assert page.evaluate("() => document.querySelector('audio').paused")
    page.get_by_role("button", name="Play clip").click()
    page.wait_for_selector("svg.clip .cursor[transform]", state="attached")
    page.locator("g[data-codes] image").hover()
    assert re.match(
        r"Code \d+: \d+ % of its frames are .+\.", page.locator(".readout").inner_text()
    )


def test_without_sounds_the_page_is_small_and_several_codebooks_are_folded(
    change, corpus, tmp_path, capsys
):
    run, output = change("wav2vec2"), tmp_path / "page.html"
    other = change("best_rq")
    phones = ["--alignments", str(corpus / "phones")]
    main(["report", str(run), str(other), "--output", str(output), "--no_audio", *phones])
    assert f"{output}: " in capsys.readouterr().out
    html = output.read_text("utf-8")
    assert len(html) < 300_000 and "audio/mpeg" in html and 'class="play"' not in html
    assert "Codebook 2 of 2" in html and html.count("P(phone | code): ") == 3
    assert html.count("phone purity") == 2  # of each run


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"valid_csv": "null"}, "valid_csv: is null"),
        ({"data_folder": "/nowhere"}, "audio files do not exist"),
        ({"min_seconds": "11.5"}, "no clip of valid_csv: is between 11.5 and 12 s long"),
    ],
)
def test_a_run_without_speech_gets_one_line(change, values, expected):
    folder = change("best_rq", **values)
    (section,) = code_sections([("it", str(folder))])
    assert expected in text_of(section.body) and str(section.body).count("<p>") == 1


def test_damaged_checkpoints_stay_where_they_are_and_others_are_shown(change):
    folder = change("best_rq")
    (checkpoint,) = (folder / "save").glob("CKPT*")
    newer = checkpoint.with_name("CKPT+9")
    shutil.copytree(checkpoint, newer)
    with open(newer / "encoder.ckpt", "ab") as file:
        file.write(b"x")
    before = files(folder)
    (section,) = code_sections([("it", str(folder))], audio=0, alignments={"another": "x.tsv"})
    text = text_of(section.body)
    assert "The quantiser of step 1 on" in text and "Phones are known of none of its" in text
    assert "Use over the training" in text and " 1 to 1 " in text  # from the counts it holds
    shutil.rmtree(checkpoint)
    (section,) = code_sections([("it", str(folder))])
    assert "there is no whole checkpoint in" in text_of(section.body)
    assert {path: before[path] for path in files(folder) if path != folder / "save"} == {
        path: stat for path, stat in files(folder).items() if path != folder / "save"
    }


def test_a_run_whose_codes_belong_to_a_teacher_gets_one_line(corpus, tmp_path):
    folder = pretrain("online_codebooks", corpus, tmp_path / "run")
    (section,) = code_sections([("it", str(folder))])
    assert "a run of OnlineCodebooksBrain, whose encoder has no quantiser" in text_of(section.body)


def test_the_device_that_is_asked_for_is_used_or_refused(change, tmp_path):
    run, output = change("best_rq"), tmp_path / "page.html"
    with pytest.raises(SystemExit, match="--device gpu: torch knows no such device"):
        main(["report", str(run), "--output", str(output), "--device", "gpu"])
    assert not output.exists()
    with pytest.raises(ValueError, match="--device gpu"):
        open_run(str(run), device="gpu")


def test_the_live_page_of_a_run_is_never_replaced(change):
    folder = change("best_rq")
    with pytest.raises(SystemExit, match="is the page that the run in this folder renews itself"):
        main(["report", str(folder), "--output", str(folder / "report.html")])
