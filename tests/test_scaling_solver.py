"""What the budget solver and its trim promise."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings
from hypothesis.strategies import DrawFn

from triscale.arch import (
    ZOO,
    Architecture,
    Basic,
    Block,
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    FusedMBConv,
    Head,
    MBConv,
    Stage,
    Stem,
    adapt,
    multiply,
    published,
)
from triscale.arch.rounding import largest_multipliers
from triscale.costing import cost
from triscale.errors import UserError
from triscale.scaling import (
    RULES,
    Budget,
    Scaled,
    Step,
    TooSmallError,
    solve,
)
from triscale.verbs import scale

B0 = published("efficientnet_b0")
POWERS = tuple(name for name in RULES if name != "tiny")
WIDENING = tuple(name for name, rule in RULES.items() if rule.moves_width)
ANALYTIC = ("macs", "params", "activations", "size")


def used(scaled: Scaled) -> float:
    assert scaled.limits is not None
    return max(float(getattr(scaled.cost, term)) / limit for term, limit in scaled.limits.items())


def rebuilt(scaled: Scaled) -> Architecture:
    """The official member at the multipliers, with the reported steps made by hand."""
    m = scaled.multipliers
    official = multiply(scaled.baseline, m.depth, m.width, m.resolution)
    for step in scaled.trim:
        assert step.official != step.channels
        if step.place == "stem":
            assert official.stem.channels == step.official
            official = replace(official, stem=replace(official.stem, channels=step.channels))
        elif step.place == "head":
            assert official.head.channels == step.official
            official = replace(official, head=replace(official.head, channels=step.channels))
        else:
            stages, index = list(official.stages), int(step.place.removeprefix("stages."))
            assert stages[index].channels == step.official
            stages[index] = replace(stages[index], channels=step.channels)
            official = replace(official, stages=tuple(stages))
    return official


def test_a_budget_of_nothing_unknown_or_not_positive_is_refused() -> None:
    with pytest.raises(UserError, match="no budget; give one of macs"):
        Budget({})
    with pytest.raises(UserError, match="'flops' is not known; there are macs"):
        Budget({"flops": 1e9})
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="is not positive"):
            Budget({"macs": limit})
    with pytest.raises(UserError, match="give the function that measures it"):
        Budget({"latency": 0.01})


@st.composite
def solvable(draw: DrawFn, rules: tuple[str, ...] = WIDENING) -> tuple[Architecture, str, dict[str, float]]:
    """A zoo network, as it is or fitted to small images, a rule, and one to three limits around its own cost."""
    base = published(draw(st.sampled_from(tuple(ZOO))))
    if draw(st.booleans()):
        side = draw(st.sampled_from((16, 24, 28, 32, 48, 64, 96)))
        size = (side, side + draw(st.sampled_from((0, 7))))
        base = adapt(base, resolution=size, channels=draw(st.sampled_from((1, 3))), classes=draw(st.integers(2, 1000)))
    rule = draw(st.sampled_from(rules))
    factor = 10 ** draw(st.floats(-1.5, -0.05 if rule == "tiny" else 1.2))
    terms = draw(st.lists(st.sampled_from(ANALYTIC), min_size=1, max_size=3, unique=True))
    own = cost(base)
    return base, rule, {term: getattr(own, term) * factor * draw(st.floats(0.7, 1.05)) for term in terms}


def check_solved(case: tuple[Architecture, str, dict[str, float]]) -> None:
    base, rule, limits = case
    try:
        solved = solve(base, RULES[rule], Budget(limits))
    except UserError as error:
        message = str(error)
    else:
        check_used(solved, base, limits)
        return
    assert "no network that small" in message or "itself costs" in message


def check_used(solved: Scaled, base: Architecture, limits: dict[str, float]) -> None:
    assert 0.99 <= used(solved) <= 1
    assert rebuilt(solved) == solved.architecture
    assert solved.values == {term: getattr(solved.cost, term) for term in limits}
    if "macs" in limits:
        assert solved.asked == limits["macs"] / cost(base).macs


@given(solvable())
@settings(max_examples=120, deadline=None)
def test_rules_that_move_width_use_at_least_99_percent_of_a_budget_and_never_more(
    case: tuple[Architecture, str, dict[str, float]],
) -> None:
    check_solved(case)


@pytest.mark.slow
@given(solvable())
@settings(max_examples=4000, deadline=None)
def test_thousands_of_budgets_are_used_to_99_percent_and_never_more(
    case: tuple[Architecture, str, dict[str, float]],
) -> None:
    check_solved(case)


@pytest.mark.parametrize("rule", WIDENING)
@pytest.mark.parametrize(("term", "limit"), [("macs", 300e6), ("params", 4e6), ("activations", 5e6), ("size", 16e6)])
def test_b0_meets_a_budget_of_every_kind_under_every_rule_that_moves_width(rule: str, term: str, limit: float) -> None:
    solved = solve(B0, RULES[rule], Budget({term: limit}))
    assert 0.99 <= used(solved) <= 1
    assert rebuilt(solved) == solved.architecture


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_network_doubles_under_compound(name: str) -> None:
    limit = 2 * cost(published(name)).macs
    solved = solve(published(name), RULES["compound"], Budget({"macs": limit}))
    assert 0.99 <= used(solved) <= 1
    assert solved.asked == 2
    assert rebuilt(solved) == solved.architecture


BLOCKS: tuple[Block, ...] = (
    MBConv(5, 3),
    MBConv(3, 6, 0.0),
    FusedMBConv(3, 4),
    DepthwiseSeparable(),
    Conv(),
    Basic(),
    Bottleneck(),
)


@st.composite
def own_networks(draw: DrawFn) -> Architecture:
    """Somebody's own network of two stages or more."""
    widths = st.sampled_from((8, 12, 16, 24, 40, 64, 96))
    stages = st.builds(Stage, st.sampled_from(BLOCKS), widths, st.integers(1, 4), st.integers(1, 2))
    side = draw(st.sampled_from((32, 48, 96, 224)))
    head = Head(draw(st.integers(2, 100)), draw(st.sampled_from((None, 128, 1280))))
    return Architecture(tuple(draw(st.lists(stages, min_size=2, max_size=4))), Stem(16), head, (side, side))


@settings(derandomize=True, max_examples=150)
@given(own_networks(), st.sampled_from(("compound", "uniform", "fast", "tiny")), st.floats(0.15, 0.9), st.floats(1, 10))
def test_somebodys_own_network_uses_99_percent_of_its_budget_too(
    base: Architecture, rule: str, share: float, growth: float
) -> None:
    macs = cost(base).macs * share * (1 if rule == "tiny" else growth)
    try:
        solved = solve(base, RULES[rule], Budget({"macs": macs}))
    except TooSmallError:
        return
    assert 0.99 <= used(solved) <= 1
    assert rebuilt(solved) == solved.architecture


def test_a_head_that_is_never_narrower_takes_no_trim() -> None:
    mobile = published("mobilenet_v2")
    for limit in range(400, 2000, 100):
        solved = solve(mobile, RULES["compound"], Budget({"macs": limit * 1e6}))
        assert rebuilt(solved) == solved.architecture


def test_a_trim_step_says_where_and_from_what_to_what() -> None:
    solved = solve(B0, RULES["compound"], Budget({"macs": 600e6}))
    assert solved.trim
    assert all(isinstance(step, Step) for step in solved.trim)
    assert all(step.place in {"stem", "head", *(f"stages.{i}" for i in range(7))} for step in solved.trim)


def test_several_limits_all_hold_and_the_tightest_is_used_up() -> None:
    solved = solve(B0, RULES["compound"], Budget({"macs": 2e9, "params": 6e6, "activations": 1e9}))
    assert solved.cost.macs <= 2e9
    assert 0.99 * 6e6 <= solved.cost.params <= 6e6


def next_deeper(base: Architecture, member: Architecture) -> Architecture:
    """The depth rule's next member: the smallest depth at which one more stage repeats once more."""
    ratios = [now.repeats / was.repeats for was, now in zip(base.stages, member.stages, strict=True) if was.deepens]
    return multiply(base, depth=min(ratios) + 1e-6)


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite0", "mobilenet_v2", "resnet50"])
@given(st.floats(1.0, 30))
@settings(max_examples=30, deadline=None)
def test_no_deeper_member_fits(name: str, share: float) -> None:
    base = published(name)
    limit = cost(base).macs * share
    solved = solve(base, RULES["depth"], Budget({"macs": limit}))
    assert solved.cost.macs <= limit < cost(next_deeper(base, solved.architecture)).macs
    assert solved.trim == ()
    assert solved.architecture == rebuilt(solved)
    assert solved.architecture.resolution == base.resolution
    assert [stage.channels for stage in solved.architecture.stages] == [stage.channels for stage in base.stages]


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v2", "resnet50"])
@pytest.mark.parametrize("term", ["macs", "activations"])
@given(st.floats(0.05, 60))
@settings(max_examples=30, deadline=None)
def test_no_member_with_one_more_pixel_fits(name: str, term: str, share: float) -> None:
    base = published(name)
    limit = getattr(cost(base), term) * share
    solved = solve(base, RULES["resolution"], Budget({term: limit}))
    side = solved.architecture.resolution[0]
    assert solved.architecture == replace(base, resolution=(side, side))
    assert solved.trim == ()
    above = replace(base, resolution=(side + 1, side + 1))
    assert getattr(solved.cost, term) <= limit < getattr(cost(above), term)


def test_b0_under_resolution_stays_at_224_pixels_for_400m() -> None:
    solved = solve(B0, RULES["resolution"], Budget({"macs": 400e6}))
    assert solved.architecture == B0
    assert solved.architecture.name == "efficientnet_b0"
    assert solved.cost.macs == 385_814_752
    assert round(cost(replace(B0, resolution=(225, 225))).macs / 1e6, 1) == 449.5


@given(solvable(), st.floats(1.011, 3))
@settings(max_examples=40, deadline=None)
def test_a_larger_budget_never_buys_a_cheaper_network(
    case: tuple[Architecture, str, dict[str, float]], more: float
) -> None:
    base, rule, limits = case
    term = next(iter(limits))
    try:
        small, large = (solve(base, RULES[rule], Budget({term: limits[term] * times})) for times in (1, more))
    except UserError:
        assume(False)
    assert getattr(small.cost, term) < getattr(large.cost, term)


class Stopwatch:
    """A measured term that follows the MACs and keeps what it was asked."""

    def __init__(self, measure: Callable[[Architecture], float]) -> None:
        self.measure, self.calls = measure, list[Architecture]()

    def __call__(self, architecture: Architecture) -> float:
        self.calls.append(architecture)
        return self.measure(architecture)


@pytest.mark.parametrize("rule", POWERS)
def test_a_measured_limit_holds_and_no_network_is_measured_twice(rule: str) -> None:
    watch = Stopwatch(lambda architecture: cost(architecture).macs * 1e-11)
    solved = solve(B0, RULES[rule], Budget({"latency": 0.010}, {"latency": watch}))
    assert solved.values is not None
    assert solved.values["latency"] == watch.measure(solved.architecture) <= 0.010
    assert solved.values["latency"] > 0.007
    assert len(watch.calls) == len(set(watch.calls))
    assert solved.architecture in watch.calls
    assert rebuilt(solved) == solved.architecture


@pytest.mark.parametrize("limits", [{"macs": 5e8}, {"macs": 2e9}, {"macs": 1e9, "params": 7e6}], ids=str)
@pytest.mark.parametrize("rule", POWERS)
def test_measuring_happens_only_where_the_analytic_limits_hold(rule: str, limits: dict[str, float]) -> None:
    limits = {term: limit for term, limit in limits.items() if term == "macs" or rule != "resolution"}
    latency = Stopwatch(lambda architecture: cost(architecture).activations * 1e-9)
    memory = Stopwatch(lambda architecture: float(cost(architecture).memory.inference))
    measured = {"latency": latency, "memory": memory}
    solved = solve(B0, RULES[rule], Budget({**limits, "latency": 0.012, "memory": 80e6}, measured))
    assert solved.values is not None
    assert solved.limits is not None
    assert all(solved.values[term] <= solved.limits[term] for term in solved.limits)
    for watch in (latency, memory):
        assert watch.calls
        assert len(watch.calls) == len(set(watch.calls))
        for architecture in watch.calls:
            assert all(getattr(cost(architecture), term) <= limit for term, limit in limits.items())


def test_a_measured_limit_below_the_smallest_network_is_named_and_measured_once() -> None:
    watch = Stopwatch(lambda _: 0.5)
    with pytest.raises(UserError, match=r"no network that small: a budget of 10 ms latency .* 500 ms latency"):
        solve(B0, RULES["compound"], Budget({"latency": 0.010}, {"latency": watch}))
    assert len(watch.calls) == 1


def test_nothing_is_measured_where_even_the_smallest_network_is_over_an_analytic_limit() -> None:
    watch = Stopwatch(lambda _: 0.5)
    with pytest.raises(UserError, match="a budget of 100 MACs"):
        solve(B0, RULES["compound"], Budget({"macs": 100, "latency": 0.010}, {"latency": watch}))
    assert watch.calls == []


def test_a_measured_term_that_nothing_moves_ends_in_an_error() -> None:
    with pytest.raises(UserError, match="beyond the largest network"):
        solve(B0, RULES["width"], Budget({"latency": 1.0}, {"latency": lambda _: 0.5}))


def test_a_limit_that_the_memory_cuts_short_is_said_to_be_beyond_it() -> None:
    """What cannot be measured, for no memory holds it, counts as infinitely slow."""

    def latency(architecture: Architecture) -> float:
        macs = cost(architecture).macs
        return macs / 1e12 if macs < 2e9 else float("inf")

    with pytest.raises(
        UserError, match=r"a budget of 4 ms latency is beyond .* that the memory here holds, of about 1\.[89]\d* ms"
    ):
        solve(B0, RULES["compound"], Budget({"latency": 0.004}, {"latency": latency}))
    within = solve(B0, RULES["compound"], Budget({"latency": 0.0018}, {"latency": latency}))
    assert 0.95 * 0.0018 <= latency(within.architecture) <= 0.0018


@pytest.mark.parametrize("rule", RULES)
def test_an_impossible_budget_names_the_smallest_network(rule: str) -> None:
    with pytest.raises(UserError) as caught:
        solve(B0, RULES[rule], Budget({"macs": 1000}))
    message = str(caught.value)
    for words in ("no network that small", "1k MACs", "efficientnet_b0", f"rule {rule}", "blocks", "pixels", "raise"):
        assert words in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("rule", "term"), [("resolution", "params"), ("resolution", "size")])
def test_a_budget_that_the_rule_cannot_move_is_an_error(rule: str, term: str) -> None:
    for limit in (1e3, 1e12):
        with pytest.raises(UserError, match=f"rule {rule} does not move {term}: efficientnet_b0 has"):
            solve(B0, RULES[rule], Budget({"macs": 1e9, term: limit}))


def test_depth_moves_nothing_in_a_network_whose_stages_may_not_deepen() -> None:
    flat = Architecture((Stage(Conv(), 16, deepens=False),), stem=Stem(8))
    with pytest.raises(UserError, match="rule depth does not move MACs"):
        solve(flat, RULES["depth"], Budget({"macs": 1e12}))


@pytest.mark.parametrize("rule", POWERS)
def test_a_budget_beyond_what_a_network_can_be_is_an_error(rule: str) -> None:
    with pytest.raises(UserError, match=f"beyond the largest network that rule {rule} can describe"):
        solve(B0, RULES[rule], Budget({"macs": 1e30}))


@pytest.mark.parametrize("name", ZOO)
def test_the_largest_multipliers_are_still_networks(name: str) -> None:
    base = published(name)
    depth, width, resolution = largest_multipliers(base)
    assert max(stage.repeats for stage in multiply(base, depth=depth).stages) <= 1024
    multiply(base, width=width)
    assert max(multiply(base, resolution=resolution).resolution) == 8192
    with pytest.raises(UserError):
        multiply(base, depth=depth * 1.01)
    with pytest.raises(UserError):
        multiply(base, resolution=resolution * 1.01)


@pytest.mark.parametrize(("rule", "macs"), [("tiny", 1e9), ("depth", 1e12)])
def test_an_analytic_limit_that_bounds_nothing_leaves_a_measured_one_to_be_solved_for(rule: str, macs: float) -> None:
    watch = Stopwatch(lambda architecture: cost(architecture).macs * 25e-12)  # B0: 9.6 ms
    solved = solve(B0, RULES[rule], Budget({"macs": macs, "latency": 0.008}, {"latency": watch}))
    assert 0.005 < watch.measure(solved.architecture) <= 0.008


@pytest.mark.parametrize(
    "asked", [{"latency": float("inf")}, {"macs": 10**400}, {"factor": 10**400}, {"phi": 10**400}, {"factor": 1e31}]
)
def test_what_is_beyond_every_number_is_refused_in_one_line(asked: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"limits nothing|out of reach"):
        scale(B0, measured={"latency": lambda _: 0.01}, **asked)


def test_a_network_of_many_stages_is_trimmed_without_looking_at_millions_of_combinations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked, used_by = 0, Budget.used

    def counted(budget: Budget, values: Mapping[str, float]) -> float:
        nonlocal looked
        looked += 1
        assert looked < 100_000
        return used_by(budget, values)

    monkeypatch.setattr(Budget, "used", counted)
    stages = tuple(Stage(Conv(3), 64) for _ in range(24))
    base = Architecture(stages, Stem(64), Head(channels=None), (128, 128))
    solved = solve(base, RULES["width"], Budget({"macs": 1.2 * cost(base).macs}))
    assert 0.99 <= used(solved) <= 1
