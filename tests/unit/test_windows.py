"""On Windows quantisers work, and a run ends with one line. Simulated: no Windows is at hand."""

import subprocess
import sys

from brainquant.errors import error_line

# What Python has on Linux only is taken away when torch and SpeechBrain are imported.
PROGRAM = """
import importlib, multiprocessing, os, pkgutil, signal, subprocess, sys
import speechbrain.lobes.models.transformer.TransformerASR, speechbrain.utils.train_logger, torch
import matplotlib.pyplot, scipy.signal, sklearn.cluster, soundfile, torch.utils.data
import speechbrain.lobes.models.wav2vec, speechbrain.utils.parallel

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in list(vars(signal)):
    windows = "SIGABRT SIGFPE SIGILL SIGINT SIGSEGV SIGTERM SIG_DFL SIG_IGN".split()
    if name.startswith(("SIG", "pthread_", "sig")) and name not in (*windows, "signal"):
        delattr(signal, name)
for name in "fork getuid geteuid killpg setsid sched_getaffinity statvfs O_NOFOLLOW".split():
    delattr(os, name)
sys.platform = "win32"

import brainquant
for module in pkgutil.walk_packages(brainquant.__path__, "brainquant."):
    if module.name != "brainquant.search.gpu":  # needs a GPU's library
        importlib.import_module(module.name)
quantiser = brainquant.RandomProjectionQuantizer(12, 4, 16)
assert quantiser(torch.randn(2, 5, 12)).shape == (2, 5)

from brainquant.errors import one_line_errors
from brainquant.training.run_lock import RunLock
with one_line_errors(), RunLock(sys.argv[1]):
    print("locked")
"""


def test_windows_has_the_quantisers_and_one_line_for_a_run(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run")]
    done = subprocess.run(command, text=True, capture_output=True)
    line = error_line("runs need Linux or macOS; on Windows, start them in WSL 2")
    assert done.stderr.splitlines()[-1:] == [line], done.stderr[-2000:]
    assert "Traceback" not in done.stderr and done.returncode == 1 and not done.stdout
    assert not (tmp_path / "run").exists()
