"""The progress bar of a training epoch."""

from tqdm import tqdm

# Numbers of a log point that the bar shows, by their names there.
SHOWN = {"loss": "loss", "code_perplexity_sum": "perplexity"}
# In 80 columns there is room for the time that is left of the run, but not for that of the epoch,
# nor for its batches.
BAR_FORMAT = "{desc}|{bar}| {percentage:.0f}%{postfix}"


class Progress:
    """A bar that counts batches and shows the time that is left of the run, and the last log point.

    SpeechBrain's bar (1.1.2) is local to its loop and shows the running loss only, for which it
    waits for the device in each step.
    """

    def __init__(self) -> None:
        self.bar = tqdm(disable=True)
        self.numbers: list[str] = []

    def start(self, epoch: int, total: int, initial: int, *, show: bool, colour: str) -> None:
        """Begins the bar of an epoch of ``total`` batches, ``initial`` of them before a resume."""
        self.bar = tqdm(
            total=total,
            initial=initial,
            desc=f"epoch {epoch} ",
            bar_format=BAR_FORMAT,
            dynamic_ncols=True,
            disable=not show,
            colour=colour,
        )

    def update(self, time_left: str = "") -> None:
        """Counts a batch.

        Arguments
        ---------
        time_left : str
            What the bar says of the end of the run.
        """
        shown = [time_left, *self.numbers] if time_left else self.numbers
        self.bar.set_postfix_str(", ".join(shown), refresh=False)
        self.bar.update()

    def show(self, record: dict) -> None:
        """Shows numbers of a log point beside the bar."""
        shown = {text: record[name] for name, text in SHOWN.items() if name in record}
        self.numbers = [
            f"{text} {number:.3g}" if number < 1000 else f"{text} {number:.0f}"
            for text, number in shown.items()
        ]

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()
