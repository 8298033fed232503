"""Our readers accept and refuse exactly what the corpus says; anybody else's can be held against the same file."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.conformance.tlog import corpus

from ai_infra.tlog.checkpoint import Checkpoint, open_checkpoint
from ai_infra.tlog.consistency_file import ConsistencyFile, verify_consistency_file
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.heads import open_heads
from ai_infra.tlog.note import VerifierKey, open_note, parse_note, parse_vkey
from ai_infra.tlog.proof_file import verify_log_proof
from ai_infra.tlog.tiles import decode_bundle, parse_path

CASES: list[dict[str, Any]] = json.loads(corpus.PATH.read_text())


def keys(case: dict[str, Any], name: str) -> list[VerifierKey]:
    return [parse_vkey(text) for text in case[name]]


def read(case: dict[str, Any]) -> None:
    """Read a case as its kind is read. Raises a TlogError where it is refused."""
    data = case["data"]
    match case["kind"]:
        case "note":
            open_note(data.encode(), keys(case, "known"))
        case "vkey":
            parse_vkey(data)
        case "checkpoint":
            open_checkpoint(
                data.encode(),
                origin=case["origin"],
                log_keys=keys(case, "log_keys"),
                witnesses=keys(case, "witnesses"),
                quorum=case["quorum"],
            )
        case "proof":
            entry = base64.b64decode(case["entry"])
            verify_log_proof(data.encode(), entry=entry, origin=case["origin"], log_keys=keys(case, "log_keys"))
        case "consistency":
            said = case["old"]
            old = Checkpoint(said["origin"], said["size"], base64.b64decode(said["root"]))
            verify_consistency_file(data.encode(), old=old, log_keys=keys(case, "log_keys"))
        case "bundle":
            decode_bundle(base64.b64decode(data), case["width"])
        case "path":
            assert parse_path(data).path == data
        case "heads":
            open_heads(data.encode(), origin=case["origin"], log_keys=keys(case, "log_keys"))
        case _:
            raise AssertionError(case["kind"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}: {case['what']}")
def test_a_reader_accepts_and_refuses_as_the_corpus_has_it(case: dict[str, Any]) -> None:
    if case["ok"]:
        read(case)
    else:
        with pytest.raises(TlogError):
            read(case)


def test_the_corpus_is_what_its_program_writes_and_says_each_thing_once() -> None:
    assert corpus.PATH.read_text() == corpus.text(), "run: python -m tests.conformance.tlog.corpus"
    names = [(case["kind"], case["what"]) for case in CASES]
    assert len(set(names)) == len(names)
    data = [json.dumps({k: v for k, v in case.items() if k not in ("what", "ok")}, sort_keys=True) for case in CASES]
    assert len(set(data)) == len(data)


# The example of C2SP tlog-cosignature; its keys are not published, so only its form can be read.
COSIGNED = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501 - the document's own bytes
# The example of C2SP tlog-witness: a request that `audit prove --consistency` would write alike.
REQUEST = (
    """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

"""
    + COSIGNED
)


def test_the_examples_of_the_public_documents_are_read_and_written_alike() -> None:
    note = parse_note(COSIGNED.encode())
    assert note.to_bytes().decode() == COSIGNED
    checkpoint = Checkpoint.parse(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert checkpoint.text == note.text
    witness = note.signatures[1]
    assert (len(witness.signature), int.from_bytes(witness.signature[:8], "big")) == (72, 1_679_315_147)
    request = ConsistencyFile.parse(REQUEST.encode())
    assert (request.old_size, len(request.hashes)) == (20_852_014, 4)
    assert request.to_bytes().decode() == REQUEST
