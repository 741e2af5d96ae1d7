"""Which jobs an export takes: those asked for, and never two profiles together unless that was asked for too."""

from collections.abc import Collection, Iterable, Sequence

from imgdiffd.errors import ExportError, counted, unknown_job
from imgdiffd.store import MadeRow

BOTH = ("replacement", "removal")


def count_of(row: MadeRow, kinds: Collection[str]) -> int:
    """How many samples of these kinds the job has made; of those made from rejects, which are not counted, none."""
    made = {"replacement": row.samples, "removal": row.removals, "addition": row.removals}
    return sum(made.get(kind, 0) for kind in kinds)


def _may_have(row: MadeRow, kinds: Collection[str]) -> bool:
    from_rejects = {"no_difference", "hard_negative"} & set(kinds)
    return bool(count_of(row, kinds) or (from_rejects and row.captions))


def choose_jobs(
    made: Sequence[MadeRow],
    *,
    job: int | None = None,
    profile: str | None = None,
    all_profiles: bool = False,
    kinds: Collection[str] = BOTH,
) -> tuple[MadeRow, ...]:
    """Those of the jobs `made` that an export takes, in order.

    `profile` is a profile's name or, where two profiles have that name, its number. Raises InputError for an
    unknown job, ExportError for an unknown profile, for a job that only repeats another, and for samples of several
    profiles where none was chosen.
    """
    chosen = list(made) if job is None else [_job(made, job)]
    if profile is not None:
        by_name = [row for row in chosen if row.profile == profile]
        chosen = by_name or [row for row in chosen if row.group == profile]
        if not chosen:
            known = ", ".join(_profiles(made, made)) or "none yet"
            whose = "no job has" if job is None else f"job {job} does not have"
            raise ExportError(f"{whose} the profile {profile!r}", hint=f"the jobs' profiles are: {known}")
    having = [row for row in chosen if _may_have(row, kinds)]
    if not all_profiles and len(called := _profiles(having, made)) > 1:
        listed = ", ".join(
            f"{name}: {counted(sum(count_of(row, kinds) for row in rows), 'sample')}" for name, rows in called.items()
        )
        raise ExportError(
            f"there are samples of {len(called)} profiles ({listed})",
            hint=f"choose one with --profile {_typed(next(iter(called)))}, say, or mix them with --all-profiles",
        )
    return tuple(chosen)


def _job(made: Iterable[MadeRow], job: int) -> MadeRow:
    row = next((row for row in made if row.job == job), None)
    if row is None:
        raise unknown_job(job)
    if row.duplicate_of is not None:
        raise ExportError(
            f"job {job} is a duplicate of job {row.duplicate_of}, which has the samples",
            hint=f"use --job {row.duplicate_of}",
        )
    return row


def _profiles(rows: Iterable[MadeRow], made: Iterable[MadeRow]) -> dict[str, list[MadeRow]]:
    """The rows by what --profile calls their profile: its name, or its number where two profiles have one name."""
    names = list({row.group: row.profile for row in made}.values())
    called: dict[str, list[MadeRow]] = {}
    for row in rows:
        name = row.profile if names.count(row.profile) == 1 else f"{row.group}, one of those called {row.profile}"
        called.setdefault(name, []).append(row)
    return called


def _typed(called: str) -> str:
    return called.partition(",")[0]
