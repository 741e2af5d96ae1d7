"""render: a region → the sample's left and right image, with red boxes drawn in (paper, section 3.4)."""

from collections.abc import Sequence

from torch import Tensor

from imgdiffd.images.files import sample_paths
from imgdiffd.method.messages import Rendered, RenderInput, RenderOutput
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.stages.drawing import sample_sides
from imgdiffd.stages.images import Images


def render(models: Models, profile: Profile, inputs: Sequence[RenderInput], images: Images) -> tuple[RenderOutput, ...]:
    """Write both images of every region; they are durable once the batch is answered, and the same on every run."""
    outputs = []
    drawn: dict[str, Tensor] = {}
    for entry in inputs:
        pair = images.read_pair(entry.image1, entry.image2)
        rendered = []
        for region in entry.regions:
            paths = sample_paths(entry.image1, region.index)
            sides = sample_sides(pair, region.left, region.box, profile.render, profile.contrast.bar_px)
            drawn |= dict(zip(paths, sides, strict=True))
            rendered.append(Rendered(region.index, *paths))
        outputs.append(RenderOutput(entry.item, tuple(rendered)))
    images.write(drawn, keep=False)
    return tuple(outputs)
