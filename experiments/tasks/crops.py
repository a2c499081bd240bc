"""Crops of drawn house numbers, with all that is known of them, for the tasks that read them."""

from absl import flags

from tfkd.data import house_numbers

TEST_CROPS = 2000

flags.DEFINE_integer("crops", None, "Number of training crops to draw. [preset]", lower_bound=1)


def drawn() -> tuple[house_numbers.Annotated, house_numbers.Annotated]:
  """Draws training and test crops, from different streams of one seed."""
  return house_numbers.draw_annotated(flags.FLAGS.crops, [1, 0]), house_numbers.draw_annotated(TEST_CROPS, [1, 1])
