"""What the reference reads of docstrings and signatures otherwise than griffe by itself."""

import ast
import re
from typing import Any

from griffe import Extension, Function, Object


class Reading(Extension):
    """Names in roles, ``:class:`~rlmix.RMix```, are shown as code; jaxtyping's shapes stay as they are, instead of products of names."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)

    def on_function_instance(self, *, node: Any, func: Function, **_: Any) -> None:
        if not isinstance(node, ast.FunctionDef):
            return
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            if argument.annotation and _has_shape(argument.annotation):
                func.parameters[argument.arg].annotation = ast.unparse(argument.annotation)
        if node.returns and _has_shape(node.returns):
            func.returns = ast.unparse(node.returns)


def _has_shape(annotation: ast.expr) -> bool:
    return bool(re.search(r"Tensor, ['\"]", ast.unparse(annotation)))
