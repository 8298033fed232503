"""What a process signs its events with: a session key in memory, vouched for by its long-lived key.

The long-lived key (often in a KMS, a few hundred signatures a second at best) signs one delegation; the session key
signs everything else. The delegation is renewed at half of its life, so a KMS may be away for the other half; how long
it still lasts is asked by readiness and metrics. The session key itself lives as long as the process and never leaves
it: an event's delegation and signature fit together even when a renewal comes between.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from ai_infra.errors import AiInfraError
from ai_infra.trust.delegation import Delegation, delegate
from ai_infra.trust.ed25519 import new_seed, public_of, secret_of, sign
from ai_infra.trust.exceptions import SessionExpired, SigningUnavailable
from ai_infra.trust.signers import Signer, check_size

DEFAULT_LIFETIME: Final = timedelta(hours=24)
# After a failed renewal the next attempt waits this long, so that a KMS that is away is not asked at every batch.
RETRY_AFTER: Final = timedelta(seconds=15)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Session:
    """A session key and its current delegation. Safe to use from several threads.

    Opening it has the first delegation signed, and raises what the signer raises. `events` are the event types that
    it may say; `service` is the principal's name; `keyring_version` tells the latest version known.
    """

    def __init__(
        self,
        signer: Signer,
        service: str,
        events: Sequence[str],
        keyring_version: Callable[[], int],
        lifetime: timedelta = DEFAULT_LIFETIME,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.service = service
        self.last_error: AiInfraError | None = None
        self._signer = signer
        self._events = tuple(events)
        self._keyring_version = keyring_version
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        seed = new_seed()
        self._secret = secret_of(seed)
        self._public_key = public_of(seed)
        self._failed_at: datetime | None = None  # when the last attempt to renew failed
        self._asking = False  # a thread asks the signer for the next delegation
        self._answers: queue.SimpleQueue[tuple[datetime, Delegation | AiInfraError]] = queue.SimpleQueue()
        self._current = self._delegate(clock())

    @property
    def signer_id(self) -> str:
        """Id of the long-lived key."""
        return self._signer.key_id

    @property
    def public_key(self) -> bytes:
        """The session's public key."""
        return self._public_key

    @property
    def delegation(self) -> bytes:
        """Bytes of the current delegation, for the event's header."""
        return self._current.raw

    @property
    def keyring(self) -> int:
        """Keyring version to name in an event: the latest known, never below that of the delegation."""
        return max(self._keyring_version(), self._current.keyring)

    def sign(self, message: bytes) -> bytes:
        """Signature by the session key. Raises SessionExpired once the delegation has ended."""
        check_size(message)
        if self.remaining() <= 0:
            raise SessionExpired(
                f"The delegation of {self.signer_id} has ended and was not renewed"
                + (f": {self.last_error}" if self.last_error else ".")
            )
        return sign(message, self._secret)

    def remaining(self) -> float:
        """Seconds for which the delegation still lasts; negative once it has ended."""
        return self._current.not_after - self._clock().timestamp()

    def renew_if_due(self, now: datetime | None = None) -> bool:
        """Renew the delegation when half of its life is over, or it has not begun; returns whether it was renewed.

        While the old one lasts, a signer that is away is no error: it is kept in `last_error` and asked again later.
        Raises SessionExpired where the delegation has ended and can't be renewed.
        """
        now = now or self._clock()
        with self._lock:
            self._take_answers()
            if not self._due(now):
                return False
            try:
                self._answers.put((now, self._delegate(now)))
            except AiInfraError as error:
                self._answers.put((now, error))
            self._take_answers()
            if self.last_error is not None and now.timestamp() >= self._current.not_after:
                raise SessionExpired(
                    f"The delegation of {self.signer_id} has ended: {self.last_error}"
                ) from self.last_error
            return self.last_error is None

    def renew_beside(self) -> None:
        """As `renew_if_due`, but the signer is asked on a thread of its own while the delegation lasts: one that does
        not answer must hold nobody up. What it answers counts from a later call on."""
        now = self._clock()
        with self._lock:
            self._take_answers()
            if not self._due(now) or self._asking:
                return
            self._asking = now.timestamp() < self._current.not_after
            if self._asking:
                threading.Thread(target=self._ask, args=(now,), name="renewal", daemon=True).start()
                return
        self.renew_if_due(now)

    def _ask(self, now: datetime) -> None:
        try:
            self._answers.put((now, self._delegate(now)))
        except AiInfraError as error:
            self._answers.put((now, error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and asked again
            self._answers.put((now, SigningUnavailable(f"{type(error).__name__}: {error}")))

    def _take_answers(self) -> None:
        while not self._answers.empty():
            asked_at, answer = self._answers.get()
            self._asking = False
            if isinstance(answer, Delegation):
                self._current, self.last_error = answer, None
            else:
                self._failed_at, self.last_error = asked_at, answer

    def _due(self, now: datetime) -> bool:
        current, failed = self._current, self._failed_at
        half = (current.not_before + current.not_after) / 2
        # A clock that was ahead and has been set back leaves a delegation that has not begun: nobody would accept an
        # event that goes with it.
        if current.not_before <= now.timestamp() < half:
            return False
        soon = failed is not None and failed <= now < failed + RETRY_AFTER
        return not soon or now.timestamp() >= current.not_after

    def _delegate(self, now: datetime) -> Delegation:
        return delegate(
            self._signer,
            service=self.service,
            events=self._events,
            keyring=self._keyring_version(),
            key=self._public_key,
            not_before=now,
            lifetime=self._lifetime,
        )
