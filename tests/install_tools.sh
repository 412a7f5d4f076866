#!/bin/sh
# What the tests need beside Python packages: a Chromium, a PostgreSQL server, nginx, DCMTK's renderer;
# with the argument soak also R with lme4 and a SLURM.
# Debian's packages where they may be installed; for the browser Playwright's own as the last resort.
set -u

debian() {
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then run=""; elif sudo -n true 2>/dev/null; then run="sudo -n"; else return 1; fi
    $run apt-get -qq update >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive $run apt-get -qq install -y --no-install-recommends "$@" >/dev/null 2>&1
}

if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
    echo "Installing a browser for the tests ..."
    debian chromium || "$BIN/playwright" install chromium
fi
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ! command -v initdb >/dev/null; then
    echo "Installing PostgreSQL for the tests ..."
    debian postgresql || echo "PostgreSQL could not be installed here: install it (initdb must be found) or its tests will fail."
fi
if ! command -v nginx >/dev/null && ! test -x /usr/sbin/nginx; then
    echo "Installing nginx for the tests ..."
    debian nginx-light || echo "nginx could not be installed here: install it or its tests will fail."
fi
if ! command -v dcm2pnm >/dev/null; then
    echo "Installing DCMTK for the tests ..."
    debian dcmtk || echo "DCMTK could not be installed here: install it (dcm2pnm must be found) or its tests will fail."
fi
[ "${1:-}" = soak ] || exit 0
if ! Rscript --vanilla -e 'library(lme4)' >/dev/null 2>&1; then
    echo "Installing R for the soak tests ..."
    debian r-cran-lme4 || echo "R with lme4 could not be installed here: install it or its tests will fail."
fi
if ! command -v slurmctld >/dev/null; then
    echo "Installing SLURM for the soak tests ..."
    debian slurm-wlm munge || echo "SLURM could not be installed here: install it or its tests will fail."
fi
exit 0
