"""Names of the compared files, in the order of the table."""

FLOAT_TEACHER, FLOAT_STUDENT, PTQ_INT8, PTQ_INT4 = "float teacher", "float student", "PTQ int8", "PTQ int4"
_DISTILLED = " + distillation"
_SCHEMES = {
  "QAT int8": "w8a8",
  "QAT int4": "w4a8",
  "w4a4-lsq": "w4a4-lsq",
  "w2a2-lsq": "w2a2-lsq",
  "w2a1-lsq": "w2a1-lsq",
  "w2a1": "w2a1",
}
PAIRS = {name: f"{name}{_DISTILLED}" for name in _SCHEMES}
"""Files of students that train with their quantization on labels, and of the same students that are distilled."""
TRAINED = {
  variant: (scheme, variant.endswith(_DISTILLED))
  for name, scheme in _SCHEMES.items()
  for variant in (name, PAIRS[name])
}
"""Scheme of these files, and whether the student is distilled."""
FILES = (FLOAT_TEACHER, FLOAT_STUDENT, PTQ_INT8, PTQ_INT4, *TRAINED)
