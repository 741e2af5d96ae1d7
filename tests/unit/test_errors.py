"""The laws of `imgdiffd.errors`: one tree, one line for people, exit status 78 where a restart does not help."""

import ast
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imgdiffd import errors
from imgdiffd.errors import (
    BundleError,
    ConfigurationError,
    ImgdiffdError,
    InputError,
    OutOfMemoryError,
    ProfileError,
    SettingsError,
    StageError,
    StoreError,
    WorkerDiedError,
    WorkError,
    first_line,
    wrong_value,
)

TREE = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, Exception)]


def test_every_error_is_in_the_tree_and_in_its_drawing() -> None:
    for error in TREE:
        assert issubclass(error, ImgdiffdError)
        assert error.__name__ in (errors.__doc__ or "")


def test_the_drawing_names_only_errors_that_exist() -> None:
    words = (errors.__doc__ or "").split()
    drawn = {word for word in words if word.endswith("Error")}
    assert drawn == {error.__name__ for error in TREE}


def test_message_reads_with_its_advice() -> None:
    assert str(StoreError("the disk is full", hint="free some")) == "the disk is full (free some)"
    assert str(StoreError("the disk is full")) == "the disk is full"


@pytest.mark.parametrize("error", [SettingsError, ProfileError, BundleError])
def test_wrong_configuration_exits_78(error: type[ConfigurationError]) -> None:
    assert error("x").exit_status == 78
    assert ImgdiffdError("x").exit_status == 1


@pytest.mark.parametrize("error", [OutOfMemoryError, StageError, WorkerDiedError])
def test_work_error_carries_device_stage_and_items(error: type[WorkError]) -> None:
    raised = error("x", device="cuda:0", stage="locate", items=[3, 4])
    assert (raised.device, raised.stage, raised.items) == ("cuda:0", "locate", (3, 4))


def test_input_error_carries_its_code() -> None:
    assert InputError("x", code="not_utf8").code == "not_utf8"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreError("the disk is full", hint="free some"), "the disk is full (free some)"),
        (ValueError("\n  no such noun  \nfurther lines"), "ValueError: no such noun"),
        (KeyError("noun"), "KeyError: 'noun'"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_first_line_of_an_error_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_no_handler_swallows_everything() -> None:
    package = Path(errors.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}, line {node.lineno}: a bare except"
                body = node.body[0]
                empty = isinstance(body, ast.Pass) or (
                    isinstance(body, ast.Expr) and isinstance(body.value, ast.Constant) and body.value.value is ...
                )
                names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
                assert not (empty and names & {"Exception", "BaseException"}), f"{path}, line {node.lineno}: swallowed"


# Errors of batches go to the scheduler, which knows what to do; the daemon's refusals bring their advice with them.
WITHOUT_ADVICE = {"WorkError", "OutOfMemoryError", "StageError", "NoRoomError", "WorkerDiedError", "RefusedError"}


def test_every_error_that_people_see_says_what_to_do_next() -> None:
    names = {error.__name__ for error in TREE} - WITHOUT_ADVICE
    package = Path(errors.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                given = {keyword.arg for keyword in node.keywords}
                assert given & {"hint", None}, f"{path}, line {node.lineno}: {node.func.id} without a hint"


class Held(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    count: Annotated[int, Field(gt=0, lt=9)] = 1
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    kind: Literal["a", "b"] = "a"
    text: Annotated[str, Field(min_length=1, max_length=3)] = "x"
    on: bool = True
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("count", "x", "must be a whole number, not 'x'"),
        ("count", 1.5, "must be a whole number, not 1.5"),
        ("count", 0, "must be more than 0, not 0"),
        ("count", 10, "must be less than 9, not 10"),
        ("share", -1, "must be at least 0.0, not -1"),
        ("share", float("nan"), "must be a number, not nan"),
        ("kind", "c" * 200, "must be 'a' or 'b', not '" + "c" * 99 + "…"),
        ("text", "", "is empty"),
        ("text", "long", "must have at most 3 characters"),
        ("text", True, "must be text, not true"),
        ("on", "maybe", "must be true or false, not 'maybe'"),
        ("names", 3, "must be a list, not 3"),
        ("nope", 3, "no such key"),
    ],
)
def test_a_wrong_value_is_refused_in_our_words(key: str, value: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Held.model_validate({key: value})
    assert wrong_value(dict(caught.value.errors()[0])) == said
