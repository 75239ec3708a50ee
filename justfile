# What is done often: https://just.systems

python := ".venv/bin/python"

# The fast tests, on all cores
test *ARGS:
    {{python}} -m pytest -n auto --dist loadfile {{ARGS}}

# Style, and who may import whom
lint:
    {{python}} -m ruff check .
    {{python}} -m ruff format --check .
    .venv/bin/lint-imports

# Types
types:
    {{python}} -m mypy

# The tables and pages of docs/ that registries and options write
docs:
    {{python}} .ci/docs.py

# The documentation's site, in build/site; `pip install -e ".[docs]"` first
site:
    NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict -f docs/site/mkdocs.yml

# How much of the code the fast tests run
coverage:
    {{python}} -m pytest -n auto --dist loadfile --cov --cov-report=term

# Everything that CI runs, in a fresh environment
ci:
    .ci/run
