"""generate: two captions → two images from the same noise, by Prompt-to-Prompt (paper, section 3.1)."""

from collections.abc import Sequence

from torch import Tensor

from imgdiffd.images.files import pair_paths
from imgdiffd.method.messages import GenerateInput, GenerateOutput
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.models.painter import PairPrompt
from imgdiffd.pipeline import Stage, seed_of
from imgdiffd.stages.images import Images


def generate(
    models: Models, profile: Profile, inputs: Sequence[GenerateInput], images: Images
) -> tuple[GenerateOutput, ...]:
    """Paint every pair and write both images, which are durable once the batch is answered."""
    prompts = [
        PairPrompt(
            entry.caption1,
            entry.caption2,
            seed_of(profile.seed, entry.caption1, entry.attempt, Stage.GENERATE),
        )
        for entry in inputs
    ]
    painted = models.need_painter.paint_pairs(prompts, profile.generate)
    outputs = []
    written: dict[str, Tensor] = {}
    for entry, prompt, pair in zip(inputs, prompts, painted, strict=True):
        paths = pair_paths(entry.item, entry.attempt)
        written |= dict(zip(paths, pair, strict=True))
        height, width = pair[0].shape[1:]
        outputs.append(GenerateOutput(entry.item, *paths, width, height, prompt.seed))
    images.write(written)
    return tuple(outputs)
