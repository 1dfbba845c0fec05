"""The examples in the docstrings of the package are true."""

import ast
import doctest
import importlib
import inspect
import pkgutil

import elslightning


def modules():
    found = pkgutil.walk_packages(elslightning.__path__, "elslightning.")
    return [elslightning, *(importlib.import_module(info.name) for info in found)]


def examples(module):
    """The doctests of a module, read from its source: checked signatures hide functions from doctest's finder."""
    parser, kinds = doctest.DocTestParser(), (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        docstring = ast.get_docstring(node) if isinstance(node, kinds) else None
        if docstring:
            name = f"{module.__name__}.{getattr(node, 'name', '__doc__')}"
            line = getattr(node, "lineno", 1)
            yield parser.get_doctest(docstring, dict(vars(module)), name, module.__file__, line)


def test_examples_in_docstrings_hold():
    runner, report = doctest.DocTestRunner(), []
    for module in modules():
        for example in examples(module):
            runner.run(example, out=report.append)
    results = runner.summarize(verbose=False)
    assert results.failed == 0, "".join(report)
    assert results.attempted >= 17
