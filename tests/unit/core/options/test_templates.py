from __future__ import annotations

import pytest

from priorkit.core.errors import Problems, UsageError
from priorkit.core.options.templates import check_templates


def test_a_template_without_braces_is_refused() -> None:
    problems = Problems(UsageError)
    check_templates(("a photo of a {}", "{}"), problems)
    assert len(problems) == 0
    check_templates(("a photo of a {}", "a photo"), problems, "tag")
    with pytest.raises(UsageError, match=r"--template: a template needs \{\} where the tag goes"):
        problems.raise_if_any()
