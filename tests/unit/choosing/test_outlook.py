"""What stored scores say of another profile is what a run under that profile says, as far as they reach."""

import math

from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.choosing.gathering import STAGES, STATES, gather
from imgdiffd.choosing.outlook import outlook
from imgdiffd.job import ItemState
from imgdiffd.method.messages import (
    CLIP_IMAGE_COSINE,
    CLIP_TEXT_COSINE,
    PREVIEW_COSINE,
    YES_PROBABILITY,
    Candidate,
    match_key,
    noun_key,
)
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_files import BUILT_IN
from imgdiffd.method.profile_sections import Bound
from tests.unit.choosing.runs import SIZE, Run, Told, World, first_lack, preview_of

PROFILES = [load_profile(name) for name in BUILT_IN]
KINDS = ("blip_itc_cosine", "blip_itm_probability")
CAPTION = "a cat on a mat"
GOOD, LONG = ("a dog on a mat", 7), ("a dog on a mat", 90)  # answers with their tokens

values = st.sampled_from([0.2, 0.4, 0.85, 0.9, 0.9004, 0.95, 0.98, 1.0, math.nan])
good = st.sampled_from([0.2, 0.4])
bounds = st.builds(Bound, value=values.filter(math.isfinite), closed=st.booleans())
edges = st.integers(0, SIZE)
texts = st.sampled_from([*["a cat"] * 6, " "])
replies = st.sampled_from([*["Yes"] * 6, "no.", "not", ""])


def scored(*keys: str, of: st.SearchStrategy[float] = values) -> st.SearchStrategy[dict[str, float]]:
    """Some or all of these scores; a store never holds NaN."""
    return st.fixed_dictionaries({}, optional={key: of for key in keys}).map(
        lambda found: {key: score for key, score in found.items() if math.isfinite(score)}
    )


def mostly(*keys: str, of: float) -> st.SearchStrategy[dict[str, float]]:
    """All of them with a score that passes, in most cases."""
    return st.integers(0, 5).flatmap(lambda draw: st.just(dict.fromkeys(keys, of)) if draw else scored(*keys))


nouns = [noun_key(kind, side) for kind in KINDS for side in (1, 2)]
matches = [match_key(kind, side) for kind in KINDS for side in (1, 2)]
boxes = st.builds(
    Candidate,
    st.integers(1, 2),
    st.tuples(edges, edges, edges, edges) | st.sampled_from([(0, 0, 20, 20), (20, 20, 39, 39), (0, 20, 18, 39)]),
    st.builds(lambda crop, noun: crop | noun, mostly(CLIP_IMAGE_COSINE, of=0.2), mostly(*nouns, of=0.95)),
)
told = st.builds(
    Told,
    texts,
    texts,
    st.builds(lambda text, match: text | match, mostly(CLIP_TEXT_COSINE, of=0.2), mostly(*matches, of=0.8)),
    st.sampled_from([*["it changed"] * 6, " "]),
    replies,
    mostly(YES_PROBABILITY, of=0.9),
)
worlds = st.builds(
    World,
    st.just(CAPTION),
    st.sampled_from([7, 7, 7, 7, 80]),
    st.lists(st.sampled_from([GOOD, GOOD, GOOD, GOOD, LONG, (CAPTION, 7)]), min_size=1, max_size=3),
    mostly(CLIP_IMAGE_COSINE, of=0.95),
    mostly(PREVIEW_COSINE, of=0.9),
    replies,
    mostly(YES_PROBABILITY, of=0.9),
    st.lists(st.tuples(boxes, told), max_size=5),
)


@st.composite
def changed(draw: st.DrawFn, profile: Profile) -> Profile:
    """The profile with some other thresholds and rules, and seldom another prompt."""

    def some(section: str, **given: st.SearchStrategy[object]) -> object:
        update = {key: draw(chosen) for key, chosen in given.items() if draw(st.integers(0, 3)) == 0}
        return getattr(profile, section).model_copy(update=update)

    abort = {"mode": draw(st.sampled_from(["off", "shadow", "on"])), "below": draw(st.sampled_from([None, 0.87]))}
    generate = profile.generate
    return profile.model_copy(
        update={
            "scores": draw(st.sampled_from(["all", "needed"])),
            "rewrite": some(
                "rewrite", attempts=st.integers(1, 4), max_caption_tokens=st.sampled_from([60, 77, 85, 99])
            ),
            "generate": generate.model_copy(
                update={
                    "abort": generate.abort.model_copy(
                        update=abort | {"finished": draw(st.sampled_from([0.0, 0.5, 1.0]))}
                    )
                }
            ),
            "pair": some("pair", above=bounds, below=bounds, decimals=st.sampled_from([None, 2, 3])),
            "natural": some(
                "natural",
                enabled=st.booleans(),
                shown=st.sampled_from(["pairs", "samples"]),
                rule=st.sampled_from(["answer", "probability"]),
            ),
            "locate": some(
                "locate",
                crop_cosine_below=bounds,
                noun_above=bounds,
                noun_kind=st.sampled_from(KINDS),
                overlap_iou=bounds,
                min_area=st.sampled_from([0.0, 0.0025, 0.25]),
                regions=st.integers(0, 3),
                overlap_limit=st.integers(0, 3),
                area_test=st.sampled_from(["first", "last"]),
                noun_rule=st.sampled_from(["any", "both"]),
                overlap_keeps=st.sampled_from(["most_different", "first_found"]),
            ),
            "describe": some(
                "describe", text_cosine_below=bounds, match_above=bounds, match_kind=st.sampled_from(KINDS)
            ),
            "contrast": some("contrast", max_new_tokens=st.just(9), sides=st.sampled_from(["random", "original_left"])),
        }
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Run], Profile]:
    """Runs under one profile or two, some not finished, and the profile that is asked about."""
    base = draw(st.sampled_from(PROFILES))
    owns = [draw(changed(base)) for _ in range(draw(st.integers(1, 2)))]
    runs = []
    for world in draw(st.lists(worlds, max_size=4)):
        own = draw(st.sampled_from(owns))
        seen = World(**{**vars(world), "preview": preview_of(world.preview, own)})
        runs.append(Run(seen, own, draw(st.just(1000) | st.integers(0, 8))).go())
    return runs, draw(st.sampled_from(owns) | changed(base))


@given(cases())
def test_outlook_is_what_a_run_under_the_profile_says(case: tuple[list[Run], Profile]) -> None:
    runs, profile = case
    rows = [run.rows(number, number) for number, run in enumerate(runs, 1)]
    profiles = {number: run.profile for number, run in enumerate(runs, 1)}
    columns = gather([mark for mark, _ in rows], [each for _, each in rows], profiles)
    found = outlook(columns, profile, lambda group: profiles[group])
    for row, run in enumerate(runs):
        whole = Run(run.world, profile).go()
        lack = first_lack(whole, run)
        stage, state = (lack, ItemState.READY) if lack else (whole.at.stage, whole.at.state)
        assert (found.stage[row], found.state[row]) == (STAGES[stage], STATES[state])
        rejected = whole.at.verdict.reason if state is ItemState.REJECTED else None
        assert found.reasons[found.reason[row]] == (rejected or "")
        if not lack:
            mine = found.regions["item"] == row
            reasons = [found.reasons[code] for code in found.regions["reason"][mine]]
            assert reasons == [region.reason for region in whole.regions.values()]
