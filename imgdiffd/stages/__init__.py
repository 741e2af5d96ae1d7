"""The stages, one verb per file: each a function from models, profile and a batch of inputs to a batch of outputs.

A stage takes all randomness from `pipeline.seed_of`, and its results do not depend on batch mates.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from imgdiffd.errors import StageError
from imgdiffd.method.messages import StageInput, StageOutput
from imgdiffd.method.profile import Profile
from imgdiffd.models.loading import Models
from imgdiffd.pipeline import Stage
from imgdiffd.stages.compare import compare
from imgdiffd.stages.contrast import contrast
from imgdiffd.stages.describe import describe
from imgdiffd.stages.erase import erase
from imgdiffd.stages.generate import generate
from imgdiffd.stages.images import Images
from imgdiffd.stages.inspect import inspect_pairs
from imgdiffd.stages.locate import locate
from imgdiffd.stages.render import render
from imgdiffd.stages.rewrite import rewrite
from imgdiffd.stages.screen import screen
from imgdiffd.stages.vet import vet

_VERBS: Mapping[Stage, Callable[..., tuple[StageOutput, ...]]] = MappingProxyType(
    {
        Stage.REWRITE: rewrite,
        Stage.GENERATE: generate,
        Stage.COMPARE: compare,
        Stage.VET: vet,
        Stage.LOCATE: locate,
        Stage.DESCRIBE: describe,
        Stage.CONTRAST: contrast,
        Stage.SCREEN: screen,
        Stage.RENDER: render,
        Stage.ERASE: erase,
        Stage.INSPECT: inspect_pairs,
    }
)


def run(
    stage: Stage, models: Models, profile: Profile, inputs: Sequence[StageInput], images: Images
) -> tuple[StageOutput, ...]:
    """One output per input, in order. Raises StageError for another stage's input, and whatever the stage raises."""
    strangers = [entry.item for entry in inputs if entry.kind != stage.value]
    if strangers:
        raise StageError(f"items {strangers} came with another stage's input", stage=stage, items=strangers)
    return _VERBS[stage](models, profile, inputs, images)
