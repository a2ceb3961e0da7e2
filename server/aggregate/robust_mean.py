"""Aggregate the updates of sites that may lie, by the rule of the study.

Every rule sees updates as means over a site's patients, one row a site. Sites lack blocks whose
modality they lack, so a rule is applied to groups of parameters that the same sites send.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError, ErrorCode
from common.study.federated_method import AggregationRule, load_rule
from common.wire import Arrays, joint_norm

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


def robust_mean(
    updates: Mapping[str, Arrays],
    weights: Mapping[str, float],
    rule: AggregationRule,
    centre: Arrays,
) -> Arrays:
    """Return the aggregate of every parameter that any site sends, float64.

    With fewer than three senders no rule can identify a liar; then, as for rule `mean`, the
    weighted mean is taken.

    Args:
        updates: Site -> mean update per patient, by parameter.
        weights: Site -> weight in the mean; the other rules treat all alike.
        rule: What the study chose.
        centre: Aggregate of the last round; missing parameters count as 0.

    Raises:
        ConfigError: There is no such rule, its options are wrong, or it returns another shape.
    """
    combine, result = load_rule(rule), Arrays()
    for senders, names in _groups(updates).items():
        rows = np.stack([_flat(updates[site], names) for site in senders])
        row_weights = np.array([weights[site] for site in senders])
        shapes = [updates[senders[0]][name].shape for name in names]
        start = _centre(centre, names, shapes)
        if len(rows) < 3:
            aggregate = weighted_mean(rows, row_weights)
        else:
            aggregate = combine(rows=rows, weights=row_weights, centre=start)
        result |= _named(_checked(aggregate, start, rule), names, shapes)
    return result


def weighted_mean(rows: Matrix, weights: Vector) -> Vector:
    """Return the weighted mean (d,) of n updates (n, d).

    Example:
        >>> weighted_mean(np.array([[1.0], [4.0]]), np.array([2.0, 1.0]))
        array([2.])
    """
    return np.asarray((weights @ rows) / weights.sum(), dtype=np.float64)


def shortened(updates: Mapping[str, Arrays], factor: float | None) -> dict[str, Arrays]:
    """Return the updates with none longer than `factor` times the median length of all."""
    lengths = {site: joint_norm(arrays) for site, arrays in updates.items()}
    if factor is None or not lengths:
        return dict(updates)
    bound = factor * float(np.median(list(lengths.values())))
    return {
        site: arrays
        if lengths[site] <= bound
        else {n: a * (bound / lengths[site]) for n, a in arrays.items()}
        for site, arrays in updates.items()
    }


def _checked(aggregate: object, centre: Vector, rule: AggregationRule) -> Vector:
    row = np.asarray(aggregate, dtype=np.float64)
    if row.shape != centre.shape:
        raise ConfigError(
            f"rule '{rule.rule}' returns shape {row.shape} for updates of {centre.shape}",
            where="training.aggregation.rule",
            cure="ask its authors for a version that returns one number per column of `rows`",
            code=ErrorCode.PLUGIN,
        )
    return row


def _groups(updates: Mapping[str, Arrays]) -> dict[tuple[str, ...], list[str]]:
    """Return (sites, sorted) -> parameters, sorted, that exactly these sites send."""
    senders: dict[str, list[str]] = {}
    for site in sorted(updates):
        for name in updates[site]:
            senders.setdefault(name, []).append(site)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(senders):
        groups.setdefault(tuple(senders[name]), []).append(name)
    return groups


def _flat(arrays: Arrays, names: Sequence[str]) -> Vector:
    return np.concatenate([np.asarray(arrays[n], dtype=np.float64).ravel() for n in names])


def _centre(centre: Arrays, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Vector:
    parts = [centre.get(n, np.zeros(shape)) for n, shape in zip(names, shapes, strict=True)]
    return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])


def _named(vector: Vector, names: Sequence[str], shapes: Sequence[tuple[int, ...]]) -> Arrays:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(vector, ends[:-1])
    return {n: p.reshape(shape) for n, p, shape in zip(names, parts, shapes, strict=True)}
