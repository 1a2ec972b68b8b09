"""Estimate the gain of one trained model over another from few cases and from earlier experience.

Two questions are kept apart. *Which model is exported?* The one with the higher expected Dice.
*Which gain is claimed?* One beyond chance (:mod:`semi_nnunet.evaluation.statistics`). Twenty
patients rarely prove a gain of three points, but they still make one model the better bet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

# Prior of the standard deviation of a patient's difference: in Dice, with the weight of so many
# patients. Over the patients of docs/values it is .015 (Hippocampus) to .074 (ACDC). With 3, 6 and
# 20 patients, .02 exports better models than .03 or .04, and loses above one point in about 1 % of
# the draws.
USUAL_SPREAD, SPREAD_WEIGHT = 0.02, 3
HARM = 0.01  # Dice: a loss of more than one point
RISK_LIMIT = 0.1  # probability of such a loss above which the baseline is exported


@dataclass(frozen=True)
class GainPrior:
    """The normal distribution of gains that trained models had on other data sets.

    Args:
        mean: of the gains, in Dice.
        spread: standard deviation over data sets and training seeds, in Dice.
    """

    mean: float
    spread: float

    @classmethod
    def of_gains(cls, gains_of_sets: Sequence[Sequence[float]]) -> GainPrior:
        """Estimate the prior; each data set counts the same, however many trainings it has.

        >>> GainPrior.of_gains([[0.01, 0.03], [0.04]])
        GainPrior(mean=0.03, spread=0.012...)

        Args:
            gains_of_sets: for each data set the gains of its trainings, in Dice.
        """
        means = [float(np.mean(gains)) for gains in gains_of_sets]
        within = float(np.mean([np.var(gains) for gains in gains_of_sets]))
        return cls(float(np.mean(means)), math.sqrt(float(np.var(means)) + within))


@dataclass(frozen=True)
class ExpectedGain:
    """The posterior of a model's gain over the baseline: a normal distribution.

    Args:
        mean: expected gain, in Dice.
        spread: its standard deviation.
    """

    mean: float
    spread: float

    @classmethod
    def after(cls, differences: Sequence[float], prior: GainPrior) -> ExpectedGain:
        """Update the prior by the differences of cases that did not choose the model.

        The spread of few cases is uncertain itself: its prior (a scaled inverse chi-squared
        distribution) has the weight of :data:`SPREAD_WEIGHT` cases, and the variance of their mean
        is that of Student's t.

        >>> gain = ExpectedGain.after([0.02, 0.04, 0.01, 0.05, 0.03], GainPrior(0.01, 0.02))
        >>> round(gain.mean, 3), round(gain.probability_below(0.0), 3)
        (0.026, 0.001)
        >>> ExpectedGain.after([], GainPrior(0.01, 0.02))
        ExpectedGain(mean=0.01, spread=0.02)

        Args:
            differences: model - baseline of each patient, in Dice.
            prior: of the gain.
        """
        count = len(differences)
        if not count:
            return cls(prior.mean, prior.spread)
        freedom = SPREAD_WEIGHT + count - 1
        squares = SPREAD_WEIGHT * USUAL_SPREAD**2 + count * float(np.var(differences))
        variance = squares / (freedom - 2) / count  # of their mean, by Student's t
        weight = prior.spread**2 / (prior.spread**2 + variance)
        mean = prior.mean + weight * (float(np.mean(differences)) - prior.mean)
        return cls(mean, math.sqrt(weight * variance))

    def probability_below(self, gain: float) -> float:
        """Return the probability that the gain is below ``gain``."""
        if self.spread == 0:
            return float(self.mean < gain)
        return float(norm.cdf((gain - self.mean) / self.spread))

    def is_worth_exporting(self, risk_limit: float = RISK_LIMIT) -> bool:
        """Return whether a gain is expected and a loss of more than one point is unlikely.

        Args:
            risk_limit: largest accepted probability of such a loss.
        """
        return self.mean > 0 and self.probability_below(-HARM) <= risk_limit
