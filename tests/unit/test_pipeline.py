"""The laws of `imgdiffd.pipeline`: the order of stages and the seeds of every random draw."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.pipeline import (
    CAPTION_STAGES,
    DEPTH,
    OPTIONAL_STAGES,
    PIPELINE_OF,
    PIPELINES,
    STAGES,
    Pipeline,
    Role,
    Stage,
    priority_in,
    seed_of,
    stage_after,
)


def test_stages_follow_one_another_from_rewrite_to_render() -> None:
    order = [CAPTION_STAGES[0]]
    while (following := stage_after(order[-1])) is not None:
        order.append(following)
    assert tuple(order) == CAPTION_STAGES
    assert [DEPTH[stage] for stage in Stage] == list(range(len(Stage)))


def test_every_stage_belongs_to_one_pipeline() -> None:
    assert sorted(stage for spec in PIPELINES.values() for stage in spec.stages) == sorted(Stage)
    assert set(PIPELINES) == set(Pipeline)
    for pipeline, spec in PIPELINES.items():
        assert {PIPELINE_OF[stage] for stage in spec.stages} == {pipeline}
        assert [stage_after(stage) for stage in spec.stages] == [*spec.stages[1:], None]


def test_derived_item_waits_behind_every_job() -> None:
    assert PIPELINES[Pipeline.REPLACEMENT].starts_after is None
    assert PIPELINES[Pipeline.REMOVAL].starts_after in CAPTION_STAGES
    assert priority_in(Stage.ERASE, 7) < priority_in(Stage.REWRITE, -1000) == -1000


def test_a_skipped_stage_is_left_out_and_the_rest_keep_order() -> None:
    order = [CAPTION_STAGES[0]]
    while (following := stage_after(order[-1], OPTIONAL_STAGES)) is not None:
        order.append(following)
    assert order == [stage for stage in CAPTION_STAGES if stage not in {Stage.VET, Stage.SCREEN}]


def test_every_stage_has_a_specification_and_every_role_a_stage() -> None:
    assert set(STAGES) == set(Stage)
    assert all(spec.stage is stage and spec.batch_limit >= 1 for stage, spec in STAGES.items())
    assert frozenset[Role]().union(*(spec.roles for spec in STAGES.values())) == set(Role)


def test_hundred_thousand_captions_get_as_many_distinct_seeds() -> None:
    """The reference re-seeded its rewriter with its own seed: about 88 distinct ones in all."""
    seeds = {seed_of(0, f"a dog number {index}", 1, "rewrite") for index in range(100_000)}
    assert len(seeds) == 100_000


def test_every_part_of_its_origin_changes_the_seed() -> None:
    origins = [(0, "a dog", 1, "rewrite"), (1, "a dog", 1, "rewrite"), (0, "a cat", 1, "rewrite")]
    origins += [(0, "a dog", 2, "rewrite"), (0, "a dog", 1, "generate")]
    assert len({seed_of(*origin) for origin in origins}) == len(origins)


def test_parts_of_the_origin_cannot_run_into_one_another() -> None:
    assert seed_of(1, "1", 11, "x") != seed_of(11, "1", 1, "x")
    assert seed_of(0, "b", 1, "a") != seed_of(0, "", 1, "ab")


def test_seed_is_the_same_in_another_process() -> None:
    code = "from imgdiffd.pipeline import seed_of; print(seed_of(3, 'a caf\\u00e9', 2, 'generate'))"
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == seed_of(3, "a caf\u00e9", 2, "generate") == 4069156250390884869


@given(st.integers(), st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.integers(), st.text("abc:0"))
def test_seed_is_what_a_generator_of_torch_takes(profile_seed: int, caption: str, attempt: int, purpose: str) -> None:
    assert 0 <= seed_of(profile_seed, caption, attempt, purpose) < 2**63
