"""Labels against distillation on tasks beside the classification of pictures: one script for each."""
