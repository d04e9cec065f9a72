#!/bin/sh
# Puts the web page's 3D viewer (Google's model-viewer, Apache-2.0) where the page serves it from, at the
# version of worker/web/package-lock.json. Without it the page shows turntable films instead.
set -eu
cd "$(dirname "$0")/../worker/web"
command -v npm >/dev/null 2>&1 || { echo "npm is missing; the web page will show films instead of models." >&2; exit 1; }
npm ci --legacy-peer-deps --no-audit --no-fund --loglevel=error
mkdir -p vendor
cp node_modules/@google/model-viewer/dist/model-viewer.min.js vendor/model-viewer.js
cp node_modules/@google/model-viewer/LICENSE vendor/model-viewer.LICENSE.txt
