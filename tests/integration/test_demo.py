"""The demo with two captions, and the commands that its last lines name, typed as they stand there."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from imgdiffd.api.client import Client
from imgdiffd.mini.evaluate import demo_captions
from tests.integration.daemon_process import LIMIT_S

PROGRAM = Path(sys.executable).with_name("imgdiffd")


def test_the_commands_that_the_demo_names_work_as_typed(tmp_path: Path) -> None:
    captions = tmp_path / "few.txt"
    captions.write_text("".join(f"{caption}\n" for caption in demo_captions()[4:6]))
    demo = [str(PROGRAM), "demo", "--folder", "my demo", "--captions", str(captions)]
    ended = subprocess.run(demo, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    explain, export, serve = (line.strip() for line in ended.stdout.splitlines()[-3:])

    def typed(line: str) -> str:
        done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert typed(explain).splitlines()[0] in captions.read_text().splitlines()
    assert re.search("samples? in my demo/export", typed(export))
    assert (tmp_path / "my demo/dataset/SHA256SUMS").is_file(), "the demo's own dataset is checked and described too"
    made = json.loads((tmp_path / "my demo/export/img_diff_object_replacement.json").read_text())
    assert made == json.loads((tmp_path / "my demo/dataset/img_diff_object_replacement.json").read_text())
    daemon = subprocess.Popen(shlex.split(serve), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        with Client(tmp_path / "my demo" / "imgdiffd.sock") as client:
            deadline = time.monotonic() + LIMIT_S
            while not client.alive():
                assert daemon.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert [job.name for job in client.jobs().jobs] == ["few.txt"]
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(LIMIT_S) == 0
    finally:
        daemon.kill()
        daemon.communicate()
