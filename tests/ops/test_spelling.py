"""Misspelled names get suggestions."""

from tfkd.ops.spelling import did_you_mean


def test_close_names_are_suggested():
  assert did_you_mean("hnit", ["hint", "dist"]) == "did you mean 'hint'? "
  assert did_you_mean("relu", {"relu1": 0, "relu2": 0}) == "did you mean 'relu2' or 'relu1'? "


def test_nothing_is_suggested_where_no_name_is_close():
  assert did_you_mean("x", ["hint", "dist"]) == ""
