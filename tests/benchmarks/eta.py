"""How far off the time is that a training says is left.

> python tests/benchmarks/eta.py recipes/ToySpeech/hparams/best_rq.yaml --minutes 20 \
    --data_folder data/ToySpeech --record times.json

Trains for about so many minutes, and compares what the run said was left, at moments of it, with
what was. Further options are those of the recipe. With `--cpu_time` the clock counts the CPU time
of this process, which other processes on the machine change little; use `--num_workers 0`.

> python tests/benchmarks/eta.py --replay times.json --minutes 20

Trains nothing: the batches of a recorded run pass again, on a simulated clock, from many places of
the record on and over and over again, for so many minutes. `--steady` gives each batch the mean
time, which leaves the errors of what is counted.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time

from measure import machine, print_table

from brainquant.recipe import build_brain, build_loaders
from brainquant.training.hparams import load_hparams, parse_arguments
from brainquant.training.time_left import CHECKPOINT, QUALITY, Limits, TimeLeft

TRIED_STEPS = 60
MOMENTS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9)  # of the run
AFTER_SECONDS = 120


class Recorder(TimeLeft):
    """Keeps each estimate with its moment, and the seconds of each batch and pause."""

    def __init__(self, clock=None):
        super().__init__(clock)
        self.estimates, self.taken, self.limits_of_run = [], [], None

    def start_epoch(self, limits):
        self.limits_of_run = self.limits_of_run or limits
        super().start_epoch(limits)

    def count_batch(self, step, turns_left):
        before = self.last + self.paused
        super().count_batch(step, turns_left)
        self.taken.append(self.last - before)
        if self.seconds is not None:
            self.estimates.append((self.last, self.seconds))


def train(recipe, options, steps, clock):
    """Trains; gives the recorder, and when the training began and ended."""
    with tempfile.TemporaryDirectory() as folder:
        argv = [recipe, *options, "--output_folder", folder, "--optimizer_step_limit", str(steps)]
        argv += ["--train_loggers", "[]", "--noprogressbar", "--warmup_steps", "1"]
        hparams_file, run_opts, overrides = parse_arguments(argv)
        hparams = load_hparams(hparams_file, overrides)
        if hparams["prepare"]:
            hparams["prepare"]()
        brain = build_brain(hparams, run_opts)
        brain.time_left = recorder = Recorder(clock)
        brain.run_log.draw_report = lambda *_: None
        loaders = build_loaders(brain, hparams)
        began = clock()
        brain.fit(hparams["epoch_counter"], *loaders)
        return recorder, began, clock()


def errors_at(estimates, began, ended):
    """A row for each moment: what was said to be left, what was, and the error."""
    total, rows = ended - began, []
    moments = {f"{share:.0%}": share * total for share in MOMENTS}
    if total > AFTER_SECONDS:
        moments[f"{AFTER_SECONDS // 60} min"] = AFTER_SECONDS
    for name, seconds in sorted(moments.items(), key=lambda item: item[1]):
        known = [(now, left) for now, left in estimates if now - began <= seconds]
        if not known:
            rows.append({"after": name, "said, s": "nothing", "was, s": "", "error": ""})
            continue
        now, left = known[-1]
        was = ended - now
        rows.append({
            "after": name, "said, s": f"{left:.0f}", "was, s": f"{was:.0f}",
            "error": f"{(left - was) / was:+.1%}",
        })  # fmt: skip
    return rows


def replay(record, minutes, start):
    """A run of recorded batches on a simulated clock; gives the estimates, its begin and end."""
    now, steps = 0.0, 0
    times, costs = record["batches"], record["pauses"]
    mean = statistics.mean(times)
    limits = Limits(**{**record["limits"], "epochs_left": 1e9})
    limits = limits._replace(steps=int(60 * minutes / mean / limits.accumulation))
    recorder = Recorder(lambda: now)
    last_quality = done = 0
    while steps < limits.steps:
        recorder.start_epoch(limits._replace(quality_step=last_quality))
        for turn in range(1, limits.turns + 1):
            now += times[(start + done) % len(times)]
            done += 1
            steps += turn % limits.accumulation == 0 or turn == limits.turns
            recorder.count_batch(steps, limits.turns - turn)
            if steps >= limits.steps:
                break
        now += costs.get("the end of an epoch", 0.0)
        if steps - last_quality >= limits.quality_steps or steps >= limits.steps:
            last_quality = steps
            with recorder.pause(QUALITY):
                now += costs.get(QUALITY, 0.0)
        with recorder.pause(CHECKPOINT):
            now += costs.get(CHECKPOINT, 0.0)
    return recorder.estimates, 0.0, now


def replays(path, minutes, steady):
    """A row for each moment, over replays from 40 places of a record."""
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    if steady:
        record["batches"] = [statistics.mean(record["batches"])] * len(record["batches"])
    found = {}
    for start in random.Random(0).sample(range(len(record["batches"])), 40):
        for row in errors_at(*replay(record, minutes, start)):
            if row["error"]:
                found.setdefault(row["after"], []).append(abs(float(row["error"][:-1])))
    return [
        {
            "after": name,
            "runs": len(of_moment),
            "median error": f"{statistics.median(of_moment):.1f}%",
            "worst": f"{max(of_moment):.1f}%",
        }
        for name, of_moment in found.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--record")
    parser.add_argument("--replay")
    parser.add_argument("--steady", action="store_true")
    parser.add_argument("--cpu_time", action="store_true")
    arguments, options = parser.parse_known_args()
    print(machine())
    if arguments.replay:
        title = f"{os.path.basename(arguments.replay)}: runs of {arguments.minutes:g} minutes"
        print_table(title, replays(arguments.replay, arguments.minutes, arguments.steady))
        return
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    tried, began, ended = train(arguments.recipe, options, TRIED_STEPS, clock)
    pace = statistics.mean(tried.taken[TRIED_STEPS // 3 :])
    accumulation = tried.limits_of_run.accumulation
    steps = max(int(60 * arguments.minutes / pace / accumulation), TRIED_STEPS)
    recorder, began, ended = train(arguments.recipe, options, steps, clock)
    title = f"{arguments.recipe}: {steps} steps, {(ended - began) / 60:.1f} minutes"
    print_table(title, errors_at(recorder.estimates, began, ended))
    if arguments.record:
        pauses = {name: statistics.mean(p) for name, p in recorder.pauses.items() if p}
        limits = recorder.limits_of_run._asdict()
        with open(arguments.record, "w", encoding="utf-8") as file:
            json.dump({"batches": recorder.taken, "pauses": pauses, "limits": limits}, file)


if __name__ == "__main__":
    main()
