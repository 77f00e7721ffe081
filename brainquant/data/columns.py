"""The meaning of a table's columns: our own names, and other tools' names for parts of a file."""

import os
import re
from collections.abc import Iterable, Mapping

COLUMNS = ("ID", "duration", "wav")
SEGMENT = ("start", "stop")  # samples: the clip is a part of its file
CHANNEL = "channel"  # from 0: the clip is one channel of its file
MEMBER = ("offset", "size")  # bytes: the clip is a file inside a tar
SPEAKER = ("spk_id", "speaker", "client_id", "speaker_id")  # the first that is there
PARTS = (*SEGMENT, CHANNEL, *MEMBER)
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
DECIMAL = re.compile(r"[+-]?([0-9]+[.,][0-9]*|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)

# Other tools' names for the beginning and end of a clip, and for its channel. If such a column were
# ignored, each clip would be its whole file.
_BOUND = re.compile(
    r"((seg|segment|clip|utt|utterance|speech|audio|frame)_?)?"
    r"(start|starts|begin|begins|beginning|onset|end|ends|stop|finish|offset|from|to|t0|t1)"
    r"(_?(at|time|times|timestamp|pos|position|ts|s|sec|secs|second|seconds|ms|msec|millis|"
    r"milliseconds|sample|samples|frame|frames))?"
)
_CHANNEL = re.compile(
    r"((audio|input|wav|rec|recording)_?)?(chan|chn|channel)(_?(id|idx|index|no|nr|num|number|"
    r"selector|selection))?"
)


def bounds_among(columns: Iterable[str]) -> list[str]:
    """The columns whose names mean the beginning or end of a clip in its file.

    Example
    -------
    >>> bounds_among(["ID", "start_time", "EndMs", "text", "endpoint", "t0"])
    ['start_time', 'EndMs', 't0']
    """
    return [column for column in columns if _BOUND.fullmatch(_snake(column))]


def check_channel_column(path: str | os.PathLike, columns: Iterable[str]) -> None:
    """Refuses a column that means the channel of a clip and is not named ``channel``.

    Example
    -------
    >>> check_channel_column("a.csv", ["channel", "channelId", "num_channels"])
    >>> check_channel_column("a.csv", ["channelId"])
    Traceback (most recent call last):
    ValueError: a.csv has the column 'channelId'; name it channel, and count from 0 up
    """
    channels = [column for column in columns if _CHANNEL.fullmatch(_snake(column))]
    if channels and CHANNEL not in channels:
        raise ValueError(
            f"{path} has the column {channels[0]!r}; name it channel, and count from 0 up"
        )


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+", "_", name.strip()).lower()


def fault_of_part(row: Mapping[str, str]) -> str | None:
    """What is wrong in the cells of ``start``, ``stop``, ``channel``, ``offset`` and ``size``.

    Example
    -------
    >>> print(fault_of_part({"start": "0", "stop": "1.5"}))
    the column stop has '1.5', not a whole number of samples
    """
    for columns in (SEGMENT, MEMBER):
        texts = [row.get(column, "").strip() for column in columns]
        if not any(texts):
            continue
        for column, text in zip(columns, texts):
            if not text:
                return f"the columns {' and '.join(columns)} must be both filled or both empty"
            if not WHOLE_NUMBER.fullmatch(text):
                is_seconds = columns == SEGMENT and DECIMAL.fullmatch(text)
                kind = "of samples" if is_seconds else "from 0 up"
                return f"the column {column} has {text!r}, not a whole number {kind}"
        first, last = map(int, texts)
        if columns == SEGMENT and first >= last:
            return f"the column stop has '{last}', which is not after the start, {first}"
        if columns == MEMBER and last == 0:
            return "the column size has '0': a file of no bytes"
    text = row.get(CHANNEL, "").strip()
    if text and not WHOLE_NUMBER.fullmatch(text):
        return f"the column channel has {text!r}, not a whole number from 0 up"
    return None
