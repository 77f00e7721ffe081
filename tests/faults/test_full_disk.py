"""Training on a disk that becomes full."""

import json
import os
import re
import shlex
import subprocess

import pytest
import torch
from tiny_run import drop_times

from brainquant.training.checkpoint_folder import what_is_wrong

pytestmark = pytest.mark.faults

STEPS = 16
SAVE = r"\S*disk/run/save"
OPTIONS = ["--optimizer_step_limit", STEPS, "--log_interval", 1, "--warmup_steps", 2]
OPTIONS += ["--ckpt_interval_steps", 2, "--brain_class", "!name:filling.FillingBrain"]
# A Brain that fills the disk to the last byte in its sixth step.
FILLING = """
import os
from brainquant.brains import BestRQBrain
from brainquant.ranks import rank

class FillingBrain(BestRQBrain):
    def compute_forward(self, batch, stage):
        filler = os.environ.get("FILLER")
        if filler and self.optimizer_step == 5 and rank() == 0 and not os.path.exists(filler):
            with open(filler, "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass
        return super().compute_forward(batch, stage)
"""


def log_points(folder):
    """Lines of metrics.jsonl without the values that depend on time."""
    with open(folder / "metrics.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return [drop_times(line) for line in lines]


def checkpoints(folder):
    """Folders of the whole checkpoints, by their step."""
    folders = [path for path in (folder / "save").iterdir() if not what_is_wrong(path)]
    assert len(folders) == len(list((folder / "save").iterdir()))
    return {torch.load(path / "brain.ckpt")["place"]["optimizer_step"]: path for path in folders}


def same(one, other):
    """Whether two contents of checkpoints are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_run_goes_on_and_then_ends_with_one_line(run_recipe, tmp_path, fault, ranks):
    (tmp_path / "filling.py").write_text(FILLING)
    whole = run_recipe("best_rq", *OPTIONS, ranks=ranks, output="whole")
    (tmp_path / "disk").mkdir()
    command = shlex.join(
        str(part).replace(str(tmp_path / "whole"), str(tmp_path / "disk" / "run"))
        for part in whole.args
    )
    script = f"""
        mount -t tmpfs -o size=32m none disk || exit 77
        FILLER=disk/filler {command} > out 2> err
        echo $? > code
        cp -r disk/run full && rm disk/filler
        {command} > out_again 2> err_again
        echo $? > code_again
        cp -r disk/run again"""
    path = os.pathsep.join([os.getcwd(), str(tmp_path)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True
    )
    if done.returncode in (1, 77):
        pytest.skip("a small disk cannot be mounted here")
    assert done.returncode == 0, done.stderr
    out, err, code, again = (
        (tmp_path / name).read_text("utf-8") for name in ("out", "err", "code", "code_again")
    )
    warned = re.findall(
        rf"no checkpoint was saved in {SAVE} .*: it needs (\d\.\d) MB, and 0\.0 MB are free\. "
        rf"The last checkpoint {SAVE}/CKPT\S+ is whole; make space .* Training goes on",
        out + err,
    )
    assert len(warned) >= (STEPS - 5) // 2 and float(warned[0]) > 0.1
    assert len(re.findall(r"metrics.jsonl: no space for lines from step \d+ on", out + err)) == 1
    assert f"step {STEPS}, valid: loss" in out + err  # it went on to its end
    full = checkpoints(tmp_path / "full")
    assert (
        max(full) == 4 and log_points(tmp_path / "full")[:5] == log_points(tmp_path / "whole")[:5]
    )
    assert code.strip() == "1"
    error = "error on rank 0: " if ranks else "error: "
    (line,) = (line for line in err.splitlines() if line.startswith(error))
    assert re.search(f"no checkpoint was saved in {SAVE}", line)

    assert again.strip() == "0", (tmp_path / "err_again").read_text("utf-8")[-4000:]
    assert log_points(tmp_path / "again") == log_points(tmp_path / "whole")
    last, of_whole = (checkpoints(tmp_path / name)[STEPS] for name in ("again", "whole"))
    for name in ("encoder", "head", "optimizer", "quantiser"):
        assert same(*(torch.load(path / f"{name}.ckpt") for path in (last, of_whole))), name
    runs = [torch.load(path / "brain.ckpt")["tally"]["run"] for path in (last, of_whole)]
    assert torch.equal(*runs)
    fault(
        injected=f"a disk that is full from step 6 of {STEPS} on ({ranks or 1} rank(s))",
        expected="training goes on, the checkpoint of step 4 stays whole, exit status 1 with one "
        "line; with space again the same command ends as a run that always had space",
        seen=f"{len(warned)} saves failed with a warning, exit status 1, then 0 and all equal",
    )
