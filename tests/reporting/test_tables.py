"""Markdown tables of results."""

from tfkd.reporting import markdown_table, table

ROWS = [
  {"role": "student", "method": "a", "scheme": "float", "accuracy": 0.5, "choices": {"alpha": 0.25}},
  {"role": "student", "method": "b", "scheme": "float", "accuracy": 0.75, "loss": 1.5},
  {"role": "student", "method": "a", "scheme": "float", "accuracy": 0.7, "choices": {"alpha": 0.25}},
]


def test_rows_of_equal_fields_form_a_group_with_mean_and_std():
  assert table(ROWS, by=["method"], columns=["accuracy", "loss"]).splitlines() == [
    "| method | accuracy, % | loss | runs |",
    "| --- | ---: | ---: | ---: |",
    "| a | 60.00 ± 14.14 | – | 2 |",
    "| b | 75.00 | 1.5000 | 1 |",
  ]


def test_choices_separate_groups():
  assert table(ROWS, by=["alpha"], columns=["accuracy"]).splitlines()[2:] == [
    "| 0.25 | 60.00 ± 14.14 | 2 |",
    "| – | 75.00 | 1 |",
  ]


def test_a_table_of_no_rows_has_a_header():
  assert table([], by=["method"], columns=[]) == markdown_table(["method", "runs"], [])
