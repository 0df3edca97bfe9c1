"""The text source ``code``: small programs with the trace of their run.

The values are computed here, step by step, together with the program that is written down.
"""

from __future__ import annotations

import random

_VARIABLES = ("a", "b", "count", "first", "item", "n", "number", "result", "total", "value", "x", "y")
_FUNCTIONS = ("add", "apply", "combine", "compute", "double", "move", "scale", "step", "update")


def traced_program(rng: random.Random) -> str:
    """One program in Python, its trace as comments, and what it prints."""
    return rng.choice((_loop, _while, _branches, _function, _list, _text))(rng)


def _program(lines: list[str], trace: list[str], printed: object) -> str:
    steps = "\n".join(f"# {step}" for step in trace)
    return "\n".join([*lines, "", "# trace", steps, f"# prints {printed}"])


def _loop(rng: random.Random) -> str:
    total, item = rng.sample(_VARIABLES, 2)
    start, factor = rng.randint(0, 9), rng.randint(1, 6)
    values = rng.sample(range(1, 20), rng.randint(2, 4))
    lines = [
        f"{total} = {start}",
        f"for {item} in {values}:",
        f"    {total} += {factor} * {item}",
        f"print({total})",
    ]
    trace = [f"{total} = {start}"]
    for value in values:
        start += factor * value
        trace.append(f"{item} = {value}: {total} = {start}")
    return _program(lines, trace, start)


def _while(rng: random.Random) -> str:
    number, count = rng.sample(_VARIABLES, 2)
    start, divisor = rng.randint(20, 400), rng.randint(2, 4)
    lines = [
        f"{number} = {start}",
        f"{count} = 0",
        f"while {number} >= {divisor}:",
        f"    {number} //= {divisor}",
        f"    {count} += 1",
        f"print({count})",
    ]
    trace, steps = [f"{number} = {start}, {count} = 0"], 0
    while start >= divisor:
        start //= divisor
        steps += 1
        trace.append(f"{number} = {start}, {count} = {steps}")
    return _program(lines, trace, steps)


def _branches(rng: random.Random) -> str:
    name = rng.choice(_VARIABLES)
    value, limit, divisor = rng.randint(0, 60), rng.randint(10, 50), rng.randint(2, 5)
    lines = [
        f"{name} = {value}",
        f"if {name} > {limit}:",
        f"    {name} -= {limit}",
        f"elif {name} % {divisor} == 0:",
        f"    {name} = {name} // {divisor}",
        "else:",
        f"    {name} += 1",
        f"print({name})",
    ]
    if value > limit:
        result, trace = value - limit, [f"{value} > {limit} is True"]
    elif value % divisor == 0:
        result, trace = value // divisor, [f"{value} > {limit} is False", f"{value} % {divisor} == 0 is True"]
    else:
        result, trace = value + 1, [f"{value} > {limit} is False", f"{value} % {divisor} == 0 is False"]
    return _program(lines, [*trace, f"{name} = {result}"], result)


def _function(rng: random.Random) -> str:
    function = rng.choice(_FUNCTIONS)
    first, second = rng.sample(_VARIABLES, 2)
    factor, offset = rng.randint(2, 9), rng.randint(1, 20)
    left, right = rng.randint(0, 12), rng.randint(0, 12)
    inner = factor * left + right
    outer = factor * inner + offset
    lines = [
        f"def {function}({first}, {second}):",
        f"    return {factor} * {first} + {second}",
        "",
        f"print({function}({function}({left}, {right}), {offset}))",
    ]
    trace = [
        f"{function}({left}, {right}) = {factor} * {left} + {right} = {inner}",
        f"{function}({inner}, {offset}) = {factor} * {inner} + {offset} = {outer}",
    ]
    return _program(lines, trace, outer)


def _list(rng: random.Random) -> str:
    name, item = rng.sample(_VARIABLES, 2)
    values = rng.sample(range(1, 30), rng.randint(3, 5))
    divisor = rng.randint(2, 3)
    divisible = [value for value in values if value % divisor == 0]
    squares = [value * value for value in divisible]
    lines = [
        f"{name} = {values}",
        f"{name} = [{item} * {item} for {item} in {name} if {item} % {divisor} == 0]",
        f"print(len({name}), sum({name}))",
    ]
    trace = [f"{item} = {value}: {value} % {divisor} = {value % divisor}" for value in values]
    return _program(lines, [*trace, f"{name} = {squares}"], f"{len(squares)} {sum(squares)}")


def _text(rng: random.Random) -> str:
    name = rng.choice(_VARIABLES)
    word = rng.choice(_FUNCTIONS) + rng.choice(_FUNCTIONS)
    start, stop = sorted(rng.sample(range(len(word) + 1), 2))
    part = word[start:stop]
    lines = [
        f'{name} = "{word}"',
        f"{name} = {name}[{start}:{stop}]",
        f"{name} = {name}[::-1].upper()",
        f"print({name}, len({name}))",
    ]
    trace = [
        f"{name}[{start}:{stop}] = {part!r}",
        f"reversed: {part[::-1]!r}",
        f"upper: {part[::-1].upper()!r}",
    ]
    return _program(lines, trace, f"{part[::-1].upper()} {len(part)}")
