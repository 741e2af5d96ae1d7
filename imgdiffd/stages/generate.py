"""generate: two captions → two images from the same noise, by Prompt-to-Prompt (paper, section 3.1)."""

from collections.abc import Sequence

from torch import Tensor

from imgdiffd.images.files import pair_paths
from imgdiffd.method.filters import finishes_anyway, judge_preview
from imgdiffd.method.messages import PREVIEW_COSINE, GenerateInput, GenerateOutput, Scores
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.models.painter import Images as Pair
from imgdiffd.models.painter import PairPrompt
from imgdiffd.pipeline import Stage, seed_of
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import cosines, put


def generate(
    models: Models, profile: Profile, inputs: Sequence[GenerateInput], images: Images
) -> tuple[GenerateOutput, ...]:
    """Paint every pair and write both images, which are durable once the batch is answered.

    Unless the profile says otherwise, each pair is scored by a preview, and given up, with nothing written, if that
    score lies beyond a threshold in force.
    """
    prompts = [
        PairPrompt(
            entry.caption1,
            entry.caption2,
            seed_of(profile.seed, entry.caption1, entry.attempt, Stage.GENERATE),
        )
        for entry in inputs
    ]
    attempts = {prompt: entry.attempt for prompt, entry in zip(prompts, inputs, strict=True)}
    scores: dict[PairPrompt, Scores] = {prompt: {} for prompt in prompts}
    abort, px = profile.generate.abort, profile.generate.picture_px

    def goes_on(prompt: PairPrompt, previews: Pair) -> bool:
        vectors = models.need_clip.embed_images(previews)
        [cosine] = cosines(vectors[:1], vectors[1:])
        put(scores[prompt], PREVIEW_COSINE, cosine)
        finishes = finishes_anyway(profile, prompt.caption1, attempts[prompt])
        return judge_preview(scores[prompt].get(PREVIEW_COSINE), abort, finishes=finishes).passed

    watch = None if abort.mode == "off" else goes_on
    painted = models.need_painter.paint_watched(prompts, profile.generate, watch)
    outputs = []
    written: dict[str, Tensor] = {}
    for entry, prompt, pair in zip(inputs, prompts, painted, strict=True):
        paths: tuple[str | None, str | None] = (None, None)
        if pair is not None:
            paths = names = pair_paths(entry.item, entry.attempt)
            written |= dict(zip(names, pair, strict=True))
        outputs.append(GenerateOutput(entry.item, *paths, px, px, prompt.seed, scores[prompt]))
    images.write(written)
    return tuple(outputs)
