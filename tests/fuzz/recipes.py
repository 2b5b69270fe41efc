"""A random model as plain numbers: any numbers make a valid model, so that recipes shrink by deleting and lowering."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

T = TypeVar("T")

LARGEST = 255
DRAWS = 6
"""Numbers in a step: the layer, and what it draws. A layer that draws more gets zeros."""

Step = tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """What a random model is made of.

    Attributes:
        start: numbers for inputs, sizes, opset and limits.
        steps: numbers for one layer each.
        seed: of the weights.
    """

    start: Step
    steps: tuple[Step, ...]
    seed: int = 0


class Draws:
    """Hands out the numbers of a step; zeros when they are used up.

    >>> draws = Draws((7, 300))
    >>> draws.below(5), draws.pick("ab"), draws.below(9)
    (2, 'a', 0)
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers: Iterator[int] = iter(numbers)

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        return next(self._numbers, 0) % count

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices; the first is the simplest."""
        return choices[self.below(len(choices))]

    def chance(self, one_in: int) -> bool:
        """True once in ``one_in``; zeros say no."""
        return self.below(one_in) == one_in - 1


def random_recipe(seed: Sequence[int]) -> Recipe:
    """A recipe from one seeded generator."""
    rng = np.random.default_rng(list(seed))
    start = tuple(rng.integers(0, LARGEST + 1, 2 * DRAWS).tolist())
    # A step is skipped where it does not fit, so that there are more steps than layers.
    steps = rng.integers(0, LARGEST + 1, (int(rng.integers(4, 41)), DRAWS))
    return Recipe(start, tuple(tuple(row) for row in steps.tolist()), int(rng.integers(1 << 30)))


def recipes() -> st.SearchStrategy[Recipe]:
    """The same recipes, drawn by hypothesis."""
    number = st.integers(0, LARGEST)
    start = st.tuples(*(number for _ in range(2 * DRAWS)))
    step = st.tuples(*(number for _ in range(DRAWS)))
    return st.builds(Recipe, start, st.lists(step, min_size=4, max_size=40).map(tuple), st.integers(0, 9))


def shrunk(recipe: Recipe, fails: Callable[[Recipe], bool], attempts: int = 400) -> Recipe:
    """The smallest recipe found that still fails: fewer steps first, then smaller numbers.

    Args:
        recipe: one that fails.
        attempts: how many recipes to try at most.
    """
    left = attempts

    def still(candidate: Recipe) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(candidate)

    size = max(len(recipe.steps) // 2, 1)
    while size:
        at = 0
        while at < len(recipe.steps):
            candidate = replace(recipe, steps=recipe.steps[:at] + recipe.steps[at + size :])
            if still(candidate):
                recipe = candidate
            else:
                at += size
        size //= 2
    for row in range(-1, len(recipe.steps)):
        numbers = recipe.start if row < 0 else recipe.steps[row]
        for column, number in enumerate(numbers):
            # The first number of a step is its layer.
            for lower in () if row >= 0 and column == 0 else dict.fromkeys((0, number % 16, number % 48)):
                now = recipe.start if row < 0 else recipe.steps[row]
                if lower >= now[column]:
                    continue
                changed = (*now[:column], lower, *now[column + 1 :])
                steps = recipe.steps if row < 0 else (*recipe.steps[:row], changed, *recipe.steps[row + 1 :])
                candidate = replace(recipe, start=changed if row < 0 else recipe.start, steps=steps)
                if still(candidate):
                    recipe = candidate
                    break
    return recipe
