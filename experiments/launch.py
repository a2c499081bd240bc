"""Starts an experiment in several processes on this machine; the same as `python -m tfkd.training.launch`."""

from absl import app

from tfkd.training.launch import main

if __name__ == "__main__":
  app.run(main)
