"""Which jobs an export takes, and what it refuses to guess."""

import pytest

from imgdiffd.errors import ExportError, ImgdiffdError
from imgdiffd.export.choice import choose_jobs
from imgdiffd.job import JobState
from imgdiffd.store import MadeRow


def made(job: int, profile: str, group: str, samples: int = 5, removals: int = 0) -> MadeRow:
    return MadeRow(job, JobState.DONE, profile, group, 10, 0, None, samples, removals)


ONE = [made(1, "default", "1"), made(2, "default", "1")]
TWO = [*ONE, made(3, "paper", "2", samples=7)]


def chosen(rows: list[MadeRow], **asked: object) -> list[int]:
    return [row.job for row in choose_jobs(rows, **asked)]  # type: ignore[arg-type]


def test_all_jobs_of_one_profile_are_taken_unasked() -> None:
    assert chosen(ONE) == [1, 2]
    assert chosen([]) == []


def test_two_profiles_are_refused_with_their_counts() -> None:
    with pytest.raises(ExportError) as caught:
        chosen(TWO)
    assert "2 profiles (default: 10 samples, paper: 7 samples)" in str(caught.value)
    assert "choose one with --profile default, say" in str(caught.value)
    assert "--all-profiles" in str(caught.value)


def test_two_profiles_are_told_apart_or_mixed_when_asked() -> None:
    assert chosen(TWO, profile="paper") == [3]
    assert chosen(TWO, profile="default") == [1, 2]
    assert chosen(TWO, all_profiles=True) == [1, 2, 3]
    assert chosen(TWO, job=3) == [3]


def test_a_profile_without_samples_of_the_product_mixes_nothing() -> None:
    assert chosen([*ONE, made(3, "paper", "2", samples=0)]) == [1, 2, 3]
    removing = [*ONE, made(3, "paper", "2", samples=0, removals=4)]
    assert chosen(removing, kinds=("replacement",)) == [1, 2, 3]
    with pytest.raises(ExportError, match="paper: 4 samples"):
        chosen(removing)


def test_profiles_of_one_name_are_chosen_by_number() -> None:
    changed = [made(1, "own", "1"), made(2, "own", "4")]
    with pytest.raises(
        ExportError, match=r"1, one of those called own: 5 samples, 4, one of those called own: 5 samples"
    ):
        chosen(changed)
    with pytest.raises(ExportError, match="2 profiles"):
        chosen(changed, profile="own")
    assert chosen(changed, profile="4") == [2]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"job": 9}, "there is no job 9"),
        ({"profile": "papr"}, "no job has the profile 'papr' .*default, paper"),
        ({"job": 3, "profile": "default"}, "job 3 does not have the profile 'default'"),
    ],
)
def test_what_is_unknown_is_refused(asked: dict[str, object], words: str) -> None:
    with pytest.raises(ImgdiffdError, match=words):
        chosen(TWO, **asked)


def test_a_duplicate_job_names_the_one_that_has_the_samples() -> None:
    copy = MadeRow(2, JobState.DONE, "default", "1", 0, 10, 1, 0, 0)
    with pytest.raises(ExportError, match=r"job 2 is a duplicate of job 1, .*use --job 1"):
        chosen([ONE[0], copy], job=2)
