"""inspect: an erasure → what was there, how well that fits the original's and the erased crop, and the sample."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from imgdiffd.images.files import removal_paths
from imgdiffd.method.profile import Profile
from imgdiffd.method.removal import Inspection, RemovalSample, erased_key, holder_of, judge_inspection, original_key
from imgdiffd.method.removal_messages import Erasure, Inspected, InspectInput, InspectOutput
from imgdiffd.models.loading import Models
from imgdiffd.stages.describe import question
from imgdiffd.stages.drawing import with_box
from imgdiffd.stages.erase import at_removal_size
from imgdiffd.stages.images import Images
from imgdiffd.stages.scores import put


def inspect_pairs(
    models: Models, profile: Profile, inputs: Sequence[InspectInput], images: Images
) -> tuple[InspectOutput, ...]:
    """`inspect` every erasure of every pair, then `finish` those that pass while their images are still at hand."""
    inspections = inspect(models, profile, [erasure for entry in inputs for erasure in entry.erasures], images)
    finished = {_object(sample.erasure): sample for sample in finish(profile, inspections, images)}
    told: Iterator[Inspection] = iter(inspections)
    return tuple(
        InspectOutput(entry.item, tuple(_inspected(next(told), finished) for _ in entry.erasures)) for entry in inputs
    )


def _object(erasure: Erasure) -> tuple[int, int, int]:
    return erasure.item, erasure.image, erasure.index


def _inspected(inspection: Inspection, finished: Mapping[tuple[int, int, int], RemovalSample]) -> Inspected:
    erasure, sample = inspection.erasure, finished.get(_object(inspection.erasure))
    names = (sample.original, sample.erased) if sample is not None else ()
    return Inspected(erasure.image, erasure.index, inspection.text, inspection.scores, *names)


def inspect(models: Models, profile: Profile, erasures: Sequence[Erasure], images: Images) -> tuple[Inspection, ...]:
    """Describe each box in the original, then score that text against the original's crop and the erased one's.

    The captioner sees the whole original and gets the box in 0–1; an empty description has no scores.
    """
    if not erasures:
        return ()
    kind = profile.removal.match_kind
    originals = [at_removal_size(images.read(each.source), each.size_px) for each in erasures]
    asked = [[question(profile.describe, each.box, each.size_px, each.size_px)] for each in erasures]
    told = profile.describe.max_new_tokens, profile.describe.system_prompt
    answers = models.need_captioner.answer(originals, asked, *told)
    inspections = [Inspection(erasure, text, {}) for erasure, (text,) in zip(erasures, answers, strict=True)]
    for inspection, original in zip(inspections, originals, strict=True):
        if inspection.text.strip():
            erased = images.read(inspection.erasure.erased)
            for key, image in ((original_key(kind), original), (erased_key(kind), erased)):
                (score,) = models.need_blip.score(image, [inspection.erasure.box], [inspection.text], kind)
                put(inspection.scores, key, score)
    return tuple(inspections)


def finish(profile: Profile, inspections: Sequence[Inspection], images: Images) -> tuple[RemovalSample, ...]:
    """The samples of the erasures that pass; their images, with red boxes drawn in, are written."""
    render = profile.render.model_copy(update={"grow_px": profile.removal.grow_px})
    samples = []
    boxed: dict[str, Tensor] = {}
    for inspection in inspections:
        if not judge_inspection(inspection.text, inspection.scores, profile.removal).passed:
            continue
        erasure = inspection.erasure
        original = at_removal_size(images.read(erasure.source), erasure.size_px)
        paths = removal_paths(erasure.source, erasure.index)
        for path, image in zip(paths, (original, images.read(erasure.erased)), strict=True):
            boxed[path] = with_box(image, erasure.box, render, profile.contrast.bar_px)
        samples.append(RemovalSample(erasure, inspection.text, holder_of(erasure), *paths))
    images.write(boxed, keep=False)
    return tuple(samples)
