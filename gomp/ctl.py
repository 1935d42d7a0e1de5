"""The client of a service's control listener, for ``gomp ctl``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gomp.errors import ConfigError, RuntimeLost
from gomp.runtime.discovery import choose

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Control:
    """Where a control listener is: the path of its Unix socket, or a URL with the token that it wants."""

    where: str
    token: str = ""

    @classmethod
    def of_runtime(cls, name: str | None, token_file: Path | None) -> Control:
        """That of the runtime ``name``, or of the only one. Raises ConfigError."""
        info = choose(name)
        if not info.control:
            raise ConfigError(
                f"the runtime {info.name} takes no changes: only a service does, unless it has control = off"
            )
        return cls(info.control, _read_token(token_file))

    @classmethod
    def at_url(cls, url: str, token_file: Path | None) -> Control:
        return cls(url, _read_token(token_file))

    def ask(self, method: str, path: str, value: str | None = None) -> dict[str, Any]:
        """What it answers. Raises ConfigError for a wrong value or token, RuntimeLost if nobody answers."""
        is_socket = self.where.startswith("/")
        transport = httpx.HTTPTransport(uds=self.where) if is_socket else None
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            with httpx.Client(
                base_url="http://gomp" if is_socket else self.where,
                transport=transport,
                headers=headers,
                timeout=TIMEOUT_S,
                trust_env=False,
            ) as client:
                answer = client.request(method, path, content=value)
                found = answer.json()
        except httpx.InvalidURL as error:
            raise ConfigError(f"{self.where} is no URL: {error}") from None
        except (httpx.HTTPError, ValueError) as error:
            raise RuntimeLost(f"no control listener answers at {self.where}: {error}") from None
        if answer.is_success:
            return dict(found)
        kind = ConfigError if answer.is_client_error else RuntimeLost
        raise kind(str(found.get("error", f"status {answer.status_code}")))


def _read_token(file: Path | None) -> str:
    try:
        return file.read_text(encoding="utf-8").strip() if file else ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {getattr(error, 'strerror', error)}") from None
