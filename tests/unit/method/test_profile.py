"""The laws of `imgdiffd.method.profile`: the numbers of paper, scripts and Data-Juicer, and how a file changes them."""

import hashlib
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imgdiffd.errors import ProfileError
from imgdiffd.method.profile import Profile, load_profile
from imgdiffd.method.profile_files import BUILT_IN
from imgdiffd.method.profile_sections import Bound, Natural

FULL_SIZE = ("default", "paper", "scripts", "data-juicer")
ALL = pytest.mark.parametrize("name", BUILT_IN)
LARGE = pytest.mark.parametrize("name", FULL_SIZE)


def opened(value: float) -> Bound:
    return Bound(value=value, closed=False)


def closed(value: float) -> Bound:
    return Bound(value=value, closed=True)


def test_table14_lets_through_whatever_one_of_the_four_settings_does() -> None:
    from imgdiffd.choosing.ablation import TABLE_14

    loose = load_profile("table14")
    for row in TABLE_14:
        of = row.of(loose)
        assert (loose.pair.above.value, loose.pair.below.value) <= (of.pair.above.value, of.pair.below.value)
        assert loose.locate.noun_above.value <= of.locate.noun_above.value
        assert loose.describe.text_cosine_below.value >= of.describe.text_cosine_below.value
        assert loose.describe.match_above.value <= of.describe.match_above.value
    assert TABLE_14[2].of(loose).locate == load_profile("default").locate
    assert (loose.locate.regions, loose.locate.overlap_iou) == (0, closed(1.0))


@ALL
def test_built_in_profile_loads_under_its_own_name(name: str) -> None:
    assert load_profile(name).name == name


# The table of the method's parameters


@pytest.mark.parametrize(
    ("name", "temperature", "top_p", "top_k", "penalty", "tokens"),
    [
        ("default", 0.8, 0.95, 0, 1.0, 128),
        ("paper", 0.8, 0.95, 0, 1.0, 128),
        ("scripts", 0.8, 0.6, 50, 1.0, 128),
        ("data-juicer", 0.9, 0.95, 20, 1.05, 512),
    ],
)
def test_rewriting_samples_as_in_the_table(
    name: str, temperature: float, top_p: float, top_k: int, penalty: float, tokens: int
) -> None:
    rewrite = load_profile(name).rewrite
    assert (rewrite.temperature, rewrite.top_p, rewrite.top_k) == (temperature, top_p, top_k)
    assert (rewrite.repetition_penalty, rewrite.max_new_tokens) == (penalty, tokens)
    assert rewrite.max_caption_tokens == 77


def test_rewriting_asks_with_the_table_s_words() -> None:
    scripts = (
        'Here is a sentence: "{caption}". Please replace one entity in this sentence with another entity, such as an '
        "animal, a vehicle, or a piece of furniture. Please only answer with the replaced sentence."
    )
    paper = (
        "Here is a sentence: '{caption}'. Please only replace one of the objects in this sentence with another object."
    )
    assert load_profile("default").rewrite.prompt == load_profile("scripts").rewrite.prompt == scripts
    data_juicer = (
        'Here is a sentence: "{caption}". Please replace one entity in this sentence with another entity, such as an '
        "animal, a vehicle, a piece of furniture or other physically consistent object. Ensure the replaced sentence "
        "adheres to physical plausibility. Please only answer with the replaced sentence."
    )
    assert load_profile("paper").rewrite.prompt == paper
    assert load_profile("data-juicer").rewrite.prompt == data_juicer


VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


def test_system_prompts_are_those_of_the_sources() -> None:
    """Data-Juicer's is a Python string over three lines, and their indentation is part of it."""
    data_juicer = (
        "A chat between a curious user and an artificial     intelligence assistant. The assistant gives helpful, "
        "detailed, and         polite answers to the user's questions."
    )
    for name, rewriter, captioner in (
        ("default", "", ""),
        ("paper", "", ""),
        ("scripts", VICUNA, VICUNA),
        ("data-juicer", data_juicer, ""),
    ):
        profile = load_profile(name)
        assert profile.rewrite.system_prompt == rewriter
        assert profile.describe.system_prompt == profile.contrast.system_prompt == captioner


@LARGE
def test_images_are_painted_as_in_the_table(name: str) -> None:
    generate = load_profile(name).generate
    assert (generate.picture_px, generate.steps, generate.guidance_scale, generate.edit) == (1024, 50, 7.5, "refine")
    assert (generate.cross_injection, generate.self_injection) == (1.0, 0.4)
    assert generate.self_injection_max_tokens == 32 * 32


@pytest.mark.parametrize(
    ("name", "above", "below", "decimals"),
    [
        ("default", opened(0.9), opened(0.98), None),
        ("paper", opened(0.9), opened(0.98), None),
        ("scripts", opened(0.9), opened(0.98), 3),
        ("data-juicer", closed(0.9), closed(0.99), None),
    ],
)
def test_pairs_pass_as_in_the_table(name: str, above: Bound, below: Bound, decimals: int | None) -> None:
    pair = load_profile(name).pair
    assert (pair.above, pair.below, pair.decimals) == (above, below, decimals)


@LARGE
def test_segmenter_is_asked_as_in_the_table(name: str) -> None:
    locate = load_profile(name).locate
    assert (locate.segment_px, locate.segment_confidence, locate.segment_iou) == (1024, 0.05, 0.5)
    assert locate.overlap_iou == opened(0.5)


@pytest.mark.parametrize(
    ("name", "corners", "area_test", "keeps", "after_overlap", "regions"),
    [
        ("default", "rounded", "first", "most_different", 0, 5),
        ("paper", "rounded", "first", "most_different", 0, 5),
        ("scripts", "truncated", "last", "most_different", 10, 5),
        ("data-juicer", "truncated", "last", "first_found", 0, 0),
    ],
)
def test_boxes_are_compared_as_in_the_table(
    name: str, corners: str, area_test: str, keeps: str, after_overlap: int, regions: int
) -> None:
    locate = load_profile(name).locate
    assert (locate.corners, locate.area_test, locate.overlap_keeps) == (corners, area_test, keeps)
    assert (locate.overlap_limit, locate.regions) == (after_overlap, regions)


@pytest.mark.parametrize(
    ("name", "crop", "kind", "noun", "rule", "min_area", "max_area"),
    [
        ("default", opened(0.85), "blip_itc_cosine", opened(0.35), "any", 1 / 400, 1.0),
        ("paper", opened(0.85), "blip_itc_cosine", opened(0.35), "any", 1 / 400, 1.0),
        ("scripts", opened(0.85), "blip_itc_cosine", opened(0.35), "any", 1 / 400, 1.0),
        ("data-juicer", closed(0.85), "blip_itm_probability", closed(0.4), "both", 0.0, 1 / 10),
    ],
)
def test_boxes_pass_as_in_the_table(
    name: str, crop: Bound, kind: str, noun: Bound, rule: str, min_area: float, max_area: float
) -> None:
    locate = load_profile(name).locate
    assert locate.crop_cosine_below == crop
    assert (locate.noun_kind, locate.noun_above, locate.noun_rule) == (kind, noun, rule)
    assert (locate.min_area, locate.max_area) == (min_area, max_area)


@pytest.mark.parametrize(
    ("name", "kind", "match", "grow_px", "text", "tokens"),
    [
        ("default", "blip_itc_cosine", opened(0.4), 5, opened(0.85), 64),
        ("paper", "blip_itc_cosine", opened(0.4), 5, opened(0.85), 64),
        ("scripts", "blip_itc_cosine", opened(0.35), 5, opened(0.85), 64),
        ("data-juicer", "blip_itm_probability", closed(0.4), 0, closed(0.8), 1024),
    ],
)
def test_region_captions_pass_as_in_the_table(
    name: str, kind: str, match: Bound, grow_px: int, text: Bound, tokens: int
) -> None:
    describe = load_profile(name).describe
    assert (describe.match_above, describe.text_cosine_below, describe.max_new_tokens) == (match, text, tokens)
    assert (describe.match_kind, describe.match_grow_px) == (kind, grow_px)
    assert describe.prompt == "Please provide a clear description for this region: {box}."


@LARGE
def test_difference_caption_and_red_boxes_are_as_in_the_table(name: str) -> None:
    profile = load_profile(name)
    assert profile.contrast.max_new_tokens == (1024 if name == "data-juicer" else 128)
    assert profile.contrast.bar_px == 20
    the = "the the" if name == "scripts" else "the"
    joint = "the" if name == "data-juicer" else "while the"
    assert profile.contrast.prompt == (
        f"Analyse {the} left image and the right image (separated by the black vertical bar). The detail within the "
        f"red bounding box in the left image is: {{left}}, {joint} detail within the red bounding box in the right "
        "image is: {right}. What is their difference? Answer with a few concise sentences."
    )
    assert (profile.render.grow_px, profile.render.line_px) == (5, 3)


def test_only_the_default_draws_sides_and_widens_lines() -> None:
    """The references put the original on the left always, with a line that is gone once the image is made small."""
    assert load_profile("default").contrast.sides == "random"
    assert load_profile("default").render.view_px == 336
    for name in ("paper", "scripts", "data-juicer"):
        assert load_profile(name).contrast.sides == "original_left"
        assert load_profile(name).render.view_px == 0


@pytest.mark.parametrize(
    ("name", "dilate_px", "feather_px", "corners", "original", "erased"),
    [
        ("default", 12, 8, "rounded", opened(0.35), opened(0.2)),
        ("scripts", 0, 0, "truncated", closed(0.35), closed(0.2)),
    ],
)
def test_objects_are_erased_as_in_the_table(
    name: str, dilate_px: int, feather_px: int, corners: str, original: Bound, erased: Bound
) -> None:
    removal = load_profile(name).removal
    assert (removal.dilate_px, removal.feather_px, removal.corners) == (dilate_px, feather_px, corners)
    assert (removal.original_above, removal.erased_below) == (original, erased)
    assert (removal.picture_px, removal.segment_px) == (512, 1024)


def test_natural_samples_are_judged_where_the_table_says() -> None:
    assert load_profile("default").natural.shown == "pairs"
    assert load_profile("scripts").natural.shown == "samples"
    assert not load_profile("scripts").natural.enabled


def test_small_profile_fits_small_images() -> None:
    mini = load_profile("mini")
    assert mini.generate.picture_px <= 128
    assert mini.render.line_px == 1


# Thresholds


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_strict_bound_excludes_its_value_and_a_closed_does_not(value: float, score: float) -> None:
    assert opened(value).above(score) == (score > value)
    assert opened(value).below(score) == (score < value)
    assert closed(value).above(score) == (score >= value)
    assert closed(value).below(score) == (score <= value)


@pytest.mark.parametrize("score", [None, math.nan])
def test_missing_score_never_passes(score: float | None) -> None:
    for bound in (opened(0.5), closed(0.5)):
        assert not bound.above(score)
        assert not bound.below(score)


# Files


def test_file_names_only_what_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "strict.toml"
    file.write_text('extends = "paper"\n[pair]\nbelow = { value = 0.97 }\n')
    profile = load_profile(str(file))
    paper = load_profile("paper")
    assert profile.name == "strict"
    assert profile.pair.below == opened(0.97)
    assert profile.pair.above == paper.pair.above
    assert profile.rewrite == paper.rewrite


def test_file_may_extend_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('extends = "default"\nname = "base"\nseed = 5\n')
    (tmp_path / "more.toml").write_text('extends = "base.toml"\nname = "more"\n')
    profile = load_profile(str(tmp_path / "more.toml"))
    assert (profile.name, profile.seed) == ("more", 5)


@pytest.mark.parametrize(
    ("extended", "given", "expected"),
    [
        ("default", "0.95", opened(0.95)),
        ("default", "0", opened(0.0)),
        ("data-juicer", "0.95", closed(0.95)),  # as { value = 0.95 } would
        ("data-juicer", "{ value = 0.95, closed = false }", opened(0.95)),
        ("number.toml", "{ closed = true }", closed(0.93)),
        ("number.toml", "{ value = 0.95 }", opened(0.95)),
    ],
)
def test_a_plain_number_is_a_threshold(extended: str, given: str, expected: Bound, tmp_path: Path) -> None:
    (tmp_path / "number.toml").write_text('extends = "default"\n[pair]\nabove = 0.93\n')
    file = tmp_path / "own.toml"
    file.write_text(f'extends = "{extended}"\n[pair]\nabove = {given}\n')
    assert load_profile(str(file)).pair.above == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('extends = "default"\n[pair]\nabove = "0.9"\n', "pair.above: must be a number such as 0.9, or { value = 0.9"),
        ('extends = "default"\n[pair]\nabove = true\n', "pair.above: must be a number"),
        ('extends = "default"\n[pair]\nabove = nan\n', "pair.above.value"),
        ('extends = "default"\npair = 0.9\n', "pair"),
        ('extends = "default"\nseed = true\n', "seed: must be a whole number, not true"),
        ('extends = "default"\n[generate]\nsteps = true\n', "generate.steps: must be a whole number, not true"),
        ('extends = "default"\n[generate]\nsteps = "7"\n', "generate.steps: must be a whole number, not '7'"),
        ('extends = "default"\n[generate]\nsteps = 2020-01-01\n', "generate.steps: must be a whole number"),
        ('extends = "default"\n[generate.abort]\nbelow = "0.9"\n', "generate.abort.below: must be a number, not"),
        ('extends = "default"\n[generate.abort]\nloss = 1e-320\n', "generate.abort.loss: must be at least 0.001"),
        ('extends = "default"\n[generate.abort]\nmode = "on"\nbelow = 1.0\n', "generate.abort: every pair would be"),
        ('extends = "default"\n[generate.abort]\nmode = "on"\nabove = -1\n', "generate.abort: every pair would be"),
        ('extends = "default"\n[generate.abort]\nmode = "on"\nbelow = 0.9\nabove = 0.9\n', "every pair would be"),
        ('extends = "default"\n[generate.abort]\nmode = "on"\nfinished = 1.0\n', "finished: no pair would be given up"),
        ('extends = "default"\n[generate.abort]\nmode = "on"\nfinished = 0.0\n', "finished: 0 leaves no pair"),
        ('extends = "default"\n[pair]\nabov = { value = 1 }\n', "pair.abov"),
        ('extends = "default"\n[pair]\nabove = { value = "high" }\n', "pair.above.value"),
        ('extends = "default"\n[pair]\nabove = { value = nan }\n', "pair.above.value"),
        ('extends = "default"\n[locate]\nnoun_kind = "clip"\n', "locate.noun_kind"),
        ('extends = "default"\n[rewrite]\nprompt = "Replace it."\n', "{caption}"),
        ('extends = "default"\n[generate]\npicture_px = 1023\n', "generate.picture_px"),
        ('extends = "default"\n[generate]\nword_steps = { dog = [0.5, 0.2] }\n', "word_steps.dog"),
        ('extends = "default"\n[generate]\nword_steps = { dog = [0.5, 1.2] }\n', "generate.word_steps.dog"),
        ('extends = "default"\n[generate]\nedit = "none"\nword_steps = { dog = [0, 1] }\n', "word_steps"),
        ('extends = "default"\n[generate]\nreweight = { dog = nan }\n', "generate.reweight.dog"),
        ('name = "alone"\n', "rewrite: missing"),
        ('extends = "default"\nname = "x\\u001b[31m"\n', "name: 'x\\x1b[31m' cannot be seen"),
        ('extends = "default"\nname = "\u3164"\n', "name: '\\u3164' cannot be seen"),
        ('extends = "default"\nname = "\u0301"\n', "cannot be seen"),
        ('extends = "default"\n[pair]\nabvoe = 1\n', "pair.abvoe: no such key"),
        ('extends = "default"\n[pair]\nabove = 0.98\nbelow = 0.9\n', "pair: no cosine is above 0.98 and below 0.9"),
        ('extends = "default"\n[pair]\nabove = 0.9\nbelow = 0.9\n', "pair: no cosine"),
        ('extends = "default"\n[pair]\nabove = 0.91\nbelow = 0.99\ndecimals = 1\n', "pair: no cosine"),
        ('extends = "default"\n[pair]\nabove = 1\nbelow = 2\n', "pair: no cosine"),
        ('extends = "default"\n[locate]\nmin_area = 0.5\nmax_area = 0.1\n', "locate.min_area: 0.5 is over max_area"),
        ('extends = "default"\n[locate]\ncrop_cosine_below = -1\n', "locate.crop_cosine_below: no score can pass"),
        ('extends = "default"\n[locate]\nnoun_above = 1.5\n', "locate.noun_above: no score can pass 1.5"),
        ('extends = "default"\n[describe]\nmatch_above = 1\n', "describe.match_above: no score can pass 1.0"),
        ('extends = "default"\n[removal]\nerased_below = -2\n', "removal.erased_below: no score"),
        ('extends = "default"\n[rewrite]\nprompt = "{caption} {captoin}"\n', "rewrite.prompt: {captoin} stands for"),
        ('extends = "default"\n[contrast]\nprompt = "{left} {right} {box}"\n', "contrast.prompt: {box} stands for"),
        ('extends = "default"\n[removal]\nprompt = "no {object}"\n', "removal.prompt: {object} stands for nothing"),
        ('extends = "self.toml"\n', "extends itself"),
        ("extends = 3\n", "extends must be"),
        ('extends = "unheard"\n', "unheard"),
        ("seed = \n", "line 1"),
    ],
)
def test_wrong_file_is_refused_by_its_key(text: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "self.toml"
    file.write_text(text)
    with pytest.raises(ProfileError) as caught:
        load_profile(str(file))
    assert part in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_status == 78


@pytest.mark.parametrize(
    "text",
    [
        "[pair]\nabove = { value = 0.9, closed = true }\nbelow = { value = 0.9, closed = true }\n",
        "[pair]\nabove = -2\nbelow = 2\n",
        "[pair]\nabove = 0.91\nbelow = 1.1\ndecimals = 1\n",
        "[describe]\nmatch_above = { value = 1, closed = true }\n",
        '[rewrite]\nprompt = \'{caption}, as JSON: {"caption": "…"}, {}\'\n',
    ],
)
def test_a_profile_that_something_can_pass_is_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('extends = "default"\n' + text)
    assert load_profile(str(tmp_path / "own.toml")).name == "own"


@pytest.mark.parametrize("name", ["Default", "", "missing.toml", "../default"])
def test_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(ProfileError):
        load_profile(name)


@ALL
def test_profile_is_frozen_and_survives_a_round_trip(name: str) -> None:
    profile = load_profile(name)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    with pytest.raises(ValidationError, match="frozen"):
        profile.pair.above.value = 0.1


OLDER = Path(__file__).with_name("older_profile.json")


def test_a_profile_that_a_database_holds_from_before_still_loads() -> None:
    older = Profile.model_validate_json(OLDER.read_text("utf-8"))
    default = load_profile("default")
    assert older.removal.segment_px == 512
    now = default.model_copy(update={"removal": older.removal})
    assert older == now
    assert hashlib.sha256(older.stored().encode()).hexdigest() == (
        "730f4dbea8e398e56cb55b0a6daaafbfc48a086bf4515b25023179cdf55e5896"
    )


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("default", "a4d36f65170221ddf7612c151a194a5f1d8b3ae53ab9930649d0552aed0e6d11"),
        ("paper", "5149496d44187426baf27737388655f8c2c9d56e065cc154190b2a688c9a7cbd"),
        ("scripts", "c6d5fec7cc1ab34e16daa6f90eaa502f04408898e166de5bf11b5e7c9574b7ac"),
        ("data-juicer", "819b35602c3031363b4403f3b1dd548db6fcbb78244b623cedb22d10ef62d8b6"),
        ("mini", "8115e116d017bb88d05371e49bc6c1ff52a921c12535a6a8fb77aae31f1e5c32"),
    ],
)
def test_json_of_a_built_in_profile_stays_byte_for_byte(name: str, sha256: str) -> None:
    """The store knows a profile by this hash: where it changes, captions that were taken before count as new."""
    assert hashlib.sha256(load_profile(name).stored().encode()).hexdigest() == sha256


def test_json_of_a_profile_with_the_filter_stays_byte_for_byte() -> None:
    older = Profile.model_validate_json(OLDER.read_text("utf-8"))
    vetted = older.model_copy(update={"natural": Natural(enabled=True)})
    text = vetted.stored().replace('"enabled":true', '"enabled":false')
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "287986c965085d99a53418442d71b3c0dfd0fdb40fdf4442241fa6de0253aba4"
    )


@ALL
def test_a_stored_profile_is_read_back_as_it_was(name: str) -> None:
    enabled = Natural.model_validate({**load_profile(name).natural.model_dump(), "enabled": True})
    profile = load_profile(name).model_copy(update={"natural": enabled})
    assert Profile.model_validate_json(profile.stored()) == profile
    looser = profile.model_copy(update={"scores": "needed"})
    assert looser.stored() != profile.stored()
    assert Profile.model_validate_json(looser.stored()) == looser
