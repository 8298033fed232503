"""The main job of ai-infra, end to end, on real parts and real data: `make demo`.

Train a digit recogniser, register it, promote it to prod, show where it came from, verify the log from its archive,
rebuild the registry from the archive alone, and tamper with copies to show that it is found. Leaves everything running;
run it again and it goes on from there. It never touches a stack other than `dev` in this folder.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.demo.narration import DemoError, Story, console, fact, run, say, suggest
from examples.demo.tampering import tamper
from examples.digits.evaluate import evaluate_artifact

from ai_infra.client import Client
from ai_infra.client.handles import JobResult
from ai_infra.devstack.stack import Stack
from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import ArtifactRegistered, DatasetRef

ROOT = Path(__file__).resolve().parents[2]
MODEL = "digits"
COPY = "demo_rebuilt"  # database that the registry is rebuilt into


def main() -> int:
    story = Story()
    stack = Stack("dev", ROOT)
    try:
        tell(story, stack)
    except (DemoError, AiInfraError) as error:
        console.print(f"\n[red]The demo stopped:[/red] {error}")
        console.print(
            "See how things stand with `ai-infra status` and `ai-infra dev status`; the logs: `ai-infra dev logs`."
        )
        return 1
    return 0


def tell(story: Story, stack: Stack) -> None:
    say("[bold]ai-infra[/bold]: from a training job to a model in production, with a log that anybody can verify.")
    with story.step("Start Kafka, Postgres and an S3 server with Object Lock, and the five services"):
        info = stack.up(lambda line: say(f"  {line}"))
        stack.start_services(lambda line: say(f"  {line}"))
        for name, url in info.urls.items():
            fact(name, url)
    settings = stack.settings()
    with Client(settings) as client:
        seen = client.history(ArtifactRegistered, model=MODEL)
        versions = max((e.body.version for e in seen), default=0)
        with story.step("Ask for a training, as an orchestrator does, and wait until it is registered"):
            first = train(client, strength=0.1 * (versions + 1))
        with story.step("Train the same again: equal bytes are evidence, not a new version"):
            again = train(client, strength=0.1 * (versions + 1))
            if again.new_version or again.artifact_id != first.artifact_id:
                raise DemoError("the repetition was not bit-equal: expected the artifact of the first training")
            fact("attestations", again.registered.body.attestation)
        with story.step("Evaluate the registered file on images that it was not trained on, and record the result"):
            uri, sha256 = first.registered.body.artifact_uri, first.registered.body.artifact_sha256
            metrics = evaluate_artifact(settings, uri, sha256)
            for name, value in metrics.items():
                fact(name, f"{value:.4f}")
            client.record_evaluation(
                model=MODEL,
                artifact_id=first.artifact_id,
                dataset_ref=dataset(),
                score=metrics["accuracy"],
                metrics=metrics,
            )
        with story.step("Promote it to prod: policy decides, the decision is signed, one writer deploys"):
            promotion = client.request_promotion(
                model=MODEL, artifact_id=first.artifact_id, env="prod", reason="the demo likes it"
            )
            applied = client.wait(promotion)
            fact("policy", applied.decision.body.verifier_id)
            fact("decision", applied.decision.body.status)
            fact("serves in prod", f"version {first.version} (deployment {applied.revision})")
    with story.step("Ask what runs, and where it came from"):
        run(["what-ran", MODEL, "--env", "prod"])
        run(["artifact", "lineage", first.artifact_id])
    with story.step("Verify the whole log from its archive: signatures, chains, trees, checkpoints"):
        run(["audit", "verify", "--archive", archive_of(stack)])
    with story.step("Throw the database away (here: ignore it) and rebuild the registry from the archive alone"):
        stack.drop_database(COPY)
        copy = stack.create_database(COPY)
        run(["rebuild", "--archive", archive_of(stack), "--into", copy])
        run(["rebuild", "--parity", "--into", copy])
    with story.step("Tamper with a copy of the archive, a row and an artifact: each is found and named"):
        tamper(stack, settings, copy, uri)
    say("")
    say(f"[bold]Done in {story.seconds:.0f} s.[/bold] Version {first.version} of {MODEL} serves in prod.")
    say("Everything is left running.")
    say("What to try next:")
    suggest(
        [
            ("ai-infra status", "how everything is, and what to do next"),
            (f"ai-infra events list --model {MODEL}", "what was said about the model"),
            (f"ai-infra events trace {promotion.published.id}", "what followed from asking for this promotion"),
            (f"ai-infra job logs {first.job_id}", "what the training wrote"),
            *undo(first.version, versions),
            ("make demo", "again: other hyperparameters, the next version"),
            ("make down", "stop everything"),
        ]
    )


def undo(version: int, before: int) -> list[tuple[str, str]]:
    """Going back needs something to go back to."""
    if before == 0:
        return []
    compare = (f"ai-infra artifact diff {MODEL}@{before} {MODEL}@{version}", "what changed since the version before")
    back = (f"ai-infra promote rollback {MODEL} --env prod --reason why --wait 30", "go back to what served before")
    return [compare, back]


def train(client: Client, *, strength: float) -> JobResult:
    """One training of examples/digits at this clone's commit: the ten lines that an orchestrator writes."""
    job = client.submit_job(
        model=MODEL,
        code_ref=f"git+file://{ROOT}@{commit()}#examples/digits",
        training_cmd=["python", "train.py"],
        dataset_refs=[dataset()],
        hyperparams={"c": round(strength, 6)},
        seed=7,
        time_limit_s=300,
    )
    fact("job", job.job_id)
    result = client.wait(job, timeout=180)
    registered = result.registered.body
    fact("artifact", result.artifact_id)
    fact("version", f"{result.version}{'' if result.new_version else ' (known bytes: no new version)'}")
    fact("sha256", registered.artifact_sha256)
    fact("manifest signature", f"{registered.manifest_signature_id} by {registered.manifest_signature.signer_id}")
    return result


def dataset() -> DatasetRef:
    """scikit-learn's digits, pinned by checksum: the file ships inside the package."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DemoError("scikit-learn is not installed; `make demo` installs it")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return DatasetRef(
        id="digits",
        checksum=f"sha256:{sha256_hex(path.read_bytes())}",
        version="1",
        uri="python-package://sklearn/datasets/data/digits.csv.gz",
    )


def commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        why = done.stderr.strip()
        raise DemoError(f"{ROOT} is no git clone, and a training's code is named by its commit: {why}")
    return done.stdout.strip()


def archive_of(stack: Stack) -> str:
    return f"s3://{stack.env()['AI_INFRA_ARCHIVE_BUCKET']}"


if __name__ == "__main__":
    sys.exit(main())
