#!/bin/sh
# The page's endpoints with curl: sh examples/client.sh [http://127.0.0.1:7860]
# A call takes two requests: the first hands it in and answers with its number, the second waits for what comes of it,
# as server-sent events. Arguments go by name, and those left out have their usual values.
set -eu
url="${1:-http://127.0.0.1:7860}/gradio_api/call"

call() {
  id=$(curl -sS "$url/v2/$1" -H "Content-Type: application/json" -d "$2" | sed 's/.*"event_id": *"\([^"]*\)".*/\1/')
  curl -sSN "$url/$1/$id"
}

# Strokes are lists of [x, y] in pixels, y down; here two ears and the top of a head.
start='[[[60, 200], [120, 90], [200, 60], [300, 90], [360, 200]]]'

call complete "{\"strokes\": $start, \"category\": \"cat\", \"n\": 2, \"seed\": 7}"
call draw '{"category": "cat", "n": 1, "form": "svg"}'
call draw '{"category": "unicorn"}' # event: error, with one clear sentence
