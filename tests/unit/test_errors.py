"""The laws of `imgdiffd.errors`: one tree, one line for people, exit status 78 where a restart does not help."""

import ast
from pathlib import Path

import pytest

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
