"""The SVHN homework: a quantized student, a full-precision teacher, and what temperature does."""
