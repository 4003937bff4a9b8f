#!/usr/bin/env bash
# make_env.sh NAME: a virtual environment with another project's release, under .peers/ here.
set -euo pipefail
case "${1:-}" in
  the_well) want="the_well==1.2.0 xarray h5netcdf netCDF4" ;;
  neuraloperator) want="neuraloperator==2.0.0" ;;
  *) echo "usage: make_env.sh the_well|neuraloperator" >&2; exit 2 ;;
esac
env=".peers/$1"
[ -x "$env/bin/python" ] || "${PYTHON:-python3}" -m venv "$env"
"$env/bin/pip" install -q torch==2.13.0
# shellcheck disable=SC2086
"$env/bin/pip" install -q $want
