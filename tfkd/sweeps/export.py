"""A trained student as the file that its scheme leaves as, measured on the whole test set."""

import os

from tfkd import deploy, quantization


def file_metadata(training, info, student=None):
  """What a file shall say of its model, beside its classes and its accuracy.

  Args:
    training: `SweepConfig`.
    info: `tfkd.data.Dataset`.
    student: `StudentSpec`; None of a teacher.
  """
  fields = {"data": training.dataset, "mean": info.preprocessing.mean, "std": info.preprocessing.std}
  if student is not None:
    fields |= {"network": student.network or training.student, "method": student.method, "seed": student.seed}
    if student.objectives:
      fields |= {"teacher": training.teacher, "objectives": [objective.name for objective in student.objectives]}
    if student.temperature is not None:
      fields["temperature"] = student.temperature
  return fields


def export(model, stem, test, *, info, fields):
  """Writes a quantized student's file beside its `.keras`: TFLite where LiteRT computes in its bits, or a pack.

  Args:
    model: the student, of this process alone; a float one has no file.
    stem: path without suffix.
    test: `tf.data` data set of (images, labels), whole.
    info: `tfkd.data.Dataset`.
    fields: dict for the file's metadata, see `file_metadata`.

  Returns:
    dict of fields for the results' row.
  """
  scheme = quantization.scheme_of(model)
  return {} if scheme is None else _EXPORTERS[scheme.export_kind](model, stem, test, info, fields)


def _tflite(model, stem, test, info, fields):
  path = f"{stem}.tflite"
  deploy.to_tflite(model, path, labels=info.classes, metadata=fields)
  measured = deploy.evaluate(path, test)
  deploy.write_metadata(path, accuracy=round(measured["accuracy"], 4))
  return {
    "tflite_accuracy": measured["accuracy"],
    "tflite_loss": measured["loss"],
    "tflite_bytes": os.path.getsize(path),
  }


def _pack(model, stem, test, info, fields):
  return {"packed_bytes": deploy.pack(model, f"{stem}.pack")}


_EXPORTERS = {"tflite": _tflite, "pack": _pack}  # By `Scheme.export_kind`.
