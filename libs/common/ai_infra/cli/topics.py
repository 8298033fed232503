"""`ai-infra topics`: create what is missing, check what is there, print the ACLs that the broker should have."""

from __future__ import annotations

from typing import Annotated

import typer

from ai_infra.cli.output import Json, progress, rows, show

app = typer.Typer(help="Create and check topics; print the broker's ACLs.", no_args_is_help=True)


@app.command()
def create(as_json: Json = False) -> None:
    """Make every topic that is missing, and place every service's group at the start of its inputs. May be repeated."""
    from ai_infra.bus.kafka.topics import create_topics
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("looking at the broker") as say:
        made = create_topics(settings, progress=say)
    if not made.topics and not made.offsets:
        text = f"All topics are there, each with {settings.log.lanes} lanes."
    else:
        text = f"{len(made.topics)} topics made with {settings.log.lanes} lanes; {len(made.offsets)} groups placed."
    show(made, json=as_json, table=text)


@app.command()
def check(
    fix: Annotated[bool, typer.Option("--fix", help="Set the topics' settings right; touches nothing else.")] = False,
    as_json: Json = False,
) -> None:
    """Compare topics, their settings and the groups' positions with what they should be. Exits with 1 on a problem."""
    from ai_infra.bus.kafka.topics import check_topics, correct_settings, topic_specs
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("looking at topics and groups"):
        if fix:
            correct_settings(settings)
        problems = check_topics(settings)
    show(
        {"problems": problems},
        json=as_json,
        table=rows(("where", "what", "what to do"), [(p.subject, p.what, p.fix) for p in problems])
        if problems
        else f"All {len(topic_specs(settings))} topics and all groups are as they should be.",
    )
    if problems:
        raise typer.Exit(1)


@app.command()
def acl(
    role: Annotated[list[str] | None, typer.Option("--role", help="Only this role; may be repeated.")] = None,
    principal: Annotated[
        list[str] | None,
        typer.Option("--principal", help="ROLE=NAME: the broker's name for a role, e.g. trainer=User:CN=trainer."),
    ] = None,
    commands: Annotated[bool, typer.Option("--commands", help="As kafka-acls.sh command lines.")] = False,
    as_json: Json = False,
) -> None:
    """What each role needs on the broker, and no more."""
    from ai_infra.bus.kafka.acls import acls, as_commands, with_principals
    from ai_infra.settings import load_settings

    load_settings()  # a typo in a variable should show here too
    found = with_principals(acls(role or ()), principal or ())
    if commands:
        show(as_commands(found), json=as_json, table="\n".join(as_commands(found)))
        return
    show(
        found,
        json=as_json,
        table=rows(
            ("role", "principal", "operations", "on", "name"),
            [(a.role, a.principal, ", ".join(a.operations), a.resource_type(), a.name) for a in found],
        ),
    )
