"""An answer as a file: what was found, for which problem, by whom, and the prices that prove how good it is.

Whoever has the problem can verify it without any solver: the choice costs what it is said to cost and keeps every
capacity, and the Lagrangian function at the prices gives a bound, all in whole numbers (``solvers.proof``).
"""

from __future__ import annotations

import json
import operator
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solvers import check
from solvers.aside import write_aside
from solvers.problem import Problem
from solvers.proof import Proof, proof
from solvers.solution import Solution, Status
from solvers.solver import Limits

__all__ = ["FORM", "Certificate", "CertificateError", "Verdict", "read", "verify", "write"]

FORM = "blinkplan solution 1"
"""What a file says it is; the number changes where older readers would misread it."""


class CertificateError(ValueError):
    """Say what is wrong with a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """An answer with all that it takes to verify it, or to ask for it again.

    Attributes:
        solution: The answer.
        problem_sha256: The digest of the problem that it answers.
        limits: What the solver was given.

    >>> solution = Solution(status=Status.OPTIMAL, choices=(1,), objective=7, bound=7)
    >>> Certificate(solution=solution, problem_sha256="0a", limits=Limits(time_s=1.0)).solution.gap
    0.0
    """

    solution: Solution
    problem_sha256: str
    limits: Limits

    def to_json(self) -> dict[str, Any]:
        """Return what stands in the file."""
        solution, limits = self.solution, self.limits
        return {
            "form": FORM,
            "problem_sha256": self.problem_sha256,
            "status": str(solution.status),
            "objective": solution.objective,
            "bound": solution.bound,
            "gap": solution.gap,
            "seconds": solution.seconds,
            "solver": solution.solver,
            "bound_solver": solution.bound_solver,
            "versions": dict(solution.versions),
            "note": solution.note,
            "limits": {
                "time_s": limits.time_s,
                "seed": limits.seed,
                "workers": limits.workers,
                "gap": limits.gap,
                "work": limits.work,
            },
            "prices": None if solution.prices is None else list(solution.prices),
            "choices": None if solution.choices is None else list(solution.choices),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What looking at a certificate gave.

    Attributes:
        wrong: What is not as the certificate says, in sentences; empty where nothing was found.
        proof: What is known without a solver; None where the certificate is to another problem.
        said: How far what is claimed of the optimum is proven, in a sentence.

    >>> Verdict(wrong=(), proof=Proof(bound=7, by="prices"), said="the bound 7 is proven by prices").wrong
    ()
    """

    wrong: tuple[str, ...]
    proof: Proof | None
    said: str


def verify(certificate: Certificate, problem: Problem) -> Verdict:
    """Look at a certificate again, in whole numbers and without a solver.

    Args:
        certificate: The certificate.
        problem: The problem that it is said to answer.

    Returns:
        What is wrong, and how far the bound is proven.
    """
    solution = certificate.solution
    if certificate.problem_sha256 != problem.digest:
        other = f"the solution is to the problem {certificate.problem_sha256}; this one is {problem.digest}"
        return Verdict(wrong=(other,), proof=None, said="nothing is proven")
    wrong: list[str] = []
    try:
        check.verify(problem, solution)
    except check.WrongAnswerError as error:
        wrong.append(str(error))
    try:
        known = proof(problem, solution.prices, solution.choices)
    except ValueError as error:
        wrong.append(f"the prices prove nothing: {error}")
        known = proof(problem, None)
    return Verdict(wrong=tuple(wrong), proof=known, said=_said(solution, known))


def read(path: str | os.PathLike[str]) -> Certificate:
    """Read a certificate.

    Args:
        path: Name of the file.

    Returns:
        The certificate; that it is right is for ``verify`` to say.

    Raises:
        CertificateError: The file cannot be read, or what it holds is no certificate.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("form") != FORM:
            said = found.get("form") if isinstance(found, dict) else type(found).__name__
            raise CertificateError(f"{path}: it says that it is {said!r}; expected {FORM!r}")
        return _assembled(found)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror or error}") from None
    except KeyError as error:
        raise CertificateError(f"{path}: {error.args[0]!r} is missing") from None
    except CertificateError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CertificateError(f"{path}: {error}") from None


def write(path: str | os.PathLike[str], certificate: Certificate) -> None:
    """Write a certificate; readers never see half a file.

    Args:
        path: Name of the file.
        certificate: The certificate.

    Raises:
        OSError: The file cannot be written.
    """
    lines = (f' "{key}": {json.dumps(value)}' for key, value in certificate.to_json().items())
    write_aside(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _assembled(found: dict[str, Any]) -> Certificate:
    def whole(name: str) -> int | None:
        return None if found[name] is None else operator.index(found[name])

    choices, prices = found["choices"], found["prices"]
    solution = Solution(
        status=Status(found["status"]),
        choices=None if choices is None else tuple(operator.index(choice) for choice in choices),
        objective=whole("objective"),
        bound=whole("bound"),
        seconds=float(found["seconds"]),
        solver=str(found["solver"]),
        bound_solver=str(found["bound_solver"]),
        prices=None if prices is None else tuple(float(price) for price in prices),
        versions={str(name): str(version) for name, version in found["versions"].items()},
        note=str(found["note"]),
    )
    limits = found["limits"]
    return Certificate(
        solution=solution,
        problem_sha256=str(found["problem_sha256"]),
        limits=Limits(
            time_s=float(limits["time_s"]),
            seed=operator.index(limits["seed"]),
            workers=None if limits["workers"] is None else operator.index(limits["workers"]),
            gap=float(limits["gap"]),
            work=None if limits["work"] is None else float(limits["work"]),
        ),
    )


def _said(solution: Solution, known: Proof) -> str:
    """Say how far what is claimed of the optimum is proven."""
    word = solution.bound_solver or solution.solver or "the solver"
    if solution.status is Status.INFEASIBLE:
        if known.bound is None:
            return f"that no choice keeps every capacity is proven by {known.by}"
        return f"that no choice keeps every capacity is on {word}'s word"
    if known.bound is None:
        return f"no choice keeps every capacity: proven by {known.by}"
    if solution.bound is None:
        return f"no bound is claimed; {known.bound} is proven by {known.by}"
    if known.bound >= solution.bound:
        return f"the bound {solution.bound} is proven by {known.by}"
    return f"the bound {solution.bound} is on {word}'s word; {known.bound} of it is proven by {known.by}"
