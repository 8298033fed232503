"""Commands that the indexer brings."""

from ai_infra_indexer.cli.audit import audit
from ai_infra_indexer.cli.rebuild import rebuild_command

commands = {"audit": audit, "rebuild": rebuild_command}
