"""Pages about runs in a browser: nothing is loaded; everything can be seen, read and reached."""

import json
import math

import numpy as np
import pytest
from browser import is_too_wide
from markupsafe import Markup

from brainquant.monitoring.live_report import LiveReport
from brainquant.monitoring.page import (
    Chart,
    Curve,
    LoggedRun,
    PageSection,
    chart,
    curve_sections,
    render_page,
    table,
)

NASTY = [
    "<script>alert(1)</script>", '</script><img src=x onerror="alert(2)">', "'\"><b>`${7*7}`",
    "\u202egnp.exe", "x" * 150,
]  # fmt: skip


def logged(steps, *, old=False, loss=5.0):
    """A log with losses of training and validation, whose steps take longer and longer."""
    lines = []
    for step in range(10, steps + 1, 10):
        line = {"step": float(step), "loss": loss - step / 100, "accuracy": 0.125}
        line |= {"unigram_loss": 5.5, "code_perplexity": [90.0, 100.0], "perplexity_cap": 320.0}
        if not old:
            line |= {"run_seconds": float(step**2), "speech_seconds": 360.0 * step}
        lines.append({**line, "stage": "train", "grad_norm": 2.0, "lr": 1e-4})
        if step % 50 == 0:
            lines.append({**line, "stage": "valid", "loss": line["loss"] + 0.25})
    lines[1]["loss"] = None
    return lines


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page of three runs, one of them without times, and whatever else a page may hold."""
    runs = [
        LoggedRun("first", logged(100), ("codes have collapsed", "bad")),
        LoggedRun("second", logged(50, loss=6.0), ("valid loss 4.17", "good")),
        LoggedRun("older", logged(70, old=True)),
    ]
    shares = chart(
        Chart("Shares", [Curve("codes", [1, 10, 100], [0.5, 0.01, 0.002])], log=True, log_x=True)
    )
    more = [
        PageSection("more", "More", table(["ID", "seconds"], [["a", 1.5]], caption="Clips")),
        PageSection("shares", "Shares", shares),
    ]
    path = tmp_path_factory.mktemp("a page #1") / "report.html"
    page = render_page("Three runs", [*curve_sections(runs), *more], subtitle="as it is")
    path.write_text(page, "utf-8")
    return path


def curve_of(page, title, number=0):
    """What a curve of a chart is drawn as."""
    figure = page.get_by_role("group", name=title, exact=True)
    return figure.locator("path.curve").nth(number).get_attribute("d")


def labels(page, title):
    """The texts of a chart's picture."""
    return page.get_by_role("group", name=title, exact=True).locator("svg text").all_text_contents()


def test_between_layers_there_is_no_tick(open_page, tmp_path):
    layers = chart(Chart("Layers", [Curve("rank", [1, 2, 3, 4], [10, 20, 30, 40])], x_label="l"))
    (tmp_path / "layers.html").write_text(render_page("One", [PageSection("one", "One", layers)]))
    shown = labels(open_page(tmp_path / "layers.html", width=1600), "Layers")
    assert shown[shown.index("1") :] == ["1", "2", "3", "4", "l"]


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("colours, ground", [("light", "255, 255, 255"), ("dark", "22, 24, 28")])
def test_a_page_fits_its_window_and_the_colours_of_the_system(
    open_page, file, width, colours, ground
):
    page = open_page(file, width=width, colours=colours)
    assert not is_too_wide(page)
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == f"rgb({ground})"
    page.get_by_label("Colours").select_option("dark")
    assert page.evaluate(colour) == "rgb(22, 24, 28)"


def test_everything_has_a_name_for_a_screen_reader(open_page, file):
    page = open_page(file)
    for role, name in [
        ("banner", None), ("navigation", "Sections"), ("main", None), ("region", "Health"),
        ("region", "Curves"), ("group", "Loss (nats)"), ("radio", "wall time"),
        ("checkbox", "2 second"), ("slider", "Read the values of Loss (nats)"),
        ("table", "Clips"), ("link", "Skip to the content"), ("combobox", "Colours"),
        ("heading", "Three runs"), ("img", "Loss (nats): curves over step"),
    ]:  # fmt: skip
        options = {"name": name} if name else {}
        assert page.get_by_role(role, **options).count() == 1, (role, name)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "checkbox", "combobox", "image", "img", "link", "radio", "slider"}
    named = [n for n in tree if not n["ignored"] and n["role"]["value"] in controls]
    assert len(named) > 15 and all(node["name"]["value"] for node in named)
    # The state of a run is not told by its colour alone.
    assert page.get_by_text("✗ look at it").count() == page.get_by_text("✓ good").count() == 1


def test_the_keyboard_reaches_all_controls_in_their_order(open_page, file):
    page = open_page(file)
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        active = "document.activeElement.id || document.activeElement.getAttribute('href') || ''"
        reached.append(page.evaluate(active))
        assert reached[-1] == "" or page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle"
        ) in ("solid", "auto")
    wanted = ["#content", "theme", "#health", "#curves", "#more", "#shares", "axis-step"]
    wanted += ["run-0", "run-1", "run-2", *(f"read-{n}" for n in range(5))]
    assert [where for where in reached if where][: len(wanted)] == wanted


def test_the_switch_takes_all_charts_to_speech_and_to_time(open_page, file):
    page = open_page(file)
    over_steps = curve_of(page, "Loss (nats)"), curve_of(page, "Gradient norm")
    shares = curve_of(page, "Shares")
    assert "step" in labels(page, "Loss (nats)") and "100" in labels(page, "Loss (nats)")
    page.get_by_label("wall time").check()
    over_time = curve_of(page, "Loss (nats)"), curve_of(page, "Gradient norm")
    assert "hours of wall time" in labels(page, "Loss (nats)")  # 100 ** 2 seconds
    assert all(one != other for one, other in zip(over_steps, over_time))
    assert "Not on this axis, since their logs lack it: older" in page.inner_text("#missing")
    page.get_by_label("speech", exact=True).check()
    assert "hours of speech" in labels(page, "Loss (nats)")
    assert curve_of(page, "Loss (nats)") == over_steps[0]  # speech is proportional to steps
    assert curve_of(page, "Shares") == shares
    page.get_by_label("steps").check()
    assert page.inner_text("#missing") == ""


def test_a_run_can_be_hidden(open_page, file):
    page = open_page(file)
    figure = page.get_by_role("group", name="Loss (nats)", exact=True)
    assert figure.locator("path.curve").count() == 9 and figure.locator("tbody tr").count() == 3
    page.get_by_label("2 second").uncheck()
    assert figure.locator("path.curve").count() == 6
    assert "second" not in figure.inner_text() and "2" not in labels(page, "Loss (nats)")
    for box in page.get_by_role("checkbox", checked=True).all()[::-1]:
        box.uncheck()
    assert figure.locator("path.curve").count() == 0


def test_values_are_read_with_the_keyboard_and_with_the_mouse(open_page, file):
    page = open_page(file)
    slider = page.get_by_role("slider", name="Read the values of Loss (nats)")
    figure = page.get_by_role("group", name="Loss (nats)", exact=True)
    assert "Last values: first train 4; first valid 4.25" in slider.get_attribute("aria-valuetext")
    slider.press("Home")
    told = "Values at step 10: first train 4.9; first valid –; first unigram (train) 5.5; second "
    assert slider.get_attribute("aria-valuetext").startswith(told)
    assert figure.locator("td").all_text_contents()[:3] == ["4.9", "–", "5.5"]
    slider.press("End")
    box = figure.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    assert "Values at step 50" in figure.locator("caption").inner_text()
    page.mouse.move(0, 0)
    assert "Last values" in figure.locator("caption").inner_text()
    assert page.get_by_role("group", name="Shares", exact=True).locator("td").inner_text() == "0.5"


def test_a_gap_is_not_drawn_over(open_page, file):
    page = open_page(file)
    assert curve_of(page, "Loss (nats)").count("M") == 2  # step 20 has no loss


def test_names_are_text_whatever_they_hold(open_page, tmp_path):
    lines = logged(50)
    runs = [LoggedRun(name, lines, (name, "bad")) for name in NASTY]
    curves = [Curve(name, [1, 2], [1.0, 2.0]) for name in NASTY]
    own = chart(Chart(NASTY[0], curves, runs=NASTY[:1], x_label=NASTY[1], note=NASTY[2]))
    rows = [[name, 1] for name in NASTY]
    sections = [
        *curve_sections(runs),
        PageSection("own", NASTY[1], own + table(NASTY, rows, caption=NASTY[0])),
    ]
    (tmp_path / "nasty.html").write_text(render_page(NASTY[1], sections, subtitle=NASTY[0]))
    page = open_page(tmp_path / "nasty.html", width=400)
    assert page.title() == NASTY[1] and page.locator("h1").inner_text() == NASTY[1]
    assert page.locator("main img[src], main b").count() == 0 and not is_too_wide(page)
    for name in NASTY:
        assert page.get_by_label(name).count() > 0
    assert page.evaluate("document.querySelectorAll('bdi').length") > 20


def test_numbers_of_any_size_are_drawn(open_page, tmp_path):
    kinds = [
        [0.0, 0.0], [1e300, -1e300], [1e-300, 1.0], [None, None], [-1.0, 0.0], [1e7, 1e7 + 1],
        [5.0], [math.inf, 2.0, math.nan],
    ]  # fmt: skip
    charts = [
        chart(Chart(f"{y} {log}", [Curve("y", range(len(y)), y)], log=log, log_x=log))
        for y in kinds
        for log in (False, True)
    ]
    section = PageSection("all", "All", Markup("").join(charts))
    (tmp_path / "sizes.html").write_text(render_page("Sizes", [section]))
    page = open_page(tmp_path / "sizes.html")
    assert page.locator("svg[role=img]").count() == len(charts)
    texts = page.locator("svg[role=img] text").all_text_contents()
    assert not [text for text in texts if "NaN" in text or "Inf" in text]


def test_without_scripts_the_last_values_are_there(open_page, file):
    page = open_page(file, script=False)
    assert page.get_by_text("without it the tables show").is_visible()
    assert not page.get_by_label("wall time").is_visible()
    assert "4.25" in page.get_by_role("group", name="Loss (nats)", exact=True).inner_text()


def test_on_paper_there_is_nothing_to_press(open_page, file):
    page = open_page(file, colours="dark")
    page.emulate_media(media="print")
    assert not page.get_by_label("Colours").is_visible()
    assert not page.get_by_role("slider").first.is_visible()
    ground = "getComputedStyle(document.documentElement).colorScheme"
    assert page.evaluate(ground) == "light"


def test_a_page_of_a_run_that_goes_on_is_read_anew_where_the_reader_was(
    open_page, tmp_path, monkeypatch
):
    monkeypatch.setattr("brainquant.monitoring.live_report.REFRESH_SECONDS", 0.5)
    metrics = tmp_path / "metrics.jsonl"
    report = LiveReport(str(tmp_path), str(metrics), "a run")
    monkeypatch.setattr(report, "expected", {name: -math.inf for name in report.expected})
    monkeypatch.setattr("brainquant.monitoring.live_report.plot_report", lambda *_: None)
    metrics.write_text("\n".join(map(json.dumps, logged(50))))
    report.renew(np.ones((1, 4), int))
    page = open_page(tmp_path / "report.html", width=400)
    page.get_by_label("wall time").check()
    page.evaluate("window.scrollTo(0, 700)")
    top = "document.getElementById('read-1').getBoundingClientRect().top"
    page.locator("#read-1").focus()
    before = page.evaluate(top)
    metrics.write_text("\n".join(map(json.dumps, logged(90))))
    report.draw_last(np.ones((1, 4), int))
    page.get_by_text("Step 90, written").wait_for(timeout=10_000)
    assert page.locator("#axis-time").is_checked()
    assert "hours of wall time" in labels(page, "Loss (nats)")
    assert abs(page.evaluate(top) - before) < 5
    assert page.evaluate("document.activeElement.id") == "read-1"
    assert "finished" in page.inner_text("header") and page.locator("#renew").count() == 0
