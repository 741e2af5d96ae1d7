"""vet: a pair's images → whether they look natural to the judge (from the authors' scripts; not in the paper)."""

from collections.abc import Sequence

from imgdiffd.method.messages import YES_PROBABILITY, Scores, VetInput, VetOutput
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.stages.drawing import joined
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import put


def vet(models: Models, profile: Profile, inputs: Sequence[VetInput], images: Images) -> tuple[VetOutput, ...]:
    """Show each pair joined, the original on the left, and ask whether it is reasonable."""
    pairs = [images.read_pair(entry.image1, entry.image2) for entry in inputs]
    shown = [joined(*pair, profile.contrast.bar_px) for pair in pairs]
    judgements = models.need_judge.judge(shown, profile.natural.prompt, profile.natural.max_new_tokens)
    outputs = []
    for entry, judgement in zip(inputs, judgements, strict=True):
        scores: Scores = {}
        put(scores, YES_PROBABILITY, judgement.yes_probability)
        outputs.append(VetOutput(entry.item, judgement.answer, scores))
    return tuple(outputs)
