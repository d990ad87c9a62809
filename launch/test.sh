#!/usr/bin/env bash
# Run the tests on this machine, fresh or not:  launch/test.sh [pytest arguments]
source "$(dirname "$0")/environment.sh"
install runtime requirements.txt
install tests tests/requirements.txt
.venv/bin/ruff check .
exec .venv/bin/python -m pytest -n 2 "$@"
