// Validates the GLB files named on the command line with the Khronos glTF validator.
// Prints one JSON report per line: { file, issues: { numErrors, numWarnings, numInfos, messages } }.
"use strict";
const fs = require("fs");
const validator = require("gltf-validator");

async function main() {
  for (const file of process.argv.slice(2)) {
    const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(file)), { uri: file });
    console.log(JSON.stringify({ file, issues: report.issues }));
  }
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
