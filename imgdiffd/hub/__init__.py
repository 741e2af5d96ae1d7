"""Where a bundle's models are on this machine, what is missing or damaged, and how they are fetched.

Importing this never uses the network; only `pulling` does.
"""

from imgdiffd.hub.cache import addition_of, cached, folder_of, presences, problems, remedy

__all__ = ["addition_of", "cached", "folder_of", "presences", "problems", "remedy"]
