"""Gains over the baseline by domain: scanner, camera or hospital of the cases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from semi_nnunet.evaluation.comparison import (
    ModelComparison,
    compare_with_baseline,
    format_column_title,
    format_model,
    rank_comparisons,
)
from semi_nnunet.evaluation.points import format_difference, format_interval, format_mean
from semi_nnunet.evaluation.values import Value
from semi_nnunet.raw.domains import DomainOf
from semi_nnunet.util import markdown
from semi_nnunet.util.errors import UserError


@dataclass(frozen=True)
class DomainGain:
    """The comparison of a method with the baseline, on the cases of one domain."""

    domain: str
    compared: ModelComparison


def compare_by_domain(
    values: Sequence[Value], baseline: str, metric: str, domain_of: DomainOf | None
) -> list[DomainGain]:
    """Compare every model with the baseline in each domain; [] if the data set names none.

    A domain without a case that both have is left out.

    Args:
        values: of the metric; cases of one patient are one observation.
        baseline: a trainer.
        metric: name of the metric.
        domain_of: case -> its domain.
    """
    if domain_of is None:
        return []
    domains = defaultdict[str, list[Value]](list)
    for value in values:
        domains[domain_of(value.case)].append(value)
    gains = []
    for domain, members in sorted(domains.items()):
        try:
            compared = compare_with_baseline(members, baseline, metric)
        except UserError:
            continue
        gains += [DomainGain(domain, item) for item in rank_comparisons(compared, metric)]
    return gains


def format_domain_table(gains: Sequence[DomainGain], metric: str) -> str:
    """Return a Markdown table with a row for each domain and model; "" without gains."""
    if not gains:
        return ""
    title = format_column_title(metric)
    rows = [["domain", "method", "configuration", "cases", "baseline", title, "gain",
             "95 % interval"]]  # fmt: skip
    for gain in gains:
        item = gain.compared
        rows.append(
            [markdown.plain(gain.domain), *format_model(item.model), str(item.overall.cases),
             format_mean(item.baseline_mean, metric), format_mean(item.mean, metric),
             format_difference(item.overall.mean, metric), format_interval(item.overall, metric)]
        )  # fmt: skip
    return markdown.table(rows)
