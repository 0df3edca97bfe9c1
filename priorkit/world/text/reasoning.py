"""The text sources ``arithmetic`` and ``logic``: small problems, worked step by step."""

from __future__ import annotations

import random
from itertools import pairwise

from priorkit.world.scenes.palette import article


def arithmetic(rng: random.Random) -> str:
    """One worked calculation."""
    return rng.choice((_sum, _difference, _product, _division, _shopping, _comparison))(rng)


def _sum(rng: random.Random) -> str:
    first, second = rng.randint(11, 999), rng.randint(11, 999)
    ones, tens, hundreds = (
        first % 10 + second % 10,
        first // 10 % 10 + second // 10 % 10,
        first // 100 + second // 100,
    )
    steps = [f"Ones: {first % 10} + {second % 10} = {ones}."]
    carry = ones // 10
    total = tens + carry
    carried = f" + {carry}" if carry else ""
    steps.append(f"Tens: {first // 10 % 10} + {second // 10 % 10}{carried} = {total}.")
    if hundreds or total >= 10:
        more = f" + {total // 10}" if total >= 10 else ""
        steps.append(f"Hundreds: {first // 100} + {second // 100}{more} = {hundreds + total // 10}.")
    return f"What is {first} + {second}? {' '.join(steps)} So {first} + {second} = {first + second}."


def _difference(rng: random.Random) -> str:
    second, rest = rng.randint(11, 499), rng.randint(1, 499)
    first = second + rest
    tens = second // 10 * 10
    middle = first - tens
    return (
        f"What is {first} - {second}? First {first} - {tens} = {middle}. "
        f"Then {middle} - {second - tens} = {rest}. So {first} - {second} = {rest}."
    )


def _product(rng: random.Random) -> str:
    first, second = rng.randint(12, 99), rng.randint(2, 12)
    tens, ones = first // 10 * 10, first % 10
    return (
        f"What is {first} * {second}? {first} = {tens} + {ones}. {tens} * {second} = {tens * second}. "
        f"{ones} * {second} = {ones * second}. {tens * second} + {ones * second} = {first * second}. "
        f"So {first} * {second} = {first * second}."
    )


def _division(rng: random.Random) -> str:
    divisor, quotient = rng.randint(2, 12), rng.randint(2, 40)
    rest = rng.randrange(divisor)
    number = divisor * quotient + rest
    return (
        f"Divide {number} by {divisor}. {divisor} * {quotient} = {divisor * quotient}. "
        f"{number} - {divisor * quotient} = {rest}. The quotient is {quotient}, the remainder is {rest}."
    )


def _shopping(rng: random.Random) -> str:
    name, item = rng.choice(_PEOPLE), rng.choice(_GOODS)
    count, price = rng.randint(2, 9), rng.randint(2, 15)
    paid = count * price + rng.randint(1, 30)
    return (
        f"{name} buys {count} {item} for {price} coins each and pays with {paid} coins. How many coins come back? "
        f"The {item} cost {count} * {price} = {count * price} coins. {paid} - {count * price} = {paid - count * price}. "
        f"{paid - count * price} coins come back."
    )


def _comparison(rng: random.Random) -> str:
    first, second, third = rng.sample(range(10, 1000), 3)
    ordered = sorted((first, second, third))
    return (
        f"Order the numbers {first}, {second} and {third}. The smallest is {ordered[0]}, the largest is {ordered[2]}. "
        f"In order: {ordered[0]} < {ordered[1]} < {ordered[2]}. "
        f"The largest minus the smallest is {ordered[2] - ordered[0]}."
    )


def logic(rng: random.Random) -> str:
    """One small problem of logic with its solution."""
    return rng.choice((_order, _syllogism, _truth_table, _chain, _exclusion))(rng)


def _order(rng: random.Random) -> str:
    people = rng.sample(_PEOPLE, rng.randint(3, 5))
    word, most, least = rng.choice(
        (("taller", "tallest", "shortest"), ("older", "oldest", "youngest"), ("faster", "fastest", "slowest"))
    )
    claims = [f"{above} is {word} than {below}." for above, below in pairwise(people)]
    rng.shuffle(claims)
    return (
        f"{' '.join(claims)} Who is the {most} and who is the {least}? From first to last the order is "
        f"{', '.join(people)}. So {people[0]} is the {most} and {people[-1]} is the {least}."
    )


def _syllogism(rng: random.Random) -> str:
    kind, group, trait = rng.sample(_KINDS, 3)
    name = rng.choice(_PEOPLE)
    if rng.random() < 0.5:
        return (
            f"All {kind}s are {group}s. All {group}s are {trait}s. {name} is {article(kind)}. Is {name} "
            f"{article(trait)}? {name} is {article(kind)}, so {name} is {article(group)}, so {name} is "
            f"{article(trait)}. Yes."
        )
    return (
        f"All {kind}s are {group}s. No {group} is {article(trait)}. {name} is {article(kind)}. Is {name} "
        f"{article(trait)}? {name} is {article(kind)}, so {name} is {article(group)}. No {group} is "
        f"{article(trait)}. So the answer is no."
    )


def _truth_table(rng: random.Random) -> str:
    first, second = rng.random() < 0.5, rng.random() < 0.5
    names = rng.sample("pqrstuvw", 2)
    both, either, negated = first and second, first or second, not first
    return (
        f"Let {names[0]} be {_truth(first)} and {names[1]} be {_truth(second)}. "
        f"Then {names[0]} and {names[1]} is {_truth(both)}. {names[0]} or {names[1]} is {_truth(either)}. "
        f"Not {names[0]} is {_truth(negated)}. If {names[0]} then {names[1]} is {_truth(negated or second)}."
    )


def _chain(rng: random.Random) -> str:
    events = rng.sample(_EVENTS, rng.randint(3, 4))
    rules = [f"If {cause}, then {effect}." for cause, effect in pairwise(events)]
    steps = [f"so {event}" for event in events[1:]]
    rng.shuffle(rules)
    start = events[0]
    if rng.random() < 0.7:
        return f"{' '.join(rules)} We know that {start}. What follows? We have {start}, {', '.join(steps)}."
    return (
        f"{' '.join(rules)} It is not true that {events[-1]}. Can it be that {start}? "
        f"If {start}, {', '.join(steps)}. But this is not true. So it cannot be that {start}."
    )


def _exclusion(rng: random.Random) -> str:
    name = rng.choice(_PEOPLE)
    places = rng.sample(_PLACES, 3)
    gone = rng.sample(places, 2)
    left = next(place for place in places if place not in gone)
    return (
        f"{name} is in the {places[0]}, in the {places[1]} or in the {places[2]}. {name} is not in the {gone[0]}. "
        f"{name} is not in the {gone[1]}. Where is {name}? Only the {left} is left. {name} is in the {left}."
    )


def _truth(value: bool) -> str:
    return "true" if value else "false"


_PEOPLE = (
    "Ada", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Kim", "Lena", "Max",
    "Nora", "Otto", "Paula", "Rosa", "Sam", "Tina", "Uwe", "Vera", "Willy",
)  # fmt: skip
_GOODS = (
    "apples",
    "books",
    "pens",
    "cups",
    "lamps",
    "chairs",
    "plants",
    "tickets",
    "stamps",
    "bottles",
    "loaves",
)
_KINDS = (
    "baker", "singer", "painter", "teacher", "dancer", "farmer", "runner", "reader", "sailor", "writer", "swimmer",
    "gardener", "player", "driver", "builder", "dreamer",
)  # fmt: skip
_EVENTS = (
    "it rains", "the street is wet", "the match is off", "the shop is closed", "the lamp is on", "the door is open",
    "the cat sleeps", "the train is late", "the bell rings", "the water boils", "the wind blows", "the sun shines",
)  # fmt: skip
_PLACES = (
    "kitchen",
    "garden",
    "library",
    "station",
    "market",
    "museum",
    "park",
    "school",
    "harbour",
    "cellar",
)
