"""What the columns of a table mean: ours, those of other tools, and those that mean a part."""

import re

COLUMNS = ("ID", "duration", "wav")
SEGMENT = ("start", "stop")  # samples: the clip is a part of its file
CHANNEL = "channel"  # from 0: the clip is one channel of its file
MEMBER = ("offset", "size")  # bytes: the clip is a file inside a tar
PARTS = (*SEGMENT, CHANNEL, *MEMBER)
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")
DECIMAL = re.compile(r"[+-]?([0-9]+[.,][0-9]*|[.,][0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)

# Names that other tools have for where a clip begins and ends, and for its channel. If they were
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


def bounds_among(columns):
    """The columns that mean where a clip begins or ends in its file, by their names.

    Example
    -------
    >>> bounds_among(["ID", "start_time", "EndMs", "text", "endpoint", "t0"])
    ['start_time', 'EndMs', 't0']
    """
    return [column for column in columns if _BOUND.fullmatch(_snake(column))]


def channels_among(columns):
    """The columns that mean which channel a clip is, by their names.

    Example
    -------
    >>> channels_among(["channel", "channelId", "channels", "num_channels"])
    ['channel', 'channelId']
    """
    return [column for column in columns if _CHANNEL.fullmatch(_snake(column))]


def _snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\s-]+", "_", name.strip()).lower()


def fault_of_part(row):
    """What is wrong with the cells of ``start``, ``stop``, ``channel``, ``offset`` and ``size``.

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
                seconds = columns == SEGMENT and DECIMAL.fullmatch(text)
                kind = "of samples" if seconds else "from 0 up"
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
