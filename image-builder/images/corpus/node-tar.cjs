// node-tar.cjs SOURCE OUT PORTABLE: an archive by node-tar; NODE_PATH leads to the package.
const tar = require("tar");
const [source, file, portable] = process.argv.slice(2);
tar.create({ cwd: source, file, sync: true, portable: portable === "yes" }, ["."]);
