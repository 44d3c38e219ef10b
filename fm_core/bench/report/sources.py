"""Where figures come from, how to repeat them, and what forbids comparing them: other machines, versions or commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from fm_core.bench.records import Record, Run

__all__ = ["Origin", "origin", "run_facts", "seconds_told", "seeds_told"]


@frozen
class Origin:
    """What it takes to repeat the figures that were made of some records.

    Args:
        commands: What was typed.
        seeds: Such as "seeds 0–4".
        runs: Identifiers.
        machines: What they ran on.
        warnings: What is mixed, and runs that the file does not describe.
    """

    commands: tuple[str, ...]
    seeds: str
    runs: tuple[str, ...]
    machines: tuple[str, ...]
    warnings: tuple[str, ...]


def origin(records: Sequence[Record], runs: Mapping[str, Run]) -> Origin:
    """Where records come from."""
    names = tuple(dict.fromkeys(record.run for record in records))
    known = [runs[name] for name in names if name in runs]
    unknown = [name for name in names if name not in runs]
    warnings, seeds = [*_mixed(known)], {record.seed for record in records}
    if unknown:
        named = ", ".join(name or "unnamed" for name in unknown)
        many = "one run" if len(unknown) == 1 else f"{len(unknown)} runs"
        warnings.append(f"Of {many} the file says neither machine nor command: {named}.")
    return Origin(
        tuple(dict.fromkeys(run.command for run in known)),
        f"{'seed' if len(seeds) == 1 else 'seeds'} {seeds_told(seeds)}",
        names,
        tuple(dict.fromkeys(map(_machine, known))),
        tuple(warnings),
    )


def run_facts(run: Run) -> dict[str, str]:
    """How long a run took, its machine, versions and commit, in words."""
    took = "" if run.seconds is None else seconds_told(run.seconds)
    return {"took": took, "machine": _machine(run), "versions": _listed(run.versions), "git": _commit(run)}


def _mixed(runs: Sequence[Run]) -> Iterable[str]:
    machines = dict.fromkeys(map(_machine, runs))
    if len(machines) > 1:
        yield f"Records of {len(machines)} machines are mixed; do not compare their times: {'; '.join(machines)}."
    for name in dict.fromkeys(name for run in runs for name in run.versions):
        versions = dict.fromkeys(run.versions.get(name, "none") for run in runs)
        if len(versions) > 1:
            yield f"Records of several versions of {name} are mixed: {', '.join(versions)}."
    commits = dict.fromkeys(_commit(run) for run in runs)
    if len(commits) > 1:
        yield f"Records of several states of the code are mixed: {', '.join(commits)}."
    elif any(run.git.get("dirty") for run in runs):
        (commit,) = commits
        yield f"The code was changed after its commit ({commit}), which alone does not repeat these figures."


def _machine(run: Run) -> str:
    return _listed(run.machine) or "unknown machine"


def _commit(run: Run) -> str:
    commit = str(run.git.get("commit") or "")[:12]
    return f"{commit}{' + changes' if run.git.get('dirty') else ''}" if commit else "no checkout"


_FACTS = {"memory_gb": "memory (GB)"}


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{_FACTS.get(name, name)} {value}" for name, value in facts.items() if value is not None)


def seeds_told(seeds: Iterable[int]) -> str:
    """Seeds, runs of them as ranges.

    >>> seeds_told({0, 1, 2, 5}), seeds_told({7})
    ('0–2, 5', '7')
    """
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and parts[-1][-1] == seed - 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)


def seconds_told(seconds: float) -> str:
    """A duration in words.

    >>> seconds_told(4.26), seconds_told(130.0), seconds_told(7325.0)
    ('4.3 s', '2 min 10 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
