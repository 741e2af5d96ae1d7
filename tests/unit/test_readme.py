"""What the README names is there: files of the tests, and the tests that stand behind a promise."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(?:tests/)?((?:unit|integration|systemd|powercut|gpu)/test_\w+\.py)(?:::(test_\w+))?`")


def test_every_test_that_the_readme_names_exists() -> None:
    named = NAMED.findall((ROOT / "README.md").read_text("utf-8"))
    assert len(named) > 23  # the table of faults
    missing = []
    for file, test in named:
        path = ROOT / "tests" / file
        if not path.is_file() or (test and f"def {test}(" not in path.read_text("utf-8")):
            missing.append(f"{file}::{test}")
    assert missing == []
