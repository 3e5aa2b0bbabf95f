"""Measures videos of any system: python -m worldmodel.evaluation.videos real=DIR fake=DIR [...]

ruler/
    metrics.json   every score with its interval and floors, settings, hashes of all files
    ruler.html     one page: tables, charts, frames; opens from disk
"""

import sys

from training.errors import BadInput
from worldmodel.evaluation.videos.command import main

try:
    main(sys.argv[1:])
except BadInput as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None
