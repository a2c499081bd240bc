"""The Food-11 homework: a student of at most 60,000 parameters."""
