"""The progress bar of a training epoch."""

from tqdm import tqdm

# Numbers of a log point that the bar shows, by their names there.
SHOWN = {"loss": "loss", "code_perplexity_sum": "perplexity"}


class Progress:
    """A bar that counts batches and shows the last log point.

    SpeechBrain's bar (1.1.2) is local to its loop and shows the running loss only, for which it
    waits for the device in each step.
    """

    def __init__(self) -> None:
        self.bar = tqdm(disable=True)

    def start(self, epoch: int, total: int, initial: int, *, show: bool, colour: str) -> None:
        """Begins the bar of an epoch of ``total`` batches, ``initial`` of them before a resume."""
        self.bar = tqdm(
            total=total,
            initial=initial,
            desc=f"epoch {epoch}",
            dynamic_ncols=True,
            disable=not show,
            colour=colour,
        )

    def update(self) -> None:
        """Counts a batch."""
        self.bar.update()

    def show(self, record: dict) -> None:
        """Shows numbers of a log point beside the bar."""
        shown = {text: record[name] for name, text in SHOWN.items() if name in record}
        self.bar.set_postfix(shown, refresh=False)

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()
