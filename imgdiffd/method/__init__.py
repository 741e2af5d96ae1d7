"""The method of the paper (arXiv 2408.04594) as data and pure decisions: numbers, prompts, what passes and why."""
