"""Every wait strategy of tenacity and backoff beside ours: the same numbers where nothing is random, the same distribution
where something is."""

import random
from bisect import bisect_right
from math import exp, sqrt

import backoff
import pytest
import tenacity
from llmengine import Backoff

DRAWS = 20_000
ATTEMPTS = [1, 2, 3, 5, 9]
SIGNIFICANCE = 0.01
expo = Backoff.exponential


class State:
    """What tenacity's strategies look at."""

    def __init__(self, attempt):
        self.attempt_number = attempt
        self.outcome = None


def of_tenacity(strategy):
    return lambda attempt: strategy(retry_state=State(attempt))


def of_backoff(generator, jitter, **settings):
    """A wait of the library, as `backoff` itself draws it."""

    def draw(attempt):
        waits = generator(**settings)
        waits.send(None)
        value = [waits.send(None) for _ in range(attempt)][-1]
        return jitter(value) if jitter else value

    return draw


EXACT = {
    "wait_none": (of_tenacity(tenacity.wait_none()), Backoff.constant(0)),
    "wait_fixed": (of_tenacity(tenacity.wait_fixed(3)), Backoff.constant(3)),
    "wait_incrementing": (of_tenacity(tenacity.wait_incrementing(1, 2, max=10)), Backoff.linear(1, 2).at_most(10)),
    "wait_exponential": (of_tenacity(tenacity.wait_exponential()), expo(1, 2)),
    "wait_exponential, bounded": (
        of_tenacity(tenacity.wait_exponential(multiplier=0.5, exp_base=3, min=2, max=60)),
        expo(0.5, 3).at_least(2).at_most(60),
    ),
    "wait_chain": (
        of_tenacity(tenacity.wait_chain(tenacity.wait_fixed(3), tenacity.wait_fixed(5), tenacity.wait_exponential())),
        Backoff.sequence(Backoff.constant(3), Backoff.constant(5), expo(1, 2)),
    ),
    "wait_combine": (
        of_tenacity(tenacity.wait_fixed(3) + tenacity.wait_exponential(max=60)),
        Backoff.constant(3) + expo(1, 2).at_most(60),
    ),
    "backoff.constant": (of_backoff(backoff.constant, None, interval=3), Backoff.constant(3)),
    "backoff.expo": (of_backoff(backoff.expo, None, max_value=60), expo(1, 2).at_most(60)),
    "backoff.expo, scaled": (of_backoff(backoff.expo, None, base=3, factor=0.5), expo(0.5, 3)),
    "backoff.fibo": (of_backoff(backoff.fibo, None, max_value=20), Backoff.fibonacci(1).at_most(20)),
}

RANDOM = {
    "wait_random": (of_tenacity(tenacity.wait_random(1, 3)), Backoff.random(1, 3)),
    "wait_random_exponential": (
        of_tenacity(tenacity.wait_random_exponential(min=1, max=60)),
        expo(1, 2).at_least(1).at_most(60).jitter("full"),
    ),
    "wait_random_exponential, as published": (
        of_tenacity(tenacity.wait_random_exponential(min=1, max=60)),
        Backoff.published(),
    ),
    "wait_random_exponential, from 0": (
        of_tenacity(tenacity.wait_random_exponential(multiplier=0.5, max=20)),
        expo(0.5, 2).at_most(20).jitter("full"),
    ),
    "wait_full_jitter": (of_tenacity(tenacity.wait_full_jitter()), expo(1, 2).jitter("full")),
    "wait_exponential_jitter": (
        of_tenacity(tenacity.wait_exponential_jitter(max=60, jitter=1)),
        expo(1, 2).at_most(60).jitter("additive", 1),
    ),
    "wait_combine": (
        of_tenacity(tenacity.wait_fixed(3) + tenacity.wait_random(0, 2)),
        Backoff.constant(3) + Backoff.random(0, 2),
    ),
    "wait_chain": (
        of_tenacity(tenacity.wait_chain(tenacity.wait_random(1, 2), tenacity.wait_random(3, 5))),
        Backoff.sequence(Backoff.random(1, 2), Backoff.random(3, 5)),
    ),
    "backoff.expo, full_jitter": (
        of_backoff(backoff.expo, backoff.full_jitter, max_value=60),
        expo(1, 2).at_most(60).jitter("full"),
    ),
    "backoff.expo, random_jitter": (
        of_backoff(backoff.expo, backoff.random_jitter, max_value=60),
        expo(1, 2).at_most(60) + Backoff.random(0, 1),
    ),
    "backoff.fibo, full_jitter": (
        of_backoff(backoff.fibo, backoff.full_jitter, max_value=20),
        Backoff.fibonacci(1).at_most(20).jitter("full"),
    ),
    "backoff.constant, full_jitter": (
        of_backoff(backoff.constant, backoff.full_jitter, interval=3),
        Backoff.constant(3).jitter("full"),
    ),
}


def kolmogorov_smirnov(ours, theirs):
    """The probability of two samples that differ as much, or more, if their distribution is the same."""
    ours, theirs = sorted(ours), sorted(theirs)
    points = ours + theirs
    n, m = len(ours), len(theirs)
    distance = max(abs(bisect_right(ours, x) / n - bisect_right(theirs, x) / m) for x in points)
    effective = sqrt(n * m / (n + m))
    scaled = (effective + 0.12 + 0.11 / effective) * distance
    if scaled < 0.2:
        return 1.0
    return 2 * sum((-1) ** (k - 1) * exp(-2 * (k * scaled) ** 2) for k in range(1, 101))


@pytest.mark.parametrize("name", EXACT)
def test_what_is_not_random_is_the_same(name):
    theirs, ours = EXACT[name]
    waits = list(ours.waits(12))
    assert waits == pytest.approx([theirs(attempt) for attempt in range(1, 13)], abs=1e-9)
    assert waits == [ours.wait(attempt) for attempt in range(1, 13)]


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_is_random_has_the_same_distribution(name, attempt):
    theirs, ours = RANDOM[name]
    random.seed(f"{name} {attempt}")
    drawn_by_theirs = [theirs(attempt) for _ in range(DRAWS)]
    drawn_by_ours = [ours.wait(attempt, seed=random.getrandbits(64)) for _ in range(DRAWS)]
    if max(drawn_by_theirs) == min(drawn_by_theirs):
        # The first wait of the published backoff is exactly one second.
        assert set(drawn_by_ours) == set(drawn_by_theirs)
        return
    # Ours are whole nanoseconds.
    p = kolmogorov_smirnov(drawn_by_ours, drawn_by_theirs)
    assert p > SIGNIFICANCE, f"{name}, attempt {attempt}: p = {p:.4f}"


def test_the_comparison_sees_a_difference():
    generator = random.Random(7)
    drawn = [generator.random() for _ in range(DRAWS)]
    assert kolmogorov_smirnov(drawn, [generator.random() for _ in range(DRAWS)]) > SIGNIFICANCE
    assert kolmogorov_smirnov(drawn, [generator.random() * 1.03 for _ in range(DRAWS)]) < SIGNIFICANCE


def test_on_purpose_no_wait_is_above_the_bound():
    """The one difference: `backoff` adds its jitter after the bound, and goes over it. Here the bound holds."""
    random.seed(7)
    theirs = of_backoff(backoff.expo, backoff.random_jitter, max_value=4)
    assert max(theirs(5) for _ in range(1000)) > 4.5
    ours = expo(1, 2).at_most(4).jitter("additive", 1)
    assert max(ours.wait(5) for _ in range(1000)) == 4


def test_waits_can_be_repeated_and_shown():
    recipe = Backoff.decorrelated(1).at_most(60)
    assert list(recipe.waits(5, seed=7)) == list(recipe.waits(5, seed=7))
    assert list(recipe.waits(5)) != list(recipe.waits(5))
    assert recipe == Backoff.default() != Backoff.published()
    shown = Backoff.sequence(expo(0.5, 3).at_least(2), Backoff.constant(1).jitter("additive", 2)) + Backoff.random(0, 1)
    assert eval(repr(shown)) == shown
    assert repr(shown.at_most(9)) == f"({shown!r}).at_most(9)"


def test_what_makes_no_sense_is_refused():
    from datetime import timedelta

    assert Backoff.constant(timedelta(milliseconds=20)).wait(1) == 0.02
    for wrong in [
        lambda: Backoff.constant(-1),
        lambda: Backoff.constant(float("nan")),
        lambda: Backoff.random(3, 1),
        lambda: Backoff.exponential(1, -2),
        lambda: Backoff.sequence(),
        lambda: Backoff.constant(1).jitter("some"),
        lambda: Backoff.constant(1).jitter("additive"),
        lambda: Backoff.constant(1).jitter("full", 1),
        lambda: Backoff.constant(1).wait(0),
    ]:
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(TypeError, match="is no length of time"):
        Backoff.constant("1s")
