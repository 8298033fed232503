"""The indexer: verifies what was said, sequences it into one log a lane, projects, archives, checkpoints, publishes."""

from typing import Final

SERVICE: Final = "indexer"
