"""A training asked for by a program: the ten lines of docs/quickstart.md, with this clone's code and real data.

ai-infra dev up --services && python examples/digits/submit.py
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ai_infra.client import Client, DatasetRef

HERE = Path(__file__).resolve().parent
JOB = json.loads((HERE / "job.json").read_text(encoding="utf-8"))


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", HERE, *arguments], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    with Client.from_env() as client:
        job = client.submit_job(
            model=JOB["model"],
            code_ref=f"git+file://{git('rev-parse', '--show-toplevel')}@{git('rev-parse', 'HEAD')}#examples/digits",
            training_cmd=JOB["training_cmd"],
            dataset_refs=[DatasetRef(**ref) for ref in JOB["dataset_refs"]],
            hyperparams=JOB["hyperparams"],
            seed=JOB["seed"],
        )
        print(f"job {job.job_id}")
        result = client.wait(job, timeout=600)
        print(f"{JOB['model']} version {result.version}, artifact {result.artifact_id}, new: {result.new_version}")
