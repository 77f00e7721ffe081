"""The codes of one codebook: a table with sounds, a matrix with phones, and use over training.

Shape suffixes: T frames of a clip, V codes, P phones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from markupsafe import Markup

from ..monitoring.counts import code_statistics
from ..monitoring.page import table
from .code_tables import UNKNOWN, CodeTable, Stretches, find_stretches, tabulate
from .coded_speech import CodedSpeech
from .listening import Sounds, segment_buttons
from .phones import phone_matrix, share_text, top_phones
from .segments import LONGEST, choose_stretches, segment_of
from .usage import Period


class CodebookView:
    """The codes of one codebook."""

    def __init__(self, speech: CodedSpeech, codebook: int, phones: Sequence[str]) -> None:
        self.speech, self.codebook, self.phones = speech, codebook, phones
        names = sorted({clip.speaker for clip in speech.clips})
        self.has_speakers = names != [""]
        self.speakers = [names.index(clip.speaker) for clip in speech.clips]
        numbers = {phone: number for number, phone in enumerate(phones)}
        self.stretches: Stretches = find_stretches(
            [clip.codes_TG[:, codebook] for clip in speech.clips]
        )
        self.table: CodeTable = tabulate(
            self.stretches,
            self.speakers,
            speech.codebook_size,
            phones=[
                np.full(len(clip.codes_TG), UNKNOWN)
                if clip.phones_T is None
                else np.array([numbers[phone] for phone in clip.phones_T])
                for clip in speech.clips
            ],
            num_phones=len(phones),
        )

    def describe(self, periods: Sequence[Period], sounds: Sounds, audio: int, most: int) -> Markup:
        """Table with sounds, matrix, and use over time.

        Arguments
        ---------
        periods : sequence of Period
            Counts of the training.
        sounds : Sounds
            Takes the segments that are to be heard.
        audio : int
            Segments of each code.
        most : int
            Rows of the table.
        """
        parts = [self._code_table(self.table.order[:most], periods, sounds, audio)]
        if self.phones:
            parts.append(phone_matrix(self.table, self.phones))
        parts.append(self._usage(periods))
        return Markup("").join(parts)

    def _code_table(
        self, shown: np.ndarray, periods: Sequence[Period], sounds: Sounds, audio: int
    ) -> Markup:
        of, frame = self.table, 1000 * self.speech.frame_seconds
        changes = [self._shares(period) for period in (*periods[:1], *periods[-1:])]
        headers = ["code"] + ["listen"] * (audio > 0)
        headers += ["rank", "share of frames", "mean duration"]
        headers += ["speakers"] * self.has_speakers + ["phones"] * bool(self.phones)
        headers += ["share in training, first and last period"] * (len(periods) > 1)
        rows = []
        share_V, phone_share_VP = of.share_V, of.phone_share_VP
        for rank, code in enumerate(shown.tolist(), 1):
            row: list[object] = [code]
            if audio:
                row.append(segment_buttons(code, self._sounds_of(code, sounds, audio)))
            mean = frame * of.frames_V[code] / of.stretches_V[code]
            row += [rank, share_text(share_V[code]), f"{mean:.0f} ms"]
            row += [int(of.speakers_V[code])] * self.has_speakers
            row += [top_phones(phone_share_VP[code], self.phones)] * bool(self.phones)
            if len(periods) > 1:
                row.append(f"{share_text(changes[0][code])}, {share_text(changes[1][code])}")
            rows.append(row)
        used, size = len(of.order), self.speech.codebook_size
        text = f"{used:,} of {size:,} codes are used in this speech."
        if used > len(shown):
            share = share_text(1 - share_V[shown].sum())
            text += f" The table has the {len(shown)} commonest; the others have {share} of frames."
        how = Markup()
        if audio:
            how = Markup(
                '<p class="how">Each number plays the code with 0.2 s before and after it, from '
                "different speakers where possible. Arrow keys go from sound to sound, Enter "
                "plays, Escape stops. Every clip is as loud as any other; of a code longer than "
                "{:g} s the first part is played.</p>"
            ).format(LONGEST)
        return Markup('<h3>{}</h3><p>{}</p>{}<div class="code-table">{}</div>').format(
            "The codes by frequency", text, how, table(headers, rows, caption="Codes by frequency")
        )

    def _sounds_of(self, code: int, sounds: Sounds, count: int) -> list[tuple[int, str]]:
        """The number of each sound of a code, and the ID of its clip."""
        long = round(LONGEST / self.speech.frame_seconds)
        chosen = choose_stretches(self.stretches, code, self.speakers, count, long=long)
        found = []
        columns = self.stretches.clip, self.stretches.first, self.stretches.length
        for number, first, length in zip(*(column[chosen].tolist() for column in columns)):
            clip = self.speech.clips[number]
            segment = segment_of(*self.speech.span(first, length), number, clip.seconds)
            phone = "" if clip.phones_T is None else str(clip.phones_T[first + length // 2])
            found.append((sounds.add(clip, segment, phone=phone), clip.id))
        return found

    def _usage(self, periods: Sequence[Period]) -> Markup:
        if not periods:
            return Markup(
                "<p>No checkpoint of the run says how often each code was a target in training; "
                "the curves have the number of codes in use.</p>"
            )
        rows = []
        for period in periods:
            shares_V = self._shares(period)
            best = int(shares_V.argmax())
            of_books = code_statistics(torch.from_numpy(period.counts_GV))["code_perplexity"]
            rows.append([
                f"{period.first + 1:,} to {period.last:,}",
                f"{period.counts_GV[self.codebook].sum():,}",
                int((shares_V > 0).sum()),
                f"{of_books[self.codebook]:.1f}",
                f"{best} ({share_text(shares_V[best])})",
                share_text(np.sort(shares_V)[-10:].sum()),
            ])  # fmt: skip
        return Markup("<h3>Use over the training</h3>{}").format(
            table(
                ["steps", "target frames", "codes in use", "perplexity", "commonest code",
                 "the ten commonest"],
                rows, caption="Targets of training between the checkpoints that the run has kept",
            )
        )  # fmt: skip

    def _shares(self, period: Period) -> np.ndarray:
        counts_V = period.counts_GV[self.codebook]
        return counts_V / max(1, counts_V.sum())
