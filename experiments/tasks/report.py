"""`report.md` of a task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfkd import reporting
from tfkd.reporting import compare, format_mean_std, markdown_table
from tfkd.sweeps import FLOAT

if TYPE_CHECKING:
  from experiments.tasks.comparison import Task

_SHARES = ("accuracy", "agreement", "mean_iou")


def write_report(
  task: "Task", workdir: str, results: Sequence[dict], files: Sequence[dict], seeds: Sequence[int]
) -> str:
  """Writes `report.md` into the work directory.

  Args:
    task: the task, whose columns the methods are compared by.
    workdir: where to write.
    results: rows of the finished sweep.
    files: one row for each method and seed, of `tfkd.deploy.evaluate`.
    seeds: of the students.

  Returns:
    The text, followed by the path of the file.
  """
  (teacher,) = (row for row in results if row["role"] == "teacher")
  students = [row for row in results if row["role"] == "student" and row["scheme"] == FLOAT and row["seed"] in seeds]
  rows = {method: [row for row in students if row["method"] == method] for method in task.methods}
  of_files = {method: [row for row in files if row["method"] == method] for method in task.methods}
  first = next(iter(rows.values()))[0]
  size = f" ({teacher['parameters']:,} parameters)" if "parameters" in teacher else ""
  measured = ", ".join(f"{_title(name)} {_value([teacher[name]], name)}" for name in task.columns if name in teacher)
  text = (
    f"# {task.name}\n\n"
    f"Data: {teacher['dataset']}, {first['train_images']:,} training and {teacher['test_images']:,} test examples. "
    f"Mean ± standard deviation over seeds ({', '.join(map(str, seeds))}) on the whole test set; one teacher{size}: "
    f"{measured}. Students have {first['parameters']:,} parameters. Files are {task.scheme}, run by LiteRT.\n\n"
  )
  further = list(files[0]["further"])
  agreement = [name for name in first if name.endswith("agreement")]
  header = ["method", *(_title(name) for name in task.columns), *(f"{_title(name)} with teacher" for name in agreement)]
  header += [f"file: {_title(name)}" for name in [*task.columns, *further]]
  header += ["file: bytes", "largest difference, steps of the output" if task.scheme != FLOAT else "largest difference"]
  lines = [
    [
      method,
      *(_value([row[name] for row in rows[method]], name) for name in [*task.columns, *agreement]),
      *(_value([row[name] for row in of_files[method]], name) for name in task.columns),
      *(_value([row["further"][name] for row in of_files[method]], name) for name in further),
      f"{max(row['bytes'] for row in of_files[method]):,}",
      _difference(of_files[method], task.scheme),
    ]
    for method in task.methods
  ]
  text += markdown_table(header, lines)
  for column in task.columns:
    text += f"\n{_title(column).capitalize()}: {_sentences(rows, 'float student', column)}"
    text += f" {_sentences(of_files, 'file', column)}\n"
  return reporting.write_report(workdir, text)


def _sentences(rows, what, column):
  """Compares each method with the first one."""
  baseline, *others = rows
  unit = {} if _is_share(column) else {"unit": "nats" if column == "loss" else "", "scale": 1.0}
  return " ".join(
    compare(
      f"the {what} of {method}", [row[column] for row in rows[method]],
      f"that of {baseline}", [row[column] for row in rows[baseline]], **unit,
    )
    for method in others
  )  # fmt: skip


def _difference(files, scheme):
  name = "worst_steps" if scheme != FLOAT else "worst_difference"
  found = [row[key] for row in files for key in row if key.endswith(name) and row[key] is not None]
  return f"{max(found):.2g}" if found else "–"


def _is_share(name):
  return name.endswith(_SHARES)


def _title(name):
  title = "cross-entropy" if name == "loss" else name.replace("_", " ")
  return title.replace("iou", "IoU")


def _value(values, name):
  return f"{format_mean_std(values, 100)} %" if _is_share(name) else format_mean_std(values, digits=4)
