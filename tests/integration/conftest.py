"""What the integration tests share."""

from pathlib import Path

import pytest

import brainquant.monitoring.run_log


@pytest.fixture(scope="module", autouse=True)
def quick_report():
    """Writes an empty report: to draw it takes longer than a tiny run does."""

    def write(metrics_file, code_counts, image_file, title=""):
        Path(image_file).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brainquant.monitoring.run_log, "plot_report", write)
        yield
