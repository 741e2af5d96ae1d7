"""Every SQL statement of the project: one database, one writer, questions answered beside it."""

from imgdiffd.store.reader import Reader
from imgdiffd.store.rows import (
    CandidateRow,
    ErasureRow,
    FunnelCounts,
    ItemStory,
    JobRow,
    PairRow,
    Progress,
    ProgressOf,
    Recorded,
    RegionRow,
    RemovalStory,
    RewriteRow,
    SampleRow,
    Timing,
)
from imgdiffd.store.store import Store

__all__ = [
    "CandidateRow",
    "ErasureRow",
    "FunnelCounts",
    "ItemStory",
    "JobRow",
    "PairRow",
    "Progress",
    "ProgressOf",
    "Reader",
    "Recorded",
    "RegionRow",
    "RemovalStory",
    "RewriteRow",
    "SampleRow",
    "Store",
    "Timing",
]
