#!/bin/sh
# Installs what the tests need, where it may: as root or with a sudo that asks
# no password, and with apt-get. Else it says what the tests do without, which
# is a failure when CI=true. WEIR_TEST_INSTALL=no keeps it from installing.
#
# "test-deps.sh race" prints the flag for the race detector if that can work.
set -eu

have_cc() {
	# The compiler alone is not enough: cgo needs the C library's headers.
	echo '#include <stdlib.h>' | $(go env CC) -E -x c - >/dev/null 2>&1
}

have_chromium() {
	for name in "${WEIR_TEST_CHROMIUM:-}" chromium chromium-browser google-chrome; do
		if [ -n "$name" ] && command -v "$name" >/dev/null; then return; fi
	done
	return 1
}

have_redis() {
	# They are one program, which goes by the name it is called with.
	command -v redis-server >/dev/null || command -v redis-check-rdb >/dev/null
}

say() { echo "test-deps: $*" >&2; }

install() {
	[ "${WEIR_TEST_INSTALL:-}" != no ] && command -v apt-get >/dev/null || return 0
	sudo=
	if [ "$(id -u)" != 0 ]; then
		sudo='sudo -n'
		$sudo true 2>/dev/null || return 0
	fi
	say "installing $* with apt-get"
	if ! log=$({
		$sudo apt-get update &&
			$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
				-o DPkg::Lock::Timeout=120 "$@"
	} 2>&1 </dev/null); then
		echo "$log" >&2
		say "apt-get failed"
	fi
}

missing() {
	say "$*"
	failed=1
}

if [ "${1:-}" = race ]; then
	if have_cc && [ "$(go env CGO_ENABLED)" = 1 ]; then echo -race; fi
	exit
fi

packages=
have_cc || packages="$packages gcc libc6-dev"
# Without a font the browser draws no text.
have_chromium || packages="$packages chromium fonts-dejavu-core"
# The server without the service that the package redis-server would start.
have_redis || packages="$packages redis-tools"
# shellcheck disable=SC2086 # a list of words
[ -z "$packages" ] || install $packages

failed=
have_cc || missing "no C compiler (apt-get install gcc libc6-dev): the tests run without the race detector"
have_chromium || missing "no Chromium (apt-get install chromium): the browser tests are skipped"
have_redis || missing "no Redis (apt-get install redis-tools): its store is not tested"
if [ -n "$failed" ] && [ "${CI:-}" = true ]; then
	say "CI=true: a missing dependency is a failure"
	exit 1
fi
