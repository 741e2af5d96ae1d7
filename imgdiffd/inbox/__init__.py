"""The watch folder: caption files that appear in it become jobs."""

from imgdiffd.inbox.inbox import Inbox

__all__ = ["Inbox"]
