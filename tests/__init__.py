"""Tests, and `check`, the run-time checker behind `--jaxtyping-packages`.

It is beartype that reads annotations as mypy does: by PEP 484 an int is accepted where a float is
annotated, which plain beartype refuses.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
