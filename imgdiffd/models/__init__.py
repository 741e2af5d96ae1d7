"""The models, one file per role, each behind an interface of its own."""
