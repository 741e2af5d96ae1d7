"""All SQL of the project: one database with one writer and a few read connections."""

from imgdiffd.store.previews import PreviewsRow
from imgdiffd.store.reader import Reader
from imgdiffd.store.rows import (
    CandidateRow,
    ErasureRow,
    FunnelCounts,
    ItemStory,
    JobRow,
    MadeRow,
    Overview,
    PairRow,
    Progress,
    ProgressOf,
    Queue,
    Recorded,
    RegionRow,
    RejectedRow,
    RemovalRow,
    RemovalSampleRow,
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
    "MadeRow",
    "Overview",
    "PairRow",
    "PreviewsRow",
    "Progress",
    "ProgressOf",
    "Queue",
    "Reader",
    "Recorded",
    "RegionRow",
    "RejectedRow",
    "RemovalRow",
    "RemovalSampleRow",
    "RemovalStory",
    "RewriteRow",
    "SampleRow",
    "Store",
    "Timing",
]
