"""The laws of `imgdiffd.method.messages`: what goes through a pipe comes out equal, and what is broken is refused."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdiffd.fleet.wire import (
    HEADER_BYTES,
    MAX_FRAME_BYTES,
    Done,
    Failed,
    Loading,
    Pulse,
    Ready,
    RunBatch,
    Start,
    ToWorker,
    UseProfile,
    body_length,
    pack_from_worker,
    pack_to_worker,
    unpack_from_worker,
    unpack_to_worker,
)
from imgdiffd.method import messages as message
from imgdiffd.method.messages import (
    Candidate,
    CompareInput,
    CompareOutput,
    ContrastInput,
    ContrastOutput,
    ContrastRegion,
    DescribeInput,
    DescribeOutput,
    Description,
    Difference,
    GenerateInput,
    GenerateOutput,
    LocateInput,
    LocateOutput,
    RegionInput,
    Rendered,
    RenderInput,
    RenderOutput,
    RenderRegion,
    RewriteInput,
    RewriteOutput,
    Screened,
    ScreenInput,
    ScreenOutput,
    StageInput,
    StageOutput,
    VetInput,
    VetOutput,
    match_key,
    noun_key,
)
from imgdiffd.method.profile import load_profile
from imgdiffd.method.removal_messages import (
    EraseInput,
    EraseOutput,
    Erasure,
    FoundBox,
    Inspected,
    InspectInput,
    InspectOutput,
)
from imgdiffd.pipeline import Stage

BOX = (1, 2, 30, 40)
INPUTS: tuple[StageInput, ...] = (
    RewriteInput(1, "a caf\u00e9 \N{DOG}", 1),
    GenerateInput(1, "a dog", "a cat", 2),
    CompareInput(1, "000000/1-1-1.png", "000000/1-1-2.png"),
    VetInput(1, "a.png", "b.png"),
    LocateInput(1, "a.png", "b.png", ("dog",), ()),
    DescribeInput(1, "a.png", "b.png", (RegionInput(0, BOX),)),
    ContrastInput(1, "a.png", "b.png", (ContrastRegion(0, BOX, "a dog", "a cat", 2),)),
    ScreenInput(1, "a.png", "b.png", (RenderRegion(0, BOX, 2),)),
    RenderInput(1, "a.png", "b.png", (RenderRegion(0, BOX, 1),)),
    EraseInput(1, "a.png", "b.png", "a caf\u00e9", 2),
    InspectInput(1, (Erasure(1, 2, 0, BOX, 512, 0.25, "b.png", "e.png", 2**63 - 1),)),
)
OUTPUTS: tuple[StageOutput, ...] = (
    RewriteOutput(1, None, False, 90, 0, 2**63 - 1),
    GenerateOutput(1, "a.png", "b.png", 1024, 1024, 7),
    CompareOutput(1, {"clip_image_cosine": 0.1 + 0.2}),
    VetOutput(1, "Yes.", {"yes_probability": 0.75}),
    LocateOutput(1, (Candidate(2, BOX, {"blip_itc_cosine.noun1": -0.25}),)),
    DescribeOutput(1, (Description(0, "a dog", "", {}),)),
    ContrastOutput(1, (Difference(0, "One\nis a dog."),)),
    ScreenOutput(1, (Screened(0, "No.", {"yes_probability": 0.25}),)),
    RenderOutput(1, (Rendered(0, "l.png", "r.png"),)),
    EraseOutput(
        1,
        (Erasure(1, 1, 0, BOX, 512, 0.1 + 0.2, "a.png", "e.png", 7),),
        (FoundBox(1, BOX, {"clip_image_cosine": -0.5}),),
    ),
    InspectOutput(1, (Inspected(1, 0, "a dog", {}, "w.png", "o.png"),)),
)


def through_pipe_to_worker(sent: ToWorker) -> ToWorker:
    frame = pack_to_worker(sent)
    assert body_length(frame[:HEADER_BYTES]) == len(frame) - HEADER_BYTES
    return unpack_to_worker(frame[HEADER_BYTES:])


def through_pipe_from_worker(sent: Loading | Ready | Pulse | Done | Failed) -> Loading | Ready | Pulse | Done | Failed:
    frame = pack_from_worker(sent)
    assert body_length(frame[:HEADER_BYTES]) == len(frame) - HEADER_BYTES
    return unpack_from_worker(frame[HEADER_BYTES:])


def test_there_is_one_input_and_one_output_for_every_stage() -> None:
    for union, examples in ((StageInput, INPUTS), (StageOutput, OUTPUTS)):
        kinds = [example.kind for example in examples]
        assert kinds == [stage.value for stage in Stage]
        assert {type(example) for example in examples} == set(get_args(get_args(union)[0]))


def test_batch_comes_out_equal() -> None:
    sent = RunBatch(3, Stage.LOCATE, 1, INPUTS)
    assert through_pipe_to_worker(sent) == sent


@pytest.mark.parametrize("name", ["default", "data-juicer", "mini"])
def test_profile_comes_out_equal(name: str) -> None:
    sent = UseProfile(7, load_profile(name))
    assert through_pipe_to_worker(sent) == sent


def test_start_comes_out_equal() -> None:
    sent = Start("/bundle", "cuda:0", ("painter", "clip"), "/pictures", 4, True)
    assert through_pipe_to_worker(sent) == sent


@pytest.mark.parametrize(
    "sent",
    [
        Loading("painter"),
        Ready(17, {"clip": "openai/clip@abc"}, {"clip": 302_000_000}, ("runs uncompiled",), {"torch": "2.10"}),
        Pulse(None),
        Pulse(3),
        Done(3, OUTPUTS, 0.125),
        Done(4, (GenerateOutput(1, None, None, 1024, 1024, 7, {"preview_cosine": 0.1 + 0.2}),), 0.125),
        Failed(3, True, "out of memory", "Traceback…"),
    ],
)
def test_answer_comes_out_equal(sent: Loading | Ready | Pulse | Done | Failed) -> None:
    assert through_pipe_from_worker(sent) == sent


@given(
    st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_every_score_and_text_comes_out_bit_for_bit(scores: dict[str, float], text: str) -> None:
    scores = {key.encode("utf-8", "replace").decode(): score for key, score in scores.items()}
    sent = Done(1, (DescribeOutput(1, (Description(0, text, text, scores),)),), 0.0)
    assert through_pipe_from_worker(sent) == sent


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_score_that_overflowed_arrives_as_a_missing_one(score: float) -> None:
    sent = Done(1, (CompareOutput(1, {"good": 0.5, "bad": score}),), 0.0)
    assert through_pipe_from_worker(sent) == Done(1, (CompareOutput(1, {"good": 0.5}),), 0.0)


@pytest.mark.parametrize("header", [b"", b"\0\0\0", b"\0\0\0\0", (MAX_FRAME_BYTES + 1).to_bytes(4, "big"), b"\xff" * 4])
def test_header_that_cannot_be_one_is_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match="frame header"):
        body_length(header)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"kind":"dance"}', b'{"kind":"done"}', b'{"kind":"pulse","batch":"x"}', b"\xff"],
)
def test_body_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's own wording is not ours to fix
        unpack_from_worker(body)
    with pytest.raises(ValueError):  # noqa: PT011
        unpack_to_worker(body)


def test_message_of_the_other_direction_is_refused() -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        unpack_to_worker(pack_from_worker(Pulse(None))[HEADER_BYTES:])


def test_keys_of_scores_tell_the_sides_apart() -> None:
    keys = {noun_key("blip_itc_cosine", 1), noun_key("blip_itc_cosine", 2)}
    keys |= {match_key("blip_itc_cosine", 1), match_key("blip_itc_cosine", 2)}
    assert len(keys) == 4
    assert message.noun_key("blip_itc_cosine", 1) == "blip_itc_cosine.noun1"
