"""What statistics say, as frozen records: the text, the JSON and the page are made of these."""

from pydantic import BaseModel, ConfigDict

from imgdiffd.status import Funnel

# Section 5.2 of the paper, and how many samples it is about (3.5): two names a sample, less 90 captions without one.
PAPER_SAMPLES, PAPER_CATEGORIES, PAPER_PAIRS = 12_688, 1_203, 3_680
PAPER_OBJECTS365, PAPER_NAMES = 13_164, 25_286


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Count(_Record):
    """How many there are, and how many are expected in `drawn` random samples; None where there are fewer samples."""

    count: int
    rarefied: float | None = None


class Name(_Record):
    """A category, how many captions name it, and whether it is a class of Objects365."""

    name: str
    count: int
    objects365: bool


class NamePair(_Record):
    """What the first and the second caption of a sample name, and in how many samples."""

    first: str
    second: str
    count: int


class Diversity(_Record):
    """The objects that captions name. `pairs` are of different names, in order; `nameless` are captions without a noun.

    `objects365` counts the occurrences of names of Objects365 among `names`, all occurrences.
    """

    names: int
    nameless: int
    categories: Count
    objects365: int
    pairs: Count
    unordered_pairs: Count
    same_name: int
    top_names: tuple[Name, ...]
    top_pairs: tuple[NamePair, ...]


class WordClass(_Record):
    """Of a class of words: samples of which both captions, one, or none has such a word; `differ` is a part of `both`.

    Classes of which no caption has a word have no row.
    """

    name: str
    both: int
    differ: int
    one: int
    none: int


class Repeats(_Record):
    """Samples that say what an earlier one said: in the same words, or in the same content words in any order."""

    exact: Count
    near: Count


class ImageRepeats(_Record):
    """Of `compared` random samples, those whose two images nearly equal those of another one of another pair.

    `unreadable` were drawn too, but their images are missing or damaged.
    """

    compared: int
    near: int
    unreadable: int


class Histogram(_Record):
    """How often a score of the samples lies in each of equally wide bins, the first of which begins at `low`."""

    name: str
    low: float
    width: float
    counts: tuple[int, ...]
    least: float
    mean: float
    most: float


class KindStatistics(_Record):
    """The samples of one kind. `captions` counts the distinct captions that they come from, 0 where that is unknown.

    `repeated_captions` are those among them that have the content words of an earlier one.
    """

    kind: str
    samples: int
    captions: int
    repeated_captions: Count | None
    diversity: Diversity
    words: tuple[WordClass, ...]
    laws: tuple[str, ...]
    repeats: Repeats
    images: ImageRepeats | None
    scores: tuple[Histogram, ...]


class Statistics(_Record):
    """A dataset in figures. `drawn` is the number of samples that counts are rarefied to.

    With `ordered`, the first name of a pair is what was replaced and the second what replaced it; else they are left
    and right.
    """

    source: str
    drawn: int
    ordered: bool
    kinds: tuple[KindStatistics, ...]
    funnel: Funnel | None = None
