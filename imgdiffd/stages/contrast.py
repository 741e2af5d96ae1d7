"""contrast: a region's two descriptions → the difference caption, asked of the joined image (paper, section 3.4)."""

import re
from collections.abc import Sequence

from imgdiffd.method.messages import ContrastInput, ContrastOutput, ContrastRegion, Difference
from imgdiffd.method.profile import Profile
from imgdiffd.method.profile_sections import Contrast
from imgdiffd.models.loading import Models
from imgdiffd.stages.drawing import joined, sample_sides
from imgdiffd.stages.images import Images


def contrast(
    models: Models, profile: Profile, inputs: Sequence[ContrastInput], images: Images
) -> tuple[ContrastOutput, ...]:
    """Show each region's joined pair, with the sample's boxes drawn in, and ask for the difference."""
    shown, asked = [], []
    bar_px = profile.contrast.bar_px
    for entry in inputs:
        pair = images.read_pair(entry.image1, entry.image2)
        for region in entry.regions:
            sides = sample_sides(pair, region.left, region.box, profile.render, bar_px)
            shown.append(joined(*sides, bar_px))
            asked.append([question(profile.contrast, region)])
    told = profile.contrast.max_new_tokens, profile.contrast.system_prompt
    answers = iter(models.need_captioner.answer(shown, asked, *told) if shown else ())
    return tuple(
        ContrastOutput(entry.item, tuple(Difference(region.index, next(answers)[0]) for region in entry.regions))
        for entry in inputs
    )


def question(contrast: Contrast, region: ContrastRegion) -> str:
    """The prompt, with each description in the place of its image's side."""
    left, right = (region.text1, region.text2) if region.left == 1 else (region.text2, region.text1)
    texts = {"{left}": left, "{right}": right}
    # In one pass, since a description may itself contain {left} or {right}.
    return re.sub(r"\{left\}|\{right\}", lambda found: texts[found[0]], contrast.prompt)
