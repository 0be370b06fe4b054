"""UMAP's optimization of a layout, compiled without fast math: its result does not depend on the processor.

umap-learn compiles it with fast math: the compiler then reorders and fuses operations as suits the processor, and
stochastic gradient descent turns a last bit into another layout. Here operations keep their order, are done in
float64 and stored in float32. Each row draws its negative samples from a generator that its number seeds, and not
the bits of its coordinates. Powers are looked up, for the C library's take half of the time and differ in their
last bits between processors. Importing umap-learn takes 20 s of compilation once, and 4 s of every process; this
module compiles for 3 s once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy.optimize import curve_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEGATIVE_SAMPLES = 5
"""Random rows that a row is pushed away from, for each neighbor that it is drawn to; UMAP's default."""
LONGEST_STEP = 4.0
"""Bound on the step of a coordinate, before the learning rate, as in UMAP."""
_BITS = 0xFFFFFFFF

_FRACTION_BITS = 52
_EXPONENTS = 2048
_EXPONENT_BIAS = 1023
"""Parts of a float64 (IEEE 754)."""
_TABLE_BITS = 10
"""Leading bits of the fraction that a power is looked up by; between entries it is interpolated."""
_LARGEST_EXPONENT = 60
"""Largest power of 2 in the table: beyond it, nothing is a squared distance of a layout."""


def fit_similarity(min_dist: float) -> tuple[float, float]:
    """Parameters of the similarity ``1 / (1 + a d^(2 b))`` of two points of a layout at distance `d`.

    Parameters
    ----------
    min_dist
        Distance up to which points are to be as similar as can be; beyond it similarity falls off as ``exp(-d)``.

    Returns
    -------
    tuple of float
        `a` and `b`, to six digits: the fit is not as accurate.

    Notes
    -----
    McInnes, Healy, Melville 2018, definition 11, as `umap.umap_.find_ab_params` has it for a spread of 1.
    """
    distance = np.linspace(0, 3, 300)
    wanted = np.exp(-np.maximum(distance - min_dist, 0))
    (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), distance, wanted)
    return round(float(a), 6), round(float(b), 6)


def optimize_layout(
    layout: NDArray[np.float32],
    fuzzy: Any,
    *,
    a: float,
    b: float,
    n_epochs: int,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Draw neighbors together and push random rows apart, by stochastic gradient descent on one thread.

    Parameters
    ----------
    layout
        Where rows start, shape ``(n_rows, n_dimensions)``, float32.
    fuzzy
        Symmetric sparse matrix in COO format, shape ``(n_rows, n_rows)``: how surely rows are neighbors. An entry
        is sampled in a share of the epochs that is its ratio to the largest one.
    a, b
        Shape of the similarity ``1 / (1 + a d^(2 b))`` of rows at distance `d`.
    n_epochs
        Rounds of optimization.
    seed
        Seed of the negative samples.

    Returns
    -------
    numpy.ndarray
        Shape of `layout`, float32.

    Notes
    -----
    McInnes, Healy, Melville 2018; the updates are those of `umap.layouts.optimize_layout_euclidean`.
    """
    weights = fuzzy.data / fuzzy.data.max(initial=0)
    kept = weights * n_epochs >= 1
    interval = 1 / weights[kept].astype(np.float64)
    heads, tails = fuzzy.row[kept].astype(np.int64), fuzzy.col[kept].astype(np.int64)
    result = np.ascontiguousarray(layout, np.float32).copy()
    states = _generator_states(len(layout), seed)
    _descend(result, heads, tails, interval, states, a, b, *_power_tables(b), n_epochs)
    return result


def _power_tables(exponent: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Powers of the numbers from 1 to 2, and of the powers of 2, that `_power` multiplies.

    Rounded to float32, so that they do not depend on the processor.
    """
    fractions = 1 + np.arange(2**_TABLE_BITS + 1) / 2**_TABLE_BITS
    of_two = (np.arange(_EXPONENTS) - _EXPONENT_BIAS).clip(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    tables = [(base**exponent).astype(np.float32).astype(np.float64) for base in (fractions, np.exp2(of_two))]
    return tables[0], tables[1]


def _generator_states(n_rows: int, seed: int) -> NDArray[np.int64]:
    """State of each row's generator, shape ``(n_rows, 3)``."""
    return np.random.default_rng(seed).integers(2**16, 2**31, size=(n_rows, 3), dtype=np.int64)


@numba.njit(cache=True, nogil=True)  # representations are made on several threads
def _descend(
    layout: NDArray[np.float32],
    heads: NDArray[np.int64],
    tails: NDArray[np.int64],
    interval: NDArray[np.float64],
    states: NDArray[np.int64],
    a: float,
    b: float,
    fraction_powers: NDArray[np.float64],
    exponent_powers: NDArray[np.float64],
    n_epochs: int,
) -> None:
    """Run all epochs; changes `layout` and `states`. An edge is due every `interval` epochs."""
    n_rows, n_dimensions = layout.shape
    negative_interval = interval / NEGATIVE_SAMPLES
    next_positive, next_negative = interval.copy(), negative_interval.copy()
    for epoch in range(n_epochs):
        rate = 1 - epoch / n_epochs
        longest = rate * LONGEST_STEP
        for edge in range(len(heads)):
            if next_positive[edge] > epoch:
                continue
            row, other = heads[edge], tails[edge]
            squared = _squared_distance(layout, row, other)
            if squared > 0:
                power = _power(squared, fraction_powers, exponent_powers)
                pull = -rate * 2 * a * b * power / (squared * (a * power + 1))
                for d in range(n_dimensions):
                    here, there = np.float64(layout[row, d]), np.float64(layout[other, d])
                    step = _clip(pull * (here - there), longest)
                    layout[row, d], layout[other, d] = here + step, there - step
            next_positive[edge] += interval[edge]
            n_negative = int((epoch - next_negative[edge]) / negative_interval[edge])
            for _ in range(n_negative):
                other = (_draw(states[row]) * n_rows) >> 32
                squared = _squared_distance(layout, row, other)
                if squared > 0:
                    power = _power(squared, fraction_powers, exponent_powers)
                    push = rate * 2 * b / ((0.001 + squared) * (a * power + 1))
                    for d in range(n_dimensions):
                        here, there = np.float64(layout[row, d]), np.float64(layout[other, d])
                        layout[row, d] = here + _clip(push * (here - there), longest)
            next_negative[edge] += n_negative * negative_interval[edge]


@numba.njit(cache=True)
def _draw(state: NDArray[np.int64]) -> int:
    """A random number of 32 bits, by L'Ecuyer's combined Tausworthe generator (1996); changes `state`."""
    s0, s1, s2 = state
    s0 = (((s0 & 0xFFFFFFFE) << 12) & _BITS) ^ ((((s0 << 13) & _BITS) ^ s0) >> 19)
    s1 = (((s1 & 0xFFFFFFF8) << 4) & _BITS) ^ ((((s1 << 2) & _BITS) ^ s1) >> 25)
    s2 = (((s2 & 0xFFFFFFF0) << 17) & _BITS) ^ ((((s2 << 3) & _BITS) ^ s2) >> 11)
    state[0], state[1], state[2] = s0, s1, s2
    return int(s0 ^ s1 ^ s2)


@numba.njit(cache=True)
def _squared_distance(layout: NDArray[np.float32], row: int, other: int) -> float:
    total = 0.0
    for d in range(layout.shape[1]):
        apart = np.float64(layout[row, d]) - np.float64(layout[other, d])
        total += apart * apart
    return total


@numba.njit(cache=True)
def _power(base: float, fraction_powers: NDArray[np.float64], exponent_powers: NDArray[np.float64]) -> float:
    """A positive number to the power of the tables, to 7 digits."""
    bits = np.float64(base).view(np.int64)
    fraction = bits & ((1 << _FRACTION_BITS) - 1)
    entry = fraction >> (_FRACTION_BITS - _TABLE_BITS)
    rest = (fraction & ((1 << (_FRACTION_BITS - _TABLE_BITS)) - 1)) * 2.0 ** (_TABLE_BITS - _FRACTION_BITS)
    low, high = fraction_powers[entry], fraction_powers[entry + 1]
    return float((low + rest * (high - low)) * exponent_powers[bits >> _FRACTION_BITS])


@numba.njit(cache=True)
def _clip(step: float, longest: float) -> float:
    return min(max(step, -longest), longest)
