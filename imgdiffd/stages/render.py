"""render: a region → the sample's left and right picture, red boxes burnt in (paper, section 3.4).

It owns which files a sample consists of; the drawing is `drawing`'s.
"""

from collections.abc import Sequence

from torch import Tensor

from imgdiffd.images.files import sample_paths
from imgdiffd.method.messages import Rendered, RenderInput, RenderOutput
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.stages.drawing import with_box
from imgdiffd.stages.images import Pictures


def render(
    models: Models, profile: Profile, inputs: Sequence[RenderInput], pictures: Pictures
) -> tuple[RenderOutput, ...]:
    """Write both pictures of every region; they are durable on return, and the same on every run."""
    outputs = []
    drawn: dict[str, Tensor] = {}
    for entry in inputs:
        pair = pictures.read_pair(entry.image1, entry.image2)
        rendered = []
        for region in entry.regions:
            paths = sample_paths(entry.image1, region.index)
            for path, picture in zip(paths, pair if region.left == 1 else pair[::-1], strict=True):
                drawn[path] = with_box(picture, region.box, profile.render, profile.contrast.bar_px)
            rendered.append(Rendered(region.index, *paths))
        outputs.append(RenderOutput(entry.item, tuple(rendered)))
    pictures.write(drawn, keep=False)
    return tuple(outputs)
