"""Language models: reading an image once for all its questions or once each, and rewrites at once or one by one."""

from collections.abc import Iterator

from imgdiffd.method.profile import Profile
from imgdiffd.models.rewriter import Rewriter
from tests.benchmarks.cropping import drawn_image
from tests.benchmarks.measuring import Ratio, compare
from tests.benchmarks.workshop import Workshop
from tests.tiny import models as tiny_models

QUESTIONS = (
    "Please provide a clear description for this region: [0.12, 0.30, 0.45, 0.62].",
    "Please provide a clear description for this region: [0.01, 0.11, 0.98, 0.50].",
    "Please provide a clear description for this region: [0.55, 0.72, 0.83, 0.99].",
    "Please provide a clear description for this region: [0.33, 0.33, 0.66, 0.66].",
    "Please provide a clear description for this region: [0.70, 0.05, 0.90, 0.25].",
)
_SCENES = ("a dog lies on the grass", "a red bicycle leans on a wall", "two cats on a sofa", "a boat on the lake")
CAPTIONS = tuple(f"{scene}, image number {number}" for number in range(8) for scene in _SCENES)


def captions_ratio(workshop: Workshop, *, rounds: int = 3, target: float = 1.0) -> Ratio:
    """Captions of 5 boxes in each of 2 images: two looks at images against ten."""
    model, sizes = workshop.image_text_to_text_model(), workshop.sizes
    images = [drawn_image(sizes.picture_px, seed).to(workshop.device) for seed in (4, 5)]
    count, new_tokens = len(QUESTIONS), sizes.new_tokens[1]
    shared, each = workshop.captioner(model), workshop.captioner(model, images=2 * count)
    every = [image for image in images for _ in QUESTIONS]
    return compare(
        f"captions of {count} boxes in 2 images, one prefill an image / a question",
        lambda: shared.answer(images, [QUESTIONS] * 2, new_tokens),
        lambda: each.answer(every, [[question] for question in QUESTIONS] * 2, new_tokens),
        rounds=rounds,
        peak=workshop.device,
        items=2 * count,
        target=target,
    )


def rewrites_ratio(workshop: Workshop, profile: Profile, *, rounds: int = 3, target: float = 1.0) -> Ratio:
    """Rewrites in passes of many captions against passes of one."""
    model = workshop.language_model()
    rewrite = profile.rewrite.model_copy(update={"max_new_tokens": workshop.sizes.new_tokens[0]})
    words = tiny_models.tokenizer(4096, tiny_models.CHAT)
    count = workshop.sizes.rewrites
    batched, single = Rewriter(model, words, count), Rewriter(model, words, 1)
    chosen, seeds = CAPTIONS[:count], range(count)
    return compare(
        f"{count} rewrites, batched / one by one",
        lambda: batched.rewrite(chosen, seeds, rewrite),
        lambda: single.rewrite(chosen, seeds, rewrite),
        rounds=rounds,
        items=count,
        target=target,
    )


def ratios(workshop: Workshop, profile: Profile, *, rounds: int = 3) -> Iterator[Ratio]:
    """Both, one after the other, so that one model is held at a time."""
    yield captions_ratio(workshop, rounds=rounds)
    workshop.release()
    yield rewrites_ratio(workshop, profile, rounds=rounds)
    workshop.release()
