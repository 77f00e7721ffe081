"""What all tests share: a small corpus, and fixtures that run recipes and programs."""

import csv
import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from browser import Opened, headless_browser
from tiny_ctc import pretrain

import brainquant.monitoring.live_report
from brainquant.data.toy_speech import prepare_toy_speech

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "ToySpeech"
# Models small enough for a second of training.
TINY = {
    "best_rq": "--num_layers 2 --d_model 32 --cb_vocab 64 --batch_seconds 8 --num_buckets 4 "
    "--quality_minutes 0",
    "wav2vec2": "--num_layers 2 --d_model 32 --channels 32 --batch_seconds 8 --num_buckets 4 "
    "--num_negatives 20 --quality_minutes 0",
}


if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries and processes that start later


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


@pytest.fixture
def fault(record_property):
    """Records a line that pytest prints at its end."""

    def record(*, injected, expected, seen):
        record_property("fault", f"{injected}: expected {expected}; seen {seen}")

    return record


def pytest_terminal_summary(terminalreporter):
    lines = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "fault"
    ]
    if lines:
        terminalreporter.section("faults: injected, expected, seen")
        for line in sorted(lines):
            terminalreporter.line(line)


@pytest.fixture(scope="module", autouse=True)
def quick_report(request):
    """Writes empty reports in integration tests: drawing takes longer than a tiny run."""

    def write(metrics_file, code_counts, image_file, *more):
        Path(image_file).touch()

    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name == "integration":
            patch.setattr(brainquant.monitoring.live_report, "plot_report", write)
        yield


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium. Its event loop would be in the way of tests that have their own."""
    with headless_browser() as started:
        yield started


@pytest.fixture
def open_page(browser):
    """Opens the page of a file; at the end no page may have loaded or complained about anything."""
    opened = Opened(browser)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A minute of ToySpeech in a folder whose name has a space."""
    folder = tmp_path_factory.mktemp("toy speech")
    prepare_toy_speech(folder, train_minutes=1.0, valid_minutes=0.3, test_minutes=0.3)
    return folder


@pytest.fixture(scope="session")
def pretrained_run(corpus, tmp_path_factory):
    """Gives the folder of a run of one step, of the recipe ``best_rq`` or ``wav2vec2``."""

    @functools.cache
    def make(name):
        return pretrain(name, corpus, tmp_path_factory.mktemp(name), num_layers=2)

    return make


@pytest.fixture(scope="session")
def exported(pretrained_run, tmp_path_factory):
    """Gives the exported folder of a run of one step, of ``best_rq`` or ``wav2vec2``."""
    from brainquant.publishing.export import export

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp("exported") / name
        export(pretrained_run(name), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def librispeech(corpus, tmp_path_factory):
    """ToySpeech in the folders of LibriSpeech: train-clean-100, dev-clean and test-clean."""
    folder = tmp_path_factory.mktemp("unpacked") / "LibriSpeech"
    speakers = {}
    for split, toy_split in (
        ("train-clean-100", "train"), ("dev-clean", "valid"), ("test-clean", "test")
    ):  # fmt: skip
        with open(corpus / f"{toy_split}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:  # two toy speakers are one chapter, two chapters are one speaker
            number = int(row["spk_id"].removeprefix("toy"))
            speaker, chapter = str(100 + number // 4), str(1000 + number // 2)
            speakers[speaker] = split
            path = folder / split / speaker / chapter
            path.mkdir(parents=True, exist_ok=True)
            utterance = f"{speaker}-{chapter}-{len(list(path.glob('*.flac'))):04d}"
            audio, rate = soundfile.read(row["wav"].replace("$data_root", str(corpus)))
            soundfile.write(path / f"{utterance}.flac", audio, rate, subtype="PCM_16")
            words = " ".join(re.findall("[A-Z']+", row["text"].upper()))
            with open(path / f"{speaker}-{chapter}.trans.txt", "a", encoding="utf-8") as file:
                file.write(f"{utterance} {words}\n")
    lines = [f"{name:5}| F | {split:16} | 0.20  | A Voice" for name, split in speakers.items()]
    (folder / "SPEAKERS.TXT").write_text("\n".join([";ID  |SEX| SUBSET", *lines, ""]), "utf-8")
    return folder


def heed_signals():
    """Makes a child obey signals again that a shell or nohup made this process ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def start_program():
    """Starts a small Python program in a process; ``options`` are those of Popen."""
    started = []

    def start(*arguments, variables=(), path=(), **options):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *path])),
                **dict(variables),
            },
            **{"preexec_fn": heed_signals, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        process.wait()


@pytest.fixture
def start_recipe(corpus, tmp_path):
    """Starts a ToySpeech recipe as a user does, in one process or in several."""
    started = []

    def start(
        name,
        *arguments,
        ranks=None,
        torchrun=(),
        output="run",
        prepare="null",
        evaluate="null",
        **environment,
    ):
        launcher = [sys.executable]
        if ranks:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
            launcher += torchrun
        command = [
            *launcher, str(RECIPE / "train.py"), str(RECIPE / "hparams" / f"{name}.yaml"),
            "--data_folder", str(corpus), "--output_folder", str(tmp_path / output),
            *TINY[name].split(), "--prepare", prepare, "--evaluate", evaluate,
            *(str(argument) for argument in arguments),
        ]  # fmt: skip
        path = os.pathsep.join([str(ROOT), str(tmp_path)])
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environment},
            start_new_session=True,
            preexec_fn=heed_signals,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # so torchrun ends its ranks, which are not our children
        process.communicate()


@pytest.fixture
def run_recipe(start_recipe):
    """Runs a ToySpeech recipe to its end."""

    def run(*arguments, check=True, **options):
        process = start_recipe(*arguments, **options)
        stdout, stderr = process.communicate(timeout=300)
        if check:
            assert process.returncode == 0, stdout[-2000:] + stderr[-4000:]
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run


@pytest.fixture
def read_metrics(tmp_path):
    """The log points of a run, by stage."""

    def read(output="run", stage="train"):
        lines = (tmp_path / output / "metrics.jsonl").read_text("utf-8").splitlines()
        return [record for record in map(json.loads, lines) if record["stage"] == stage]

    return read
