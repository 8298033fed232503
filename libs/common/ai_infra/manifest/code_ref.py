"""Where a training's code is, as one string that pins it.

`git+https://host/repo@<commit>#<path>`, `git+file:///path@<commit>#<path>`, or an image digest `sha256:<hex>`. The
commit is a full object name, never a branch: what a branch means changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ai_infra.manifest.exceptions import BadManifest

IMAGE_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_GIT: Final = re.compile(
    r"git\+(?P<url>(?:https://[^\s@#/]+|file://)/[^\s@#]+)@(?P<commit>[0-9a-f]{64}|[0-9a-f]{40})(?:#(?P<path>[^\s#]+))?"
)


@dataclass(frozen=True, slots=True)
class CodeRef:
    """Git repository, commit and path in it; or, where `url` is None, an image by digest (`commit` None)."""

    text: str
    url: str | None
    commit: str | None
    path: str
    image_digest: str | None

    @classmethod
    def parse(cls, text: str) -> CodeRef:
        """Read a code reference; raises BadManifest."""
        if IMAGE_DIGEST.fullmatch(text):
            return cls(text, None, None, "", text)
        match = _GIT.fullmatch(text)
        if match is None:
            raise BadManifest(
                "a code reference is git+https://<host>/<repo>@<40 or 64 hex digits>[#<path>], git+file:///<path>@…, "
                f"or sha256:<64 hex digits>, not {text[:200]!r}"
            )
        path = match["path"] or ""
        if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/") if path):
            raise BadManifest(f"the path of a code reference stays inside its repository: {path!r}")
        return cls(text, match["url"], match["commit"], path, None)
