"""The paper's ablation of thresholds (table 14), cut out of one run: what each of its four settings keeps."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from imgdiffd.method.filters import choose_regions, judge_description, judge_pair
from imgdiffd.method.messages import Box, Description, match_key
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Bound
from imgdiffd.method.replay import StoredRegion
from imgdiffd.store.stored import StoredCaption


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of table 14: bounds of IS, BITM, CS and CITM; `delta` is the paper's mean gain on eight benchmarks in %."""

    row: int
    above: float
    below: float
    noun: float
    text: float
    match: float
    delta: float

    def of(self, profile: Profile) -> Profile:
        """`profile` with this setting, and with the paper's overlap filter and its five regions a pair (3.2)."""
        pair = {"above": Bound(value=self.above), "below": Bound(value=self.below)}
        locate = {"noun_above": Bound(value=self.noun), "overlap_iou": Bound(value=0.5), "regions": 5}
        describe = {"text_cosine_below": Bound(value=self.text), "match_above": Bound(value=self.match)}
        changed = {
            "pair": profile.pair.model_copy(update=pair),
            "locate": profile.locate.model_copy(update=locate),
            "describe": profile.describe.model_copy(update=describe),
        }
        return profile.model_copy(update=changed)


TABLE_14 = (
    Setting(1, 0.9, 0.98, 0.3, 0.9, 0.3, 2.42),
    Setting(2, 0.9, 0.98, 0.35, 0.9, 0.3, 2.52),
    Setting(3, 0.9, 0.98, 0.35, 0.85, 0.4, 3.06),
    Setting(4, 0.85, 0.98, 0.35, 0.85, 0.4, 2.24),
)
OURS = 3  # the row that the paper chose


@dataclass(slots=True)
class RowTally:
    """What a setting keeps of a run. `undescribed` are regions that it chooses and the run never described.

    `samples` are those of the run that it keeps, as (item, box); `equal` counts the described regions whose two
    texts are the same, `matches` are the samples' scores of texts against crops (CITM).
    """

    setting: Setting
    pairs: int = 0
    regions: int = 0
    undescribed: int = 0
    equal: int = 0
    samples: set[tuple[int, Box]] = field(default_factory=set)
    matches: list[float] = field(default_factory=list)

    @property
    def equal_share(self) -> float | None:
        """The share of the described regions whose texts are the same; None without any."""
        described = self.regions - self.undescribed
        return self.equal / described if described else None

    @property
    def mean_match(self) -> float | None:
        """The mean CITM of the samples; None without any."""
        return fmean(self.matches) if self.matches else None

    def kept_of(self, other: "RowTally") -> float | None:
        """The share of the other setting's samples that this one keeps; None where it has none."""
        return len(self.samples & other.samples) / len(other.samples) if other.samples else None


def tally(captions: Iterable[StoredCaption], settings: Sequence[Setting] = TABLE_14) -> list[RowTally]:
    """What each setting keeps of these captions, from their stored scores and texts alone."""
    found = [RowTally(setting) for setting in settings]
    for caption in captions:
        for each in found:
            _add(each, caption)
    return found


def _add(found: RowTally, caption: StoredCaption) -> None:
    stored, pair = caption.caption, caption.caption.pair
    profile = found.setting.of(stored.profile)
    if pair is None or not judge_pair(pair.scores, profile.pair).passed:
        return
    found.pairs += 1
    regions = choose_regions(stored.candidates or (), profile.locate, pair.width, pair.height).regions
    known = {region.box: region for region in stored.regions}
    found.regions += len(regions)
    for chosen in regions:
        region = known.get(chosen.box)
        if region is None or not (region.text1 or region.text2):
            found.undescribed += 1
            continue
        found.equal += _words(region.text1) == _words(region.text2)
        description = Description(chosen.index, region.text1, region.text2, region.scores)
        if region.images and judge_description(description, profile.describe).passed:
            found.samples.add((stored.item, region.box))
            found.matches.append(_match(region, profile))


def _words(text: str) -> str:
    return " ".join(text.split()).casefold()


def _match(region: StoredRegion, profile: Profile) -> float:
    return fmean(region.scores[match_key(profile.describe.match_kind, side)] for side in (1, 2))
