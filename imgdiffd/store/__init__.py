"""Every SQL statement of the project: one database, one writer, questions answered beside it.

It owns state on disk; it does not know devices, scheduling or HTTP.
"""

from imgdiffd.store.reader import Reader
from imgdiffd.store.removal_rows import ErasureRow, RemovalProgress, RemovalStory
from imgdiffd.store.rows import (
    CandidateRow,
    FunnelCounts,
    ItemStory,
    JobRow,
    PairRow,
    ProblemRow,
    Progress,
    Recorded,
    RegionRow,
    RewriteRow,
    SampleRow,
    TaskRow,
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
    "ProblemRow",
    "Progress",
    "Reader",
    "Recorded",
    "RegionRow",
    "RemovalProgress",
    "RemovalStory",
    "RewriteRow",
    "SampleRow",
    "Store",
    "TaskRow",
    "Timing",
]
