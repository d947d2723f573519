"""results.json of a design: deterministic for one seed, without times or paths."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from studies.evaluation import GATE, combined_miss, relative_misses
from studies.run_folder import Stage

WITHIN = 0.02
SCOPE = {
    "achieved": "this structure's: one cell, solved",
    "bracket": "this structure's: bounds of the solver's own answer on this voxel grid (discrete)",
    "gate": "this structure's: distance to its process's two-point correlation and lineal paths; "
    "pass is <= 1",
    "kept_to_all_constraints": "this structure's gate, and its process's mean over further draws",
    "process": "the designed parameters, at which the process check simulates",
    "volume_fractions": "this structure's",
    "hashin_shtrikman": "any isotropic mixture's, at this structure's fractions and at all",
    "found_range": "all evaluated structures', of the search and of the random trials",
    "process_check": "this process's: fresh simulations at the designed parameters, solved",
    "random_best": "another structure's: the best of an equal number of random trials, as the "
    "search evaluates them (not solved again)",
}


def assemble_results(
    targets: Mapping[str, float], stages: Mapping[str, Stage], *, seed: int
) -> dict[str, Any]:
    """Return everything that a design found, as plain data."""
    found, rival = stages["search"].facts, stages["random"].facts
    confirmed = stages["confirmation"].facts
    achieved, score = confirmed["achieved"], confirmed[GATE]
    misses = relative_misses(achieved, targets)
    results = {
        "format": 1,
        "seed": seed,
        "target": dict(targets),
        "achieved": achieved,
        "relative_miss": misses,
        "combined_miss": combined_miss(achieved, targets),
        "within_2_percent": max(misses.values()) <= WITHIN,
        "bracket": confirmed["bracket"],
        "gate": {"score": score, "passed": score <= 1},
        "kept_to_all_constraints": found["chosen"]["passed"],
        "process": confirmed["process"],
        "latent": confirmed["parameters"].get("latent", []),
        "volume_fractions": confirmed["volume_fractions"],
        "hashin_shtrikman": confirmed["hashin_shtrikman"],
        "process_check": stages["process-check"].facts,
        "random_best": _rival(rival),
        "evaluations": {**found["evaluations"], "random": rival["evaluations"]},
        "found_range": _found_range(targets, [*found["trials"], *rival["trials"]]),
        "scope": SCOPE,
        "versions": {name: version(name) for name in ("mesoforge", "torch", "numpy", "botorch")},
    }
    return {**results, "verdict": verdict(results)}


def verdict(results: Mapping[str, Any]) -> list[str]:
    """Return in plain sentences what was reached, and if not, how close one can get."""
    sentences = [_structure_sentence(results)]
    if not results["gate"]["passed"]:
        sentences.append(
            f"No evaluated structure passed the statistics gate; shown is the one that came "
            f"closest to passing (score {results['gate']['score']:.2f}, pass is at most 1), so it "
            "does not belong to what its process makes."
        )
    elif not results["kept_to_all_constraints"]:
        sentences.append(
            "No evaluated structure passed the statistics gate at a process that is near the "
            "targets on average; this one's process misses them by more than the search allows."
        )
    if not results["within_2_percent"]:
        sentences += [_reach(name, results) for name in _missed(results)]
    sentences += _process_sentences(results["process_check"])
    return sentences


def _structure_sentence(results: Mapping[str, Any]) -> str:
    parts = [
        f"{name} {results['achieved'][name]:.4g} against a target of {target:.4g} "
        f"({100 * results['relative_miss'][name]:.2f} % off)"
        for name, target in results["target"].items()
    ]
    kept = results["gate"]["passed"] and results["kept_to_all_constraints"]
    head = "Reached" if results["within_2_percent"] and kept else "Not reached"
    return f"{head}: this structure, confirmed by the solver, has {' and '.join(parts)}."


def _missed(results: Mapping[str, Any]) -> list[str]:
    return [name for name, miss in results["relative_miss"].items() if miss > WITHIN]


def _reach(name: str, results: Mapping[str, Any]) -> str:
    """Return a sentence that says why a target was missed and how close one can get."""
    target, bounds = results["target"][name], results["hashin_shtrikman"][name]
    here = f"This structure's {name} is {results['achieved'][name]:.4g}"
    found_low, found_high = results["found_range"][name]
    low, high = bounds["any_fraction"]
    if not low <= target <= high:
        nearest = min(max(target, found_low), found_high)
        return (
            f"{here}: the target {target:.4g} lies outside the Hashin-Shtrikman bounds of these "
            f"phases at any volume fraction ({low:.4g} to {high:.4g}), so no isotropic structure "
            f"of them has it, and the evaluated ones came as near as {nearest:.4g}; choose a "
            "target inside, or other materials."
        )
    if not found_low <= target <= found_high:
        return (
            f"{here}: the target {target:.4g} lies outside what was found among the evaluated "
            f"structures ({found_low:.4g} to {found_high:.4g}); this process does not seem to "
            "reach it."
        )
    return (
        f"{here}: the evaluated structures span the target {target:.4g} ({found_low:.4g} to "
        f"{found_high:.4g}), but none met all wishes at once; allow more evaluations or move one "
        "target."
    )


def _process_sentences(check: Mapping[str, Any]) -> list[str]:
    if "skipped" in check:
        return [f"This process was not checked: {check['skipped']}."]
    sentences = []
    for name, found in check["properties"].items():
        low, high = found["interval_95"]
        inside = "contains" if found["target_inside"] else "does not contain"
        sentences.append(
            f"This process, in {found['n']} fresh simulations, has {name} {found['mean']:.4g} on "
            f"average (sd of single cells {found['sd']:.2g}; 95 % interval of the mean {low:.4g} "
            f"to {high:.4g}, which {inside} the target)."
        )
    share = 100 * check[GATE]["passed_share"]
    sentences.append(f"{share:.0f} % of these fresh simulations pass the statistics gate.")
    return sentences


def _rival(rival: Mapping[str, Any]) -> dict[str, Any]:
    chosen = rival["chosen"]
    return {
        "achieved": {
            k: v for k, v in chosen["values"].items() if k in rival["chosen"]["relative_miss"]
        },
        "relative_miss": chosen["relative_miss"],
        "combined_miss": chosen["combined_miss"],
        "gate": {"score": chosen["values"][GATE], "passed": chosen["values"][GATE] <= 1},
        "process": {k: v for k, v in chosen["parameters"].items() if k != "latent"},
    }


def _found_range(
    targets: Mapping[str, float], trials: list[dict[str, Any]]
) -> dict[str, list[float]]:
    values = {name: [trial["values"][name] for trial in trials] for name in targets}
    return {name: [min(found), max(found)] for name, found in values.items()}
