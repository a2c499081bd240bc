"""Names of the compared files, in the order of the table."""

FLOAT_TEACHER, FLOAT_STUDENT, PTQ_INT8, PTQ_INT4 = "float teacher", "float student", "PTQ int8", "PTQ int4"
TRAINED = {
  "QAT int8": ("w8a8", False),
  "QAT int8 + distillation": ("w8a8", True),
  "QAT int4": ("w4a8", False),
  "QAT int4 + distillation": ("w4a8", True),
  "w2a1": ("w2a1", False),
  "w2a1 + distillation": ("w2a1", True),
}
"""Files of students that train with their quantization: scheme, and whether it is distilled."""
FILES = (
  FLOAT_TEACHER,
  FLOAT_STUDENT,
  PTQ_INT8,
  "QAT int8",
  "QAT int8 + distillation",
  PTQ_INT4,
  "QAT int4",
  "QAT int4 + distillation",
  "w2a1",
  "w2a1 + distillation",
)
