"""The watch folder: files that come to rest in it become jobs.

It owns the folder and the taking of files; it does not know what becomes of a job.
"""

from imgdiffd.inbox.inbox import Inbox
from imgdiffd.inbox.intake import Fingerprint, Intake, Jobs

__all__ = ["Fingerprint", "Inbox", "Intake", "Jobs"]
