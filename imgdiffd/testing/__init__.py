"""Fakes that ship with the daemon: a worker process without models (without torch, too), and models without weights."""
