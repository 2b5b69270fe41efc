"""Rule lines: what each term of the notation means, and one sentence for every way to write it wrong."""

from __future__ import annotations

import pytest

from ozgraph.errors import RuleError
from ozgraph.rules.notation import Broadcast, Concat, Letter, One, Product, Star, Unsaid, expand, parse

M, K, N = Letter("m"), Letter("k"), Letter("n")


def test_commas_separate_tensors_and_an_arrow_separates_operands_from_results() -> None:
    pattern = parse("m k, n k, n -> m n, m")
    assert pattern.operands == ((M, K), (N, K), (N,))
    assert pattern.results == ((M, N), (M,))
    assert pattern.text == "m k, n k, n -> m n, m"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("c", Letter("c")),
        ("gate", Letter("gate")),
        ("c2", Letter("c2")),
        ("(g i)", Product(("g", "i"))),
        ("(g)", Product(("g",))),
        ("(a + b)", Concat((Letter("a"), Letter("b")))),
        ("(a + h d + b)", Concat((Letter("a"), Product(("h", "d")), Letter("b")))),
        ("*s", Star("s")),
        ("...", Broadcast()),
        ("1", One()),
        ("_", Unsaid()),
    ],
)
def test_each_term_says_one_thing(written: str, meant: object) -> None:
    assert parse(f"{written} -> ").operands == ((meant,),)
    assert parse(f" -> {written}").results == ((meant,),)


def test_blanks_do_not_matter() -> None:
    assert parse("n(g i)*s,c->n").operands == parse(" n  ( g  i )  *s ,  c  ->  n ").operands


def test_nothing_between_commas_is_a_scalar() -> None:
    assert parse("k, k -> ").results == ((),)


_TERMS = "a letter, '*name', '...', '1', '_', '(', ')', '+', ',' or '->'"


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("m k, n & -> m", 7, _TERMS),
        ("m 2 -> m", 2, _TERMS),
        ("m * s -> m", 2, _TERMS),
        ("m k", 3, "exactly one '->' between operands and results"),
        ("", 0, "exactly one '->' between operands and results"),
        ("m -> n -> k", 7, "exactly one '->' between operands and results"),
        ("n (g i -> n", 7, "')'"),
        ("n -> n (g i", 11, "')'"),
        ("n (g, i) -> n", 4, "')' before anything but letters and '+'"),
        ("n (g (i)) -> n", 5, "')' before anything but letters and '+'"),
        ("n (g *s) -> n", 5, "')' before anything but letters and '+'"),
        ("n (g ...) -> n", 5, "')' before anything but letters and '+'"),
        ("n (g 1) -> n", 5, "')' before anything but letters and '+'"),
        ("n (g _) -> n", 5, "')' before anything but letters and '+'"),
        ("n ) -> n", 2, "no ')' outside a group"),
        ("n + m -> n", 2, "no '+' outside a group"),
        ("n () -> n", 3, "a letter on both sides of '+' and inside '()'"),
        ("n (a + ) -> n", 7, "a letter on both sides of '+' and inside '()'"),
        ("n (+ a) -> n", 6, "a letter on both sides of '+' and inside '()'"),
        ("n *s *t -> n", 5, "at most one '*name' or '...' in a tensor"),
        ("n -> ... n *t", 11, "at most one '*name' or '...' in a tensor"),
        ("... n ... -> n", 6, "at most one '*name' or '...' in a tensor"),
    ],
)
def test_every_malformed_line_is_told_where_and_what_was_expected(text: str, position: int, expected: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse(text)
    assert str(caught.value) == f"rule {text!r}, position {position}: expected {expected}"


def test_a_star_opens_to_the_axes_that_are_left_over() -> None:
    opened = expand(parse("n c *s, c -> n c *s"), (4, 1), (4,))
    n, c = Letter("n"), Letter("c")
    assert opened.operands == ((n, c, Letter("*s0"), Letter("*s1")), (c,))
    assert opened.results == ((n, c, Letter("*s0"), Letter("*s1")),)


def test_a_star_may_stand_for_no_axis() -> None:
    assert expand(parse("n c *s -> n c *s"), (2,), (2,)).operands == ((Letter("n"), Letter("c")),)


def test_stars_of_different_names_are_different_axes() -> None:
    opened = expand(parse("n *s -> n *t"), (2,), (2,))
    assert opened.operands[0] != opened.results[0]


def test_an_ellipsis_aligns_on_the_right() -> None:
    opened = expand(parse("... m, ... m -> ... m"), (3, 2), (3,))
    outer, inner = Letter(".1"), Letter(".0")
    assert opened.operands == ((outer, inner, M), (inner, M))
    assert opened.results == ((outer, inner, M),)


def test_an_operand_that_is_left_out_or_not_mentioned_opens_to_nothing() -> None:
    opened = expand(parse("m k, n k, n -> m n"), (2, 2, None, 1), (2,))
    assert opened.operands == ((M, K), (N, K), None, None)


@pytest.mark.parametrize(("rank", "text"), [(1, "m k -> m"), (3, "m k -> m"), (1, "m k *s -> m")])
def test_a_tensor_of_the_wrong_rank_is_told_so(rank: int, text: str) -> None:
    with pytest.raises(RuleError) as caught:
        expand(parse(text), (rank,), (1,))
    assert str(caught.value) == f"rule {text!r} does not fit a tensor of {rank} axes at position 0"
