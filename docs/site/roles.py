"""Docstrings name other things as ``:class:`~rlmix.RMix```; a page of the site shows the name as code."""

import re
from typing import Any

from griffe import Extension, Object


class Roles(Extension):
    """Takes the roles out."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
