"""Commands that the indexer brings."""

from ai_infra_indexer.cli.audit import audit
from ai_infra_indexer.cli.checkpoint import checkpoint
from ai_infra_indexer.cli.complete import complete
from ai_infra_indexer.cli.export import export
from ai_infra_indexer.cli.locks import hold, retention
from ai_infra_indexer.cli.proof import prove
from ai_infra_indexer.cli.prune import prune_command
from ai_infra_indexer.cli.rebuild import rebuild_command
from ai_infra_indexer.cli.replay import replay
from ai_infra_indexer.cli.reproject import db
from ai_infra_indexer.cli.restore_bus import restore_bus
from ai_infra_indexer.cli.what_ran import what_ran
from ai_infra_indexer.cli.witness import witness

audit.command()(prove)
audit.add_typer(checkpoint, name="checkpoint")
audit.command()(complete)
audit.command()(export)
audit.add_typer(hold, name="hold")
audit.add_typer(retention, name="retention")
audit.command()(replay)
audit.command()(witness)

db.command("prune")(prune_command)

commands = {"audit": audit, "db": db, "rebuild": rebuild_command, "restore-bus": restore_bus, "what-ran": what_ran}
