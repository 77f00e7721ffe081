"""What a run that begins with weights has to beat: the validation loss of the model as it came."""

from collections.abc import Mapping
from typing import Any

from speechbrain.utils.logger import get_logger

from ..monitoring.health import MIN_GAIN, START_LOSS, loss_reference

logger = get_logger(__name__)


class StartLoss:
    """The validation loss before the first step that changes the encoder.

    It is measured once, after ``freeze_steps``: in these steps a new head learns to read the
    encoder as it came, and before them the loss would say nothing of the encoder.

    Arguments
    ---------
    freeze_steps : int
        The first steps of the run, in which the encoder is not trained.

    Attributes
    ----------
    is_wanted : bool
        Whether the run began with weights.
    value : float or None
        The loss; None before it is measured.

    Example
    -------
    >>> start_loss = StartLoss(freeze_steps=2)
    >>> start_loss.is_wanted = True
    >>> start_loss.is_due(0), start_loss.is_due(2)
    (False, True)
    >>> start_loss.keep({"loss": 4.5})
    >>> start_loss.is_due(2), start_loss.numbers()
    (False, {'start_loss': 4.5})
    """

    without_state: dict = {}  # checkpoints of earlier versions lack this part

    def __init__(self, freeze_steps: int = 0) -> None:
        self.freeze_steps = freeze_steps
        self.is_wanted = False
        self.value: float | None = None

    def is_due(self, step: int) -> bool:
        """Whether to measure it now, before the next step.

        Arguments
        ---------
        step : int
            Steps that the run has made.
        """
        return self.is_wanted and self.value is None and step == self.freeze_steps

    def keep(self, record: Mapping[str, Any] | None) -> None:
        """Takes the loss of a validation; None, a validation without a batch, gives none."""
        if record is None:
            self.is_wanted = False
            return
        self.value = record["loss"]
        name, reference = loss_reference(record)
        # Not above it: NaN is no loss that says something.
        if not reference - record["loss"] >= MIN_GAIN:
            logger.warning(
                f"The model as it came has the validation loss {record['loss']:.3f}, not "
                f"{MIN_GAIN:g} nats below that of {name} ({reference:.3f}): as a reference it is "
                f"too easy. If the head is new, set freeze_steps: to train it first"
            )

    def numbers(self) -> dict[str, float]:
        """What a log point of a validation shows beside the loss of the run."""
        return {} if self.value is None else {START_LOSS: self.value}

    def state_dict(self) -> dict:
        """The loss, for a checkpoint."""
        return {"is_wanted": self.is_wanted, "value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the loss of ``state_dict``; a ValueError if it is none."""
        value = state.get("value")
        if value is not None and not isinstance(value, float):
            raise ValueError(f"value of the start loss is {value!r}, not a loss")
        self.value, self.is_wanted = value, bool(state.get("is_wanted"))
