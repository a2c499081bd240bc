"""A whole run of a task on few drawn crops."""

import json

from tests.experiments.scripts import run
from tfkd import deploy


def of_few_crops(name, folder):
  """Runs `experiments.tasks.<name>` for one epoch and one seed.

  Returns:
    The rows of the files, the metadata of each file, and the report, which the script has printed.
  """
  flags = ("--crops=64", "--epochs=1", "--qat_epochs=1", "--teacher_epochs=1", "--batch_size=32", "--workdir=out")
  result = run(f"tasks.{name}", folder, *flags, "--seeds=0")
  assert result.returncode == 0, result.stderr
  rows = [json.loads(line) for line in (folder / "out" / "files.jsonl").read_text().splitlines()]
  metadata = [deploy.read_metadata(path) for path in sorted((folder / "out" / "students").glob("*.tflite"))]
  report = (folder / "out" / "report.md").read_text()
  assert report in result.stdout
  return rows, metadata, report
