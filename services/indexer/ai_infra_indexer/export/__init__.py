"""What an auditor gets: a folder with the log, or a selection of it, and a verifier that needs nothing of ours.

    selection.py   which entries
    index.py       what the folder says of itself, and what of that is signed
    writer.py      from the archive to the folder, every byte verified on the way
    verify.py      the verifier: one file, copied out; it must never import anything of this project

It reads the archive alone, so it works while Kafka, Postgres and every service are away.
"""

from ai_infra_indexer.export.selection import Selection
from ai_infra_indexer.export.writer import Exported, ExportFailed, write_export

__all__ = ["ExportFailed", "Exported", "Selection", "write_export"]
