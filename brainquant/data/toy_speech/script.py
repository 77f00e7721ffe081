"""The script of ToySpeech: its speakers and sentences, which depend on a split and a seed only."""

import random
import zlib
from collections.abc import Iterator
from typing import TypedDict

SPLITS = ("train", "valid", "test")
NUM_SPEAKERS = {"train": 48, "valid": 8, "test": 8}

# Voices that sound like people. Not among them: voices with an echo, which fills the pauses, and
# with a breath, whose samples espeak-ng does not repeat exactly in another process.
ACCENTS = (
    "en-us en en-gb-scotland en-gb-x-rp en-029 en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc"
).split()
VARIANTS = {
    "train": (
        "f1 m1 Annie m3 Andrea m4 steph m6 grandma m7 belinda paul antonio Nguyen gustave quincy "
        "ed edward Alex marcelo"
    ).split(),
    "valid": "aunty m8 rob Mario".split(),
    "test": "shelby david anika Gene Denis norbert".split(),
}

_WORDS = {
    "person": "captain teacher doctor farmer neighbour father mother brother sister judge baker "
    "painter singer driver student nurse stranger child uncle aunt boy girl woman "
    "youth friend thief king queen author pilot sailor shepherd chief musician cousin "
    "lawyer grocer butcher engineer gardener",
    "thing": "book letter chair table bottle yellow_box picture window garden bridge engine "
    "jacket orange vegetable treasure measure television garage_door thread mouth_organ "
    "path oyster coin toy voice ear year bear chair pear flower towel mouse house cow "
    "bird shirt purse nurse's_bag church watch catch cheese shoe fish brush sugar ship "
    "zoo prize rose hand lamp finger ring song bank wool bush cook pool moon spoon "
    "judgement edge bag jug pig log",
    "things": "apples horses bridges questions answers windows boxes pages voices clouds shoes "
    "churches mirrors kitchens lessons baskets pianos jewels feathers wheels stories "
    "photographs potatoes islands engines garages",
    "adjective": "old young yellow quiet loud huge tiny clever gentle strange rusty golden thick "
    "thin warm cool bright dark usual unusual precious fresh broken polished wooden "
    "royal noisy foggy square purple orange silver cheap rough smooth heavy lazy "
    "busy jolly shy weary curious famous modern",
    "past": "watched carried opened borrowed measured painted followed enjoyed noticed imagined "
    "remembered pushed pulled finished covered washed mentioned destroyed bought found "
    "lost chose caught hid brought loved hated drew showed took shared joined cleaned "
    "judged",
    "verb": "watch carry open borrow measure paint follow enjoy notice imagine remember push "
    "pull finish cover wash mention destroy buy find lose choose catch hide bring love "
    "draw show take share join clean judge",
    "place": "by_the_river in_the_village near_the_harbour behind_the_old_church "
    "under_the_bridge on_the_roof across_the_valley at_the_station in_the_kitchen "
    "along_the_beach beside_the_fire above_the_clouds through_the_forest "
    "around_the_corner outside_the_school beyond_the_hills inside_the_garage upstairs",
    "time": "this_morning last_year every_Thursday at_noon before_breakfast after_the_war "
    "in_July yesterday once_again on_his_birthday tonight during_the_storm in_the_autumn "
    "at_midnight two_weeks_ago for_an_hour",
    "name": "George Ruth Joy Paul Hugh Shirley Arthur Beth Vera Charles Joan Keith Ursula Thelma "
    "Roger Yvonne Boyd Zoe Miles Faye Claire Howard",
    "number": "two three four five six seven eight nine ten eleven twelve thirty forty a_hundred "
    "a_thousand",
    "manner": "slowly quickly carefully with_pleasure without_a_word rather_badly very_well "
    "in_a_hurry by_chance as_usual with_both_hands quietly joyfully thoroughly",
    "modal": "could would should might must will can may",
}
WORDS = {kind: [word.replace("_", " ") for word in text.split()] for kind, text in _WORDS.items()}
TEMPLATES = (
    "the {person} {past} your {adjective} {thing} {time}",
    "{name} {past} {number} {things} {manner}",
    "the {adjective} {person} {past} the {adjective} {thing} {place}",
    "{time}, the {person} and the {person} {past} {number} {adjective} {things}",
    "{name} and {name} {past} {number} {things} {place} {time}",
    "why {modal} the {adjective} {person} {verb} the {thing} {manner}",
    "the {thing} was {adjective} and {adjective}, but {name} {past} it {manner}",
    "their {person} {modal} never {verb} such {adjective} {things}, {name} thought",
    "{name} {modal} {verb} your {thing}, and {name} the {things}",
    "these {things} were {adjective}, so the {person} {past} them {manner}",
)


class Voice(TypedDict):
    """The arguments of ``Espeak.synthesise``."""

    voice: str
    rate: int
    pitch: int
    pitch_range: int


class Speaker(TypedDict):
    """A speaker of ToySpeech."""

    name: str
    level: float  # loudness, dB relative to full scale
    voice: Voice


def toy_sentences(split: str, seed: int = 1234) -> Iterator[str]:
    """Yields the sentences of "train", "valid" or "test", without end.

    A sentence has 5 to 16 words. None comes twice, in one split or in two. Another seed makes other
    sentences.

    Example
    -------
    >>> from itertools import islice
    >>> train = set(islice(toy_sentences("train"), 500))
    >>> len(train), len(train & set(islice(toy_sentences("test"), 500)))
    (500, 0)
    """
    draw, seen = random.Random(f"{seed}/{split}"), set()
    while True:
        template = draw.choice(TEMPLATES)
        sentence = ""
        for piece in template.replace("}", "{").split("{"):
            sentence += draw.choice(WORDS[piece]) if piece in WORDS else piece
        sentence = sentence[0].upper() + sentence[1:]
        owner = zlib.crc32(sentence.encode()) % 10  # so each sentence belongs to one split
        if sentence not in seen and SPLITS[owner if owner in (1, 2) else 0] == split:
            seen.add(sentence)
            yield sentence


def toy_speakers(split: str, seed: int = 1234) -> list[Speaker]:
    """The speakers of "train", "valid" or "test"; no variant of a voice is in two splits.

    Another seed makes other speeds, pitches and levels.

    Example
    -------
    >>> [len(toy_speakers(split)) for split in SPLITS]
    [48, 8, 8]
    """
    first = sum(NUM_SPEAKERS[other] for other in SPLITS[: SPLITS.index(split)])
    speakers: list[Speaker] = []
    for index in range(NUM_SPEAKERS[split]):
        turn, variant = divmod(index, len(VARIANTS[split]))
        draw = random.Random(f"{seed}/{split}/{index}")
        voice: Voice = {
            "voice": f"{ACCENTS[(variant + 3 * turn) % len(ACCENTS)]}+{VARIANTS[split][variant]}",
            "rate": draw.randint(140, 190),
            "pitch": draw.randint(35, 65),
            "pitch_range": draw.randint(35, 70),
        }
        level = draw.uniform(-29, -23)
        speakers.append({"name": f"toy{first + index:03d}", "level": level, "voice": voice})
    return speakers
