"""Writes an export's data card: a README.md as Hugging Face reads it, with everything that the samples follow from."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgdiffd import __version__
from imgdiffd.errors import visible
from imgdiffd.export.counts import Counts
from imgdiffd.export.mixing import Mixed
from imgdiffd.method.profile import IMPORTED, Profile
from imgdiffd.status import Funnel
from imgdiffd.store import BundleRow

NAME = "README.md"
LICENCE = "the licences of the models may cover what they made: see the table of models"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TOP = 10
_TOLD = ("generate", "pair", "natural", "locate", "describe", "render", "removal")
CITATION = """@article{jiao2024imgdiff,
  title = {Img-Diff: Contrastive Data Synthesis for Multimodal Large Language Models},
  author = {Jiao, Qirui and Chen, Daoyuan and Huang, Yilun and Ding, Bolin and Li, Yaliang and Shen, Ying},
  journal = {arXiv preprint arXiv:2408.04594},
  year = {2024}
}"""


_NOT_KNOWN = "Samples were imported from a published dataset: how they were made is not known."


@dataclass(frozen=True, slots=True)
class About:
    """What is known of an export beside its samples.

    `command` made it, as typed but for names of folders. `bundles` are those that worked on its jobs; none are known of
    jobs that an older version worked on. `funnel` is None where the samples were chosen otherwise than the run did.
    """

    about: str  # what the format is
    command: str
    profiles: Sequence[Profile]
    bundles: Sequence[BundleRow]
    funnel: Funnel | None


def description(counts: Counts) -> str:
    """The dataset in a sentence."""
    kinds = ", ".join(f"{counts.of_kind(kind):,} {kind.replace('_', ' ')}" for kind in _kinds(counts))
    return f"Img-Diff: pairs of nearly identical images and what differs between them; {kinds or 'no'} samples."


def card(about: About, counts: Counts, data_files: Mapping[str, str], mixed: Mixed | None = None) -> str:
    """The card; `data_files` are a split's files for `datasets.load_dataset`, where it can read the format."""
    parts = (
        "\n".join(_front(counts, data_files)),
        f"# Img-Diff\n\n{description(counts)}",
        f"Made with imgdiffd {__version__} by `imgdiffd {visible(about.command)}`. "
        f"Format: {about.about}.{_mixed(mixed)}",
        "\n".join(_table(("kind", "train", "validation"), _kind_rows(counts))),
        f"From {len(counts.items):,} captions. Splits are drawn by caption. {_sides(counts)}".strip(),
        _reasons(counts),
        *(_narrowing(about, about.funnel) if about.funnel else ()),
        "## Diversity",
        "\n".join(_diversity(counts)),
        "`imgdiffd statistics` says more.",
        "## Models",
        _NOT_KNOWN if _is_imported(about) else "",
        "\n".join(_models(about)),
        "## Thresholds and seeds",
        *(_profile(profile) for profile in about.profiles),
        "## Files",
        "`SHA256SUMS` has every file's checksum, for `sha256sum --check`; `croissant.json` describes the files.",
        f"## Citation\n\n```bibtex\n{CITATION}\n```",
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _mixed(mixed: Mixed | None) -> str:
    if mixed is None:
        return ""
    times = "" if mixed.repeat == 1 else f" {mixed.repeat} times"
    return (
        f" In `mix.json` the {mixed.own:,} samples for training stand{times} among {mixed.others:,} records of an "
        "instruction set, whose images are not here."
    )


def _kinds(counts: Counts) -> Iterable[str]:
    return dict.fromkeys(kind for kind, _ in counts.kinds)


def _front(counts: Counts, data_files: Mapping[str, str]) -> Iterator[str]:
    """What Hugging Face reads: YAML, in which JSON's strings may stand."""
    size = next((name for bound, name in _SIZES if counts.samples < bound), "n>1M")
    values: Mapping[str, Any] = {
        "pretty_name": "Img-Diff",
        "license": "other",
        "license_name": "licences-of-the-models",
        "license_link": f"{NAME}#models",
        "language": ["en"],
        "task_categories": ["visual-question-answering", "image-text-to-text"],
        "size_categories": [size],
        "tags": ["img-diff", "image-difference", "synthetic", "imgdiffd"],
    }
    yield "---"
    for key, value in values.items():
        yield f"{key}: {json.dumps(value)}"
    if data_files:
        yield "configs:\n- config_name: default\n  data_files:"
        for split, path in data_files.items():
            yield f"  - split: {split}\n    path: {json.dumps(path)}"
    yield "---"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(visible(str(cell)).replace('|', '&#124;') for cell in row)} |"


def _kind_rows(counts: Counts) -> Iterator[Sequence[object]]:
    for kind in _kinds(counts):
        yield kind, *(f"{counts.kinds[kind, split]:,}" for split in ("train", "validation"))


def _sides(counts: Counts) -> str:
    told = counts.balances()
    return f"Where the original stands, and the letters of the answers: {told}." if told else ""


def _reasons(counts: Counts) -> str:
    if not counts.reasons:
        return ""
    told = ", ".join(f"{reason} {number:,}" for reason, number in counts.reasons.most_common())
    return f"Hard negatives are wrong on purpose: answers that a filter rejected. Their reasons: {told}."


def _narrowing(about: About, funnel: Funnel) -> Iterator[str]:
    yield "## How captions narrowed to samples"
    yield _NOT_KNOWN if _is_imported(about) else ""
    yield "\n".join(_table(("step", "count", "lost before it"), _funnel_rows(funnel)))


def _funnel_rows(funnel: Funnel) -> Iterator[Sequence[object]]:
    for step in funnel.steps:
        lost = ", ".join(f"{reason} {number:,}" for reason, number in step.lost.items())
        yield step.name, f"{step.count:,}", lost


def _diversity(counts: Counts) -> Iterator[str]:
    yield (
        f"{len(counts.objects):,} objects are named in {counts.objects.total():,} region texts; "
        f"{len(counts.pairs):,} ordered pairs of replaced and replacing."
    )
    top: Counter[str] = Counter({f"{old} → {new}": number for (old, new), number in counts.pairs.items()})
    for what, found in (("objects", counts.objects), ("pairs", top)):
        first = sorted(found.items(), key=lambda each: (-each[1], each[0]))[:_TOP]
        if first:
            told = ", ".join(f"{visible(name)} {number:,}" for name, number in first)
            yield f"\nMost frequent {what}: {told}."


def _is_imported(about: About) -> bool:
    return any(profile.name == IMPORTED for profile in about.profiles)


def _models(about: About) -> Iterator[str]:
    bundles = about.bundles
    if not bundles and not _is_imported(about):
        yield "Which models made these samples was not recorded: an older version worked on them."
    if not bundles:
        return
    rows = [
        (bundle.name, role, model.model, model.licence or "unknown")
        for bundle in bundles
        for role, model in bundle.models.items()
    ]
    yield from _table(("bundle", "role", "model", "licence"), dict.fromkeys(rows))
    yield f"\nNo licence is stated for the whole: {LICENCE}."


def _profile(profile: Profile) -> str:
    """The numbers that decide which samples there are; of imported ones, which nobody knows, none."""
    if profile.name == IMPORTED:
        return f"Profile `{IMPORTED}`: {_NOT_KNOWN}"
    whole = profile.model_dump(mode="json")
    rows: list[tuple[str, float]] = [("seed", profile.seed)]
    for section in _TOLD:
        for key, value in whole[section].items():
            if isinstance(value, dict) and "value" in value:
                rows.append((f"{section}.{key}", value["value"]))
            elif isinstance(value, int | float) and not isinstance(value, bool):
                rows.append((f"{section}.{key}", value))
    return f"Profile `{visible(profile.name)}`:\n\n" + "\n".join(_table(("setting", "value"), rows))
