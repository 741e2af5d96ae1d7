"""screen: a region → whether its sample's boxed images look natural to the judge (from the authors' scripts)."""

from collections.abc import Sequence

from imgdiffd.method.messages import YES_PROBABILITY, Scores, Screened, ScreenInput, ScreenOutput
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.stages.drawing import joined, sample_sides
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import put


def screen(models: Models, profile: Profile, inputs: Sequence[ScreenInput], images: Images) -> tuple[ScreenOutput, ...]:
    """Show each region's sample as it is going to be, its sides joined, and ask whether it is reasonable."""
    bar_px = profile.contrast.bar_px
    shown = []
    for entry in inputs:
        pair = images.read_pair(entry.image1, entry.image2)
        for region in entry.regions:
            sides = sample_sides(pair, region.left, region.box, profile.render, bar_px)
            shown.append(joined(*sides, bar_px))
    natural = profile.natural
    judgements = iter(models.need_judge.judge(shown, natural.prompt, natural.max_new_tokens) if shown else ())
    outputs = []
    for entry in inputs:
        regions = []
        for region in entry.regions:
            judgement, scores = next(judgements), Scores()
            put(scores, YES_PROBABILITY, judgement.yes_probability)
            regions.append(Screened(region.index, judgement.answer, scores))
        outputs.append(ScreenOutput(entry.item, tuple(regions)))
    return tuple(outputs)
