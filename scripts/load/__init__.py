"""Open-loop load that reports every lost request, to show that a blue-green swap loses none.

Requests start at a constant rate, independent of the answers. Latency counts from the time when a
request was due, and no request is sent twice. See ``Load``; ``python -m scripts.load --help`` is
the same for a terminal.
"""

from scripts.load.options import Options
from scripts.load.report import Failure, Phase, Record, Result
from scripts.load.run import Load

__all__ = ["Failure", "Load", "Options", "Phase", "Record", "Result"]
