"""Crops of drawn house numbers, with all that is known of them, for the tasks that read them."""

from absl import flags

from tfkd.data import house_numbers

TEST_CROPS = 2000

flags.DEFINE_integer("crops", None, "Number of training crops to draw. [preset]", lower_bound=1)


_SEED = 1


def drawn() -> tuple[house_numbers.Annotated, house_numbers.Annotated]:
  """Draws training and test crops."""
  return stream(0, flags.FLAGS.crops), stream(1, TEST_CROPS)


def stream(number: int, num_crops: int) -> house_numbers.Annotated:
  """Draws crops that no stream of another number contains."""
  return house_numbers.draw_annotated(num_crops, [_SEED, number])
