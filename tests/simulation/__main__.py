"""`python -m tests.simulation`: play schedules, or one of them again."""

from __future__ import annotations

import sys

from tests.simulation.play import main

sys.exit(main())
