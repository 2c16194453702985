"""Intervals of a mean over gestures from repeated trainings: a bootstrap of trainings, and of prompts.

The gestures are fixed: the mean is that of these gestures, and says nothing of others. Within each gesture the
trainings are resampled, which also covers the noise that their images are drawn from, since each training has drawing
seeds of its own. The prompts are the same in all trainings of a gesture. Resampling them within each training would
count the noise of the drawing twice, and what is common to all trainings too little. So only what is common, the
prompts' own difficulty, is resampled, once for all trainings. A metric of a whole image set, such as FID, has no value
of a prompt: its interval is over the trainings alone and holds for these prompts and real images.

x_ti   value of prompt i in training t of a gesture                            (T, N)
r_t    mean of a training over its prompts                                     (T,)
b_i    mean of a prompt over the trainings, minus the mean of all              (N,)
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t

from hand1000.evaluation.paired import Estimate

_RESAMPLES = 5000
_CHUNK = 1000
"""Resamples that are drawn at once; this bounds the memory."""


def estimate_over_trainings(gestures: Sequence[np.ndarray], generator: np.random.Generator) -> Estimate | None:
    """The mean over gestures, trainings and prompts with its 95 % interval.

    Args:
        gestures: For each gesture the values (T, N) of N prompts in T trainings, both at least 1. A metric of a whole
            image set has the shape (T, 1). T and N may differ between gestures.
        generator: Source of the resamples.

    Returns:
        None if nothing can be resampled: no gesture has two trainings or two prompts.
    """
    values = [np.asarray(x, np.float64) for x in gestures]
    if all(x.shape == (1, 1) for x in values):
        return None
    mean = float(np.mean([x.mean() for x in values]))
    trainings = np.mean([_resample_trainings(x.mean(axis=1), generator) for x in values], axis=0)
    prompts = np.mean([_resample_prompts(x, generator) for x in values], axis=0)
    low, high = np.percentile(trainings + prompts, [2.5, 97.5])
    stretch = _stretch(trainings.var(), prompts.var(), values)
    return Estimate(value=mean, low=mean + stretch * float(low), high=mean + stretch * float(high))


def _resample_trainings(means: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Deviations (R,) of the mean of resampled trainings; 0 for a single one.

    Of T trainings, T - 1 are drawn (Rao and Wu, JASA 83, 1988): with T draws, the variance of the mean of few trainings
    would be too small by (T - 1)/T.
    """
    count = len(means)
    if count < 2:
        return np.zeros(_RESAMPLES)
    draws = generator.multinomial(count - 1, np.full(count, 1 / count), _RESAMPLES)
    return draws @ (means - means.mean()) / (count - 1)


def _resample_prompts(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Deviations (R,) by the prompts' own difficulty, of values (T, N) of one gesture.

    The means of the prompts over T trainings also vary by what is left of the noise of the drawing, which the trainings
    cover. They are shrunk until their variance is that of the difficulty alone, as estimated by the analysis of
    variance. With one training the two cannot be separated, and the prompts are resampled as they are.
    """
    num_trainings, count = x.shape
    if count < 2:
        return np.zeros(_RESAMPLES)
    effects = x.mean(axis=0) - x.mean()
    if num_trainings > 1:
        residuals = x - x.mean(axis=1, keepdims=True) - effects
        noise = float(np.sum(residuals**2)) / ((num_trainings - 1) * (count - 1)) / num_trainings
        observed = float(np.sum(effects**2)) / (count - 1)
        effects = effects * np.sqrt(max(1 - noise / observed, 0.0) if observed > 0 else 0.0)
    means = []
    for start in range(0, _RESAMPLES, _CHUNK):
        draws = generator.integers(0, count, (min(_CHUNK, _RESAMPLES - start), count - 1))
        means.append(effects[draws].mean(axis=1))
    return np.concatenate(means)


def _stretch(of_trainings: float, of_prompts: float, values: Sequence[np.ndarray]) -> float:
    """Student's quantile by the normal one: the variance of few trainings is itself uncertain.

    The degrees of freedom are Satterthwaite's, of the sum of both variances.
    """
    degrees = (sum(len(x) - 1 for x in values), sum(x.shape[1] - 1 for x in values))
    uncertainty = sum(
        variance**2 / freedom for variance, freedom in zip((of_trainings, of_prompts), degrees, strict=True) if freedom
    )
    if not uncertainty:
        return 1.0
    return float(t.ppf(0.975, (of_trainings + of_prompts) ** 2 / uncertainty) / norm.ppf(0.975))


def estimate_over_gestures(means: Sequence[float]) -> Estimate | None:
    """The mean over gestures, as a sample of all gestures, with Student's 95 % interval; None for a single one.

    Since each gesture has its own models, it covers the variance of training as well.
    """
    count = len(means)
    if count < 2:
        return None
    mean = float(np.mean(means))
    half_width = float(t.ppf(0.975, count - 1)) * float(np.std(means, ddof=1)) / count**0.5
    return Estimate(value=mean, low=mean - half_width, high=mean + half_width)
