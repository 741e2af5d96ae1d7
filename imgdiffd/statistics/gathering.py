"""Puts the statistics of a dataset together from its samples."""

from collections.abc import Callable, Iterable

from imgdiffd.statistics.report import Statistics
from imgdiffd.statistics.tally import KindTally, Seen
from imgdiffd.status import Funnel

DRAWN, IMAGES = 1_000, 200  # by default: samples that counts are rarefied to, and pairs whose images are looked at


def gather(
    samples: Iterable[tuple[str, Seen]],
    source: str,
    *,
    ordered: bool,
    funnel: Funnel | None = None,
    drawn: int = DRAWN,
    images: int = IMAGES,
    seed: int = 0,
    progress: Callable[[int], object] = lambda count: None,
) -> Statistics:
    """Statistics of `samples`, each with its kind; `progress` is told how many have been read.

    The same samples give the same figures: what is drawn at random depends on `seed` alone. Raises what reading the
    samples raises, and ConfigurationError where the names of Objects365 are missing.
    """
    tallies: dict[str, KindTally] = {}
    for number, (kind, sample) in enumerate(samples, 1):
        if kind not in tallies:
            tallies[kind] = KindTally(images, seed)
        tallies[kind].add(sample)
        if number % 1000 == 0:
            progress(number)
    kinds = tuple(tally.report(kind, drawn) for kind, tally in tallies.items())
    return Statistics(source=source, drawn=drawn, ordered=ordered, kinds=kinds, funnel=funnel)
