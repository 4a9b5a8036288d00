"""Open-loop load that loses no request unseen: the proof that a blue-green swap loses none.

Requests start at a constant rate whatever the answers do, each latency counts from the moment when
its request was due, and nothing is ever sent twice. See ``Load``; ``python -m scripts.load --help``
is the same for a terminal.
"""

from scripts.load.options import Options
from scripts.load.report import Failure, Phase, Record, Result
from scripts.load.run import Load

__all__ = ["Failure", "Load", "Options", "Phase", "Record", "Result"]
