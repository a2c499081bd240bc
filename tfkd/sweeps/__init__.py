"""One teacher, many students, one work directory.

  data = ArrayData(train=(images, labels), test=(test_images, test_labels), classes=["cat", "dog"])
  config = SweepConfig(teacher="resnet20", student=build_my_network, epochs=10)
  sweep = Sweep("runs/mine", config, data)
  sweep.run([
    StudentSpec("mine", "labels", FLOAT, seed=0),
    StudentSpec("mine", "soft targets", FLOAT, seed=0, objectives=(tfkd.objectives.SoftTargets(4.0),)),
  ])
  print(tfkd.reporting.table(sweep.results.rows()))

A killed sweep resumes when it is run again: finished models are kept, and the model that was being trained continues
from its last checkpoint.
"""

from tfkd.sweeps.configuration import FLOAT as FLOAT
from tfkd.sweeps.configuration import StudentSpec as StudentSpec
from tfkd.sweeps.configuration import SweepConfig as SweepConfig
from tfkd.sweeps.datasets import ArrayData as ArrayData
from tfkd.sweeps.datasets import PipelineData as PipelineData
from tfkd.sweeps.export import file_metadata as file_metadata
from tfkd.sweeps.results import Results as Results
from tfkd.sweeps.sweep import Sweep as Sweep
from tfkd.sweeps.workspace import Workspace as Workspace
