"""Settings of the service, checked before anything is bound."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from rewards.limits import LARGE, SLOW, check_memory, check_settings

MIN_TOKEN_CHARS = 16
DRAIN_MARGIN_S = 5.0
"""For killing a worker that is late, and for sending the answer."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Where the service listens and what it takes on.

    Raises:
        ValueError: a value out of range, or an address that others can reach without a token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    """What clients must send as `Authorization: Bearer TOKEN`; None only on the loopback address."""
    workers: int = 2
    timeout_s: float = 1.0
    """Deadline of one result."""
    timeouts: Mapping[str, float] = field(default_factory=dict)
    """Other deadlines for some answer types, over those of `rewards.limits.SLOW`."""
    memory_mb: int = 2048
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Further verifiers, answer type -> reference; who calls the service can't add any."""
    max_batch: int = 256
    """Completions in one request."""
    max_body_bytes: int = 16 * 2**20
    max_held_bytes: int = 256 * 2**20
    """Bodies of all requests being read or graded; beyond it requests are refused with 429."""
    max_queue: int = 4096
    """Completions admitted and not yet answered; beyond it requests are refused with 429."""
    body_timeout_s: float = 30.0
    """How long a client may take to send its body."""
    drain_s: float | None = None
    """How long requests in flight may take to finish after SIGTERM; None: as long as the slowest result may."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"port is {self.port}; it must be from 0 to 65535")
        check_settings(self.workers, self.timeout_s, self.timeouts, self.memory_mb)
        check_memory(LARGE, self.memory_mb, self.plugins)
        if self.drain_s is not None and self.drain_s < 0:
            raise ValueError(f"drain_s is {self.drain_s}; set seconds, 0 to wait for nothing, or None")
        for name in ("max_batch", "max_body_bytes", "max_queue", "max_held_bytes", "body_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.max_batch > self.max_queue or self.max_body_bytes > self.max_held_bytes:
            raise ValueError(
                f"one request may hold {self.max_batch} completions and {self.max_body_bytes} bytes, more than the "
                f"service takes at once ({self.max_queue}, {self.max_held_bytes}); it could never be admitted"
            )
        if self.token is not None and (len(self.token) < MIN_TOKEN_CHARS or not _is_header_text(self.token)):
            raise ValueError(
                f"the token must have at least {MIN_TOKEN_CHARS} characters, all of them visible ASCII; make one with "
                "`openssl rand -hex 32`"
            )
        if self.token is None and not is_loopback(self.host):
            raise ValueError(
                f"{self.host!r} can be reached from other machines, and there is no token: anyone could have verifiers "
                "run on this one. Set a token (environment variable REWARDS_TOKEN), or listen on 127.0.0.1"
            )

    @property
    def drain_limit_s(self) -> float:
        """`drain_s`, or what the slowest result that may be in flight can take."""
        if self.drain_s is not None:
            return self.drain_s
        return max(self.timeout_s, *{**SLOW, **self.timeouts}.values()) + DRAIN_MARGIN_S


def is_loopback(host: str) -> bool:
    """True where only this machine can connect to `host`; False for names that would have to be looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_header_text(text: str) -> bool:
    return all("!" <= char <= "~" for char in text)
