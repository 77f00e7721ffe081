"""Draws step.svg: one training step, its hooks and the parts that do the work.

> python docs/explanation/step_figure.py
"""

from pathlib import Path

WIDTH, GAP = 440, 12
BOX = "#f3f6fa", "#7d8da1"  # fill, line
OURS, YOURS = "#0b5394", "#9a3b00"
LOOPS = {"epoch": "for each epoch", "batch": "for each batch", "step": "if the step is complete"}
# The hook, or "" where none is called; what happens; the part that does it; the loops around it.
ROWS = [
    ("on_fit_start", "compare the ranks, load the checkpoint", "setup, all parts", ""),
    ("on_optimizer_step", "anneal the quantiser", "", ""),
    ("on_stage_start", "start the sums of the epoch", "tally", "epoch"),
    ("", "read a batch, note unreadable clips", "left_out", "epoch batch"),
    ("on_fit_batch_start", "seed the random generators", "", "epoch batch"),
    ("compute_forward", "mask, codes, encoder, scores", "objective", "epoch batch"),
    ("compute_objectives", "the loss; count the codes", "objective, tally", "epoch batch"),
    ("", "backward pass", "steps", "epoch batch"),
    ("", "clip and step, unless not finite", "steps", "epoch batch step"),
    ("on_fit_batch_end", "log, every log_interval steps", "tally, run_log", "epoch batch step"),
    ("on_optimizer_step", "anneal the quantiser", "", "epoch batch step"),
    ("", "all ranks: stop? save?", "meeting", "epoch batch step"),
    ("save", "a checkpoint, every so many minutes", "all parts", "epoch batch step"),
    ("on_stage_end", "log the epoch", "tally, run_log", "epoch"),
    ("", "validate, then save", "tally, all parts", "epoch"),
]


def draw():
    """The figure as SVG text."""
    shapes, y, open_loops = [], GAP, []
    for number, (hook, text, part, loops) in enumerate(ROWS):
        loops = loops.split()
        for loop in loops[len(open_loops) :]:
            shapes.append(label(16 + 12 * len(open_loops), y + 14, LOOPS[loop]))
            open_loops.append((loop, y))
            y += 22
        x = 16 + 12 * len(loops)
        shapes.append(row(x, y, hook, text, part))
        y += height_of(hook) + GAP
        following = ROWS[number + 1][3].split() if number + 1 < len(ROWS) else []
        while len(open_loops) > len(following):
            _, top = open_loops.pop()
            shapes.insert(0, frame(8 + 12 * len(open_loops), top, y - GAP + 6))
            y += 8
    style = "font-family='sans-serif' font-size='14'"
    size = f"width='{WIDTH}' height='{y}' viewBox='0 0 {WIDTH} {y}'"
    background = f"<rect width='{WIDTH}' height='{y}' fill='white'/>"
    title = "<title>One training step with its hooks</title>"
    return "\n".join([
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {style}>", title, background, *shapes,
        "</svg>\n",
    ])  # fmt: skip


def row(x, y, hook, text, part):
    """A box: the hook and its part above, what happens below."""
    colour = YOURS if "objective" in part else OURS
    right, height = WIDTH - x, height_of(hook)
    fill, line = BOX
    return "\n".join([
        f"<rect x='{x}' y='{y}' width='{right - x}' height='{height}' rx='5' fill='{fill}' "
        f"stroke='{line}'/>",
        f"<text x='{x + 10}' y='{y + 20}' font-family='monospace' font-weight='bold' "
        f"fill='{colour}'>{hook}</text>",
        f"<text x='{right - 8}' y='{y + 20}' text-anchor='end' font-size='12' fill='#555'>"
        f"{part}</text>",
        f"<text x='{x + 10}' y='{y + height - 10}'>{text}</text>",
    ])  # fmt: skip


def height_of(hook):
    """Two lines with a hook, one without."""
    return 50 if hook else 32


def frame(x, top, bottom):
    """A line around what repeats."""
    return (
        f"<rect x='{x}' y='{top}' width='{WIDTH - 2 * x}' height='{bottom - top}' rx='7' "
        f"fill='none' stroke='#b0bac6' stroke-dasharray='5 3'/>"
    )


def label(x, y, text):
    """What a frame repeats for."""
    return f"<text x='{x}' y='{y + 2}' font-size='12' font-style='italic' fill='#555'>{text}</text>"


if __name__ == "__main__":
    Path(__file__).with_name("step.svg").write_text(draw(), "utf-8")
