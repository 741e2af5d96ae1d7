"""Which samples no trainer may see: their text holds marks that trainers give a meaning of their own."""

from imgdiffd.export.sample import Sample

# LLaVA's loader learns nothing of an answer with one of the first two, and looks for an image behind every third.
MARKS = ("</s>", "ASSISTANT: ", "<image>")


def why_unfit(sample: Sample) -> str:
    """The reason to leave the sample out of a dataset for trainers, to follow "samples": "" if there is none."""
    mark = next((mark for mark in MARKS if mark in sample.answer or mark in sample.question), None)
    return f"with {mark.strip()} in their text" if mark else ""
