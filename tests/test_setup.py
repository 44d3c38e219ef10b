"""The Makefile's set-up, without network: stand-ins for Python and pip record what they are asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# `-c CODE` runs in the real Python after a preamble; `-m venv --clear DIR` makes an environment whose pip takes notes.
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then exec '{python}' -c '{preamble}; import sys; exec(sys.argv[1])' "$2"; fi
echo "$*" >> '{log}'
[ "$1 $2 $3" = "-m venv --clear" ] || exit 99
rm -rf "$4" && mkdir -p "$4/bin" && cp '{pip}' "$4/bin/python"
"""
PIP = """#!/bin/sh
echo "$*" >> '{log}'
case "$*" in *definitely-not-a-package*) echo "ERROR: No matching distribution" >&2; exit 1;; esac
"""


class Checkout:
    """A copy of what the set-up reads, and a way to run make in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.stamp = folder / "checkout", folder / "log", folder / "checkout/.venv/.installed"
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder)
        self._script(folder / "pip", PIP.format(log=self.log))
        self.python = self.fake_python("python")

    def fake_python(self, name: str, preamble: str = "pass") -> Path:
        script = PYTHON.format(python=sys.executable, preamble=preamble, log=self.log, pip=self.folder.parent / "pip")
        return self._script(self.folder.parent / name, script)

    def _script(self, path: Path, text: str) -> Path:
        path.write_text(text)
        path.chmod(0o755)
        return path

    def make(self, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Runs make; returns how it ended and what Python and pip were asked to do."""
        self.log.write_text("")
        # The make that may run these tests hands its own flags and choices down.
        ours = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PY", "TORCH", "TORCH_ARGS"}
        env = {name: value for name, value in os.environ.items() if name not in ours}
        done = subprocess.run(
            ["make", *arguments], cwd=self.folder, env=env, capture_output=True, text=True, timeout=60
        )
        return done, self.log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


VENV = "-m venv --clear .venv"
TORCH = "-m pip install -qq torch==2.13.0"
REST = "-m pip install -qq torch==2.13.0 -e .[dev]"


@pytest.mark.parametrize(
    ("preamble", "says"),
    [
        ("import sys; sys.version_info = (3, 10, 13)", "needs Python 3.11 or newer; PY={py} is Python 3.10"),
        ("import sys; sys.modules['ensurepip'] = None", "apt install python3-venv"),
        ("import sys; sys.modules['venv'] = None", "apt install python3-venv"),
        ("raise SystemExit(1)", "PY={py} is no Python that runs"),
    ],
    ids=["too old", "no ensurepip", "no venv", "no python"],
)
@pytest.mark.parametrize("target", ["test", "demo"])
def test_a_python_that_cannot_serve_is_refused_before_anything_is_made(
    checkout: Checkout, preamble: str, says: str, target: str
) -> None:
    python = checkout.fake_python("unfit", preamble.replace("'", '"'))
    done, asked = checkout.make(target, f"PY={python}")
    assert done.returncode == 2
    assert says.format(py=python) in done.stderr
    assert f"make {target} PY=" in done.stderr
    assert not asked
    assert not (checkout.folder / ".venv").exists()


def test_torch_is_installed_first_and_alone(checkout: Checkout) -> None:
    """Beside other requirements pip would be free to choose another build of torch, gigabytes large."""
    done, asked = checkout.make("install", f"PY={checkout.python}", "TORCH_ARGS=--index-url URL")
    assert done.returncode == 0, done.stderr
    assert asked == [VENV, "-m pip install -qq --index-url URL torch==2.13.0", REST]
    assert checkout.stamp.exists()


@pytest.mark.parametrize("target", ["demo", "test", "lint", "types", "pytest", "format", "bench", "install"])
def test_every_target_sets_itself_up(checkout: Checkout, target: str) -> None:
    done, _ = checkout.make("--dry-run", target, f"PY={checkout.python}")
    assert done.returncode == 0, done.stderr
    assert "-m venv" in done.stdout
    assert "-e '.[dev]'" in done.stdout


def test_an_install_that_broke_is_done_again_from_the_start(checkout: Checkout) -> None:
    """A stamp left behind by a broken install would make every later run fail far from the cause."""
    broken, _ = checkout.make("install", f"PY={checkout.python}", "TORCH=definitely-not-a-package")
    assert broken.returncode == 2
    assert "No matching distribution" in broken.stderr
    assert "definitely-not-a-package was not installed" in broken.stderr
    assert not checkout.stamp.exists()
    _, asked = checkout.make("install", f"PY={checkout.python}")
    assert asked == [VENV, TORCH, REST]
    assert checkout.stamp.exists()


def test_a_finished_install_is_left_alone(checkout: Checkout) -> None:
    checkout.make("install", f"PY={checkout.python}")
    for arguments in ([], [f"PY={checkout.python}"], ["TORCH=torch==2.13.0"]):
        _, asked = checkout.make("install", *arguments)
        assert not asked


def test_a_changed_pyproject_installs_again_in_place(checkout: Checkout) -> None:
    """New dependencies and entry points arrive with a pull; torch need not be unpacked again for them."""
    checkout.make("install", f"PY={checkout.python}")
    later = time.time() + 10
    os.utime(checkout.folder / "pyproject.toml", (later, later))
    _, asked = checkout.make("install")
    assert asked == [TORCH, REST]


def test_choices_hold_until_others_are_given(checkout: Checkout) -> None:
    """Another PY or TORCH must not get the old environment; naming none must not fall back to the defaults."""
    checkout.make("install", f"PY={checkout.python}")
    _, asked = checkout.make("install", "TORCH=torch==2.12.0")
    assert asked == [VENV, "-m pip install -qq torch==2.12.0", "-m pip install -qq torch==2.12.0 -e .[dev]"]
    _, asked = checkout.make("install")
    assert not asked
    _, asked = checkout.make("install", f"PY={checkout.fake_python('other')}")
    assert asked == [VENV, "-m pip install -qq torch==2.12.0", "-m pip install -qq torch==2.12.0 -e .[dev]"]


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.make("install", f"PY={checkout.python}")
    (checkout.folder / ".venv/bin/python").unlink()
    _, asked = checkout.make("install", f"PY={checkout.python}")
    assert asked == [VENV, TORCH, REST]


def test_make_alone_lists_the_targets_and_makes_nothing(checkout: Checkout) -> None:
    done, asked = checkout.make()
    assert done.returncode == 0
    assert {"demo", "test", "lint", "format", "bench", "clean"} <= {
        line.split()[1] for line in done.stdout.splitlines()
    }
    assert not asked
    assert not (checkout.folder / ".venv").exists()
