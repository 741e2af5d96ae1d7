"""compare: a pair's images → how alike they are as wholes (IS; paper, section 3.1)."""

from collections.abc import Sequence

from imgdiffd.method.messages import CLIP_IMAGE_COSINE, CompareInput, CompareOutput, Scores
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import cosines, put


def compare(
    models: Models, profile: Profile, inputs: Sequence[CompareInput], images: Images
) -> tuple[CompareOutput, ...]:
    """The CLIP cosine of every pair, all images in one call."""
    pairs = [images.read_pair(entry.image1, entry.image2) for entry in inputs]
    vectors = models.need_clip.embed_images([image for pair in pairs for image in pair])
    outputs = []
    for entry, cosine in zip(inputs, cosines(vectors[0::2], vectors[1::2]), strict=True):
        scores: Scores = {}
        put(scores, CLIP_IMAGE_COSINE, cosine)
        outputs.append(CompareOutput(entry.item, scores))
    return tuple(outputs)
