"""What Kubernetes calls a replica's report, and its bounds."""

from __future__ import annotations

KIND, PLURAL = "DataPlaneReport", "dataplanereports"
MOST_LINES, MOST_UNCARRIED, LONGEST_WORDS = 8, 100, 500  # lines, policies, and characters on each
